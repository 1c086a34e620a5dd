"""Stepping with random actions, the whole rollout in one scan: fastrl, gymnax, navix and others.

python bench/environments.py --json stepping.jsonl
python bench/environments.py --env CartPole-v1 --num-envs 1024 --peers gymnax
python bench/environments.py --env all --num-envs 1024
python bench/environments.py --env all --num-envs 1024 --per-env
python bench/environments.py --env CartPole-v1 --num-envs 1024 --costs
"""

import sys
from typing import Any

import arena
import options
from options import Options
from report import Report

from fastrl import registry

ENVS = ("CartPole-v1", "Acrobot-v1", "Pendulum-v1", "MountainCar-v0")
PROGRAMS = {
    "gymnax": "peer_gymnax", "gymnasium": "peer_gymnasium", "navix": "peer_navix",
    "xminigrid": "peer_xminigrid",
    **dict.fromkeys(("shared", "threefry", "pool", "cached", "none"), "own_stepping"),
}  # fmt: skip
# fastrl with something else: what `--costs` compares with. "none" never draws a start.
COSTS = {
    "threefry": {"keys": "threefry2x32"},
    "pool": {"reset": "pool"},
    "cached": {"reset": "cached"},
    "none": {"reset": "none"},
}
ROLLOUT = 2**20  # environment steps of one call, of all environments together
# What gymnax has, by its name. Its MinAtar has the minimal actions.
GYMNAX = {
    **{n: n for n in (*ENVS, "MountainCarContinuous-v0")},
    **{f"MinAtar/{n}-v1": f"{n}-MinAtar"
       for n in ("Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders")},
    **{f"bsuite/{n}-v0": f"{n}-bsuite"
       for n in ("Catch", "DeepSea", "DiscountingChain", "MemoryChain", "UmbrellaChain")},
    **{f"bandit/{n}-v0": f"{n}Bandit-misc" for n in ("Bernoulli", "Gaussian")},
}  # fmt: skip
# MiniGrid's tasks that others have, of the same sizes.
_SHARED = ("Empty-5x5", "Empty-8x8", "Empty-Random-6x6", "DoorKey-5x5", "DoorKey-8x8", "FourRooms")
_NAVIX = (*_SHARED, "KeyCorridorS3R3", "LavaGapS7", "SimpleCrossingS9N1", "Dynamic-Obstacles-6x6",
          "GoToDoor-5x5")  # fmt: skip
NAVIX = tuple(f"MiniGrid-{n}-v0" for n in _NAVIX)
XMINIGRID = tuple(f"MiniGrid-{n}-v0" for n in (*_SHARED, "Unlock", "UnlockPickup"))
# What makes fastrl's environment that of gymnax's default.
OPTIONS = {"bsuite/DeepSea-v0": {"size": 8}, "bsuite/UmbrellaChain-v0": {"distractors": 0}}
SLOW = {"brax/": 2**14, "quadrotor/": 2**17, "motor/": 2**18}  # steps of one call of these


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    parser = options.parser(__doc__, tuple(PROGRAMS))
    parser.add_argument(
        "--env", nargs="+", default=ENVS, metavar="NAME",
        help="environments; all: every one that fastrl ships; gymnax: those that it has",
    )  # fmt: skip
    parser.add_argument(
        "--store", action="store_true", help="keep every transition, as learners do"
    )
    parser.add_argument(
        "--per-env", action="store_true",
        help="params of its own for every environment, against one set for all",
    )  # fmt: skip
    parser.add_argument(
        "--costs", action="store_true",
        help="against JAX's own keys, against other Resets, and against no resets at all",
    )  # fmt: skip
    parsed = parser.parse_args(arguments)
    chosen = options.options(parsed)
    report = Report("Stepping with random actions", chosen)
    for env in names(parsed.env):
        for num_envs in chosen.num_envs or (1024, 8192):
            against = found(env, parsed.per_env, parsed.costs)
            per_env, store = parsed.per_env, parsed.store
            settings = {"per_env": per_env, "traced": per_env, "store": store}
            report.add(*compare(env, num_envs, settings, against, chosen))
    report.close()
    return 0


def names(asked: list[str]) -> list[str]:
    """The environments that are asked for, `all` and `gymnax` spelled out."""
    host = ("brax/", "gymnasium/", "probe/")
    groups = {
        "all": [n for n in registry.names() if not n.startswith(host)],
        "gymnax": list(GYMNAX),
    }
    return [n for name in asked for n in groups.get(name, [name])]


def compare(
    env: str, num_envs: int, extra: dict[str, bool], against: list[arena.Rival], chosen: Options
) -> list[dict]:
    """The rows of one environment at one size."""
    rollout = next((n for prefix, n in SLOW.items() if env.startswith(prefix)), ROLLOUT)
    settings = {
        "env": env, "num_envs": num_envs, "seconds": chosen.seconds, "seed": 0, **extra,
        "steps": chosen.steps or max(1, rollout // num_envs), "options": OPTIONS.get(env, {}),
    }  # fmt: skip
    case = f"{env}, {num_envs} envs" + (", stored" if extra["store"] else "")
    return arena.meet("stepping", case, settings, "own_stepping", against, chosen)


def found(env: str, per_env: bool, costs: bool) -> list[arena.Rival]:
    """With whom `env` is compared: fastrl with something else, or who else has it."""
    if costs:
        return [arena.Rival(n, PROGRAMS[n], extra=extra) for n, extra in COSTS.items()]
    if per_env:
        return [arena.Rival("shared", PROGRAMS["shared"], extra={"per_env": False})]
    return rivals(env)


def rivals(env: str) -> list[arena.Rival]:
    """Who else has `env`."""
    found: dict[str, dict[str, Any]] = {}
    if env in GYMNAX:
        found["gymnax"] = {"env": GYMNAX[env]}
    if env == "CartPole-v1":
        found["gymnasium"] = {}
    if env in NAVIX:
        found["navix"] = {"view": "egocentric"}
    if env in XMINIGRID:
        found["xminigrid"] = {}
    return [arena.Rival(name, PROGRAMS[name], extra=extra) for name, extra in found.items()]


if __name__ == "__main__":
    sys.exit(main())
