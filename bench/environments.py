"""Stepping with random actions, the whole rollout in one scan: fastrl, gymnax, Gymnasium.

python bench/environments.py --json stepping.jsonl
python bench/environments.py --env CartPole-v1 --num-envs 1024 --peers gymnax
"""

import sys

import arena
import options
from options import Options
from report import Report

ENVS = ("CartPole-v1", "Acrobot-v1", "Pendulum-v1", "MountainCar-v0")
PROGRAMS = {"gymnax": "peer_gymnax", "gymnasium": "peer_gymnasium"}
ROLLOUT = 2**20  # environment steps of one call, of all environments together


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    parser = options.parser(__doc__, tuple(PROGRAMS))
    parser.add_argument("--env", nargs="+", default=ENVS, metavar="NAME")
    parser.add_argument(
        "--store", action="store_true", help="keep every transition, as learners do"
    )
    parsed = parser.parse_args(arguments)
    chosen = options.options(parsed)
    report = Report("Stepping with random actions", chosen)
    for env in parsed.env:
        for num_envs in chosen.num_envs or (1024, 8192):
            report.add(*compare(env, num_envs, parsed.store, chosen))
    report.close()
    return 0


def compare(env: str, num_envs: int, store: bool, chosen: Options) -> list[dict]:
    """The rows of one environment at one size."""
    settings = {
        "env": env, "num_envs": num_envs, "seconds": chosen.seconds, "seed": 0, "store": store,
        "steps": chosen.steps or max(1, ROLLOUT // num_envs),
    }  # fmt: skip
    peers = [p for p in PROGRAMS if p != "gymnasium" or env == "CartPole-v1"]
    rivals = [arena.Rival(p, PROGRAMS[p]) for p in peers]
    case = f"{env}, {num_envs} envs" + (", stored" if store else "")
    return arena.meet("stepping", case, settings, "own_stepping", rivals, chosen)


if __name__ == "__main__":
    sys.exit(main())
