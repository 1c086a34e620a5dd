"""PPO: fastrl and its peers with the same network and batch sizes, returns beside steps/s.

python bench/training.py --peer-path purejaxrl=../purejaxrl --json training.jsonl
python bench/training.py --case cartpole --num-envs 4 64 --peers rejax
python bench/training.py --case brax --env hopper
"""

import ast
import sys
from typing import Any

import arena
import options
from options import Options
from report import Report, Row, machine

PEERS = ("purejaxrl", "rejax", "brax", "sbx", "torch", "stoix", "pufferlib")
CASES = ("cartpole", "members", "brax", "host")  # host: peers with a loop of their own

# PureJaxRL's own settings of PPO on CartPole-v1.
CARTPOLE: dict[str, Any] = {
    "env": "CartPole-v1", "num_envs": 4, "num_steps": 128, "num_epochs": 4, "num_minibatches": 4,
    "hidden_sizes": [64, 64], "activation": "tanh", "seed": 0,
}  # fmt: skip
CARTPOLE_HPARAMS: dict[str, float] = {
    "learning_rate": 2.5e-4, "gamma": 0.99, "gae_lambda": 0.95, "clip": 0.2, "value_clip": 0.2,
    "entropy_coefficient": 0.01, "value_coefficient": 0.5, "max_grad_norm": 0.5,
}  # fmt: skip
BRAX: dict[str, Any] = {
    "ant": {"num_envs": 128, "num_steps": 64}, "hopper": {"num_envs": 64, "num_steps": 128},
}  # fmt: skip
BRAX_HPARAMS: dict[str, float] = {
    "learning_rate": 3e-4, "gamma": 0.99, "gae_lambda": 0.95, "clip": 0.2,
    "entropy_coefficient": 1e-3, "max_grad_norm": 0.5,
}  # fmt: skip


def cores() -> tuple[int | None, ...]:
    """On CPU a peer runs on one core and on all, and the better run counts; a GPU is one."""
    return (1, None) if machine()["backend"] == "cpu" else (None,)


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    parser = options.parser(__doc__, PEERS)
    parser.add_argument("--case", nargs="+", choices=CASES, default=CASES)
    parser.add_argument("--members", nargs="+", type=int, default=(8, 32), metavar="M")
    parser.add_argument("--batching", default="auto", help="of fastrl's members")
    parser.add_argument(
        "--devices", type=int, help="CPU devices for fastrl's members (one per core)"
    )
    parser.add_argument("--env", nargs="+", choices=tuple(BRAX), default=("hopper", "ant"))
    parser.add_argument("--backend", default="spring", help="of brax's physics")
    parsed = parser.parse_args(arguments)
    chosen = options.options(parsed)
    report = Report("PPO", chosen)
    if "cartpole" in parsed.case:
        for num_envs in chosen.num_envs or (4, 64, 1024):
            report.add(*cartpole(num_envs, chosen))
    if "members" in parsed.case:
        for count in parsed.members:
            report.add(*members(count, parsed.batching, parsed.devices, chosen))
    if "host" in parsed.case:
        report.add(*host(chosen))
    if "brax" in parsed.case:
        for env in parsed.env:
            report.add(*brax(env, parsed.backend, chosen))
    report.close()
    return 0


def cartpole(num_envs: int, chosen: Options) -> list[Row]:
    """Whole trainings with PureJaxRL's settings, but for the number of environments."""
    settings = CARTPOLE | {"num_envs": num_envs, "set": ours(chosen)}
    settings = _annealed(settings, chosen.steps or max(500_000, 8 * num_envs * 128))
    rivals = [
        arena.Rival("purejaxrl", "peer_purejaxrl", cores()),
        arena.Rival("rejax", "peer_rejax", cores()),
    ]
    case = f"PPO CartPole-v1, {num_envs} envs"
    return arena.meet("training", case, settings, "own_training", rivals, chosen)


def members(count: int, batching: str, devices: int | None, chosen: Options) -> list[Row]:
    """`count` seeds in one program; steps are those of all of them."""
    here = machine()
    devices = devices or (here["cores"] if here["backend"] == "cpu" else None)
    more = {"members": count, "batching": batching, "devices": devices, "set": ours(chosen)}
    settings = _annealed(CARTPOLE | more, chosen.steps or max(2**20 // count, 512))
    rivals = [
        arena.Rival("purejaxrl", "peer_purejaxrl", cores()),
        arena.Rival("rejax", "peer_rejax", cores()),
    ]
    case = f"PPO CartPole-v1, {count} seeds of 4 envs"
    return arena.meet("training", case, settings, "own_training", rivals, chosen)


def host(chosen: Options) -> list[Row]:
    """Peers that cannot train from the start in one call: every round goes on with one training."""
    settings = CARTPOLE | {"goes_on": True, "set": ours(chosen), "hparams": CARTPOLE_HPARAMS}
    settings["steps"] = whole(settings, chosen.steps or 8192)
    rivals = [
        arena.Rival("sbx", "peer_sbx", cores()),
        arena.Rival("torch", "peer_torch_ppo", cores()),
        *(
            arena.Rival(name, f"peer_{name}")
            for name in ("stoix", "pufferlib")
            if asked(name, chosen)
        ),
    ]
    case = "PPO CartPole-v1, 4 envs, one training"
    return arena.meet("training", case, settings, "own_training", rivals, chosen)


def ours(chosen: Options) -> dict[str, Any]:
    """Fields of fastrl's Config: on a CPU the kernels that are there for long trainings."""
    fast = {"fused_mlp": True} if machine()["backend"] == "cpu" else {}
    return fast | extra(chosen)


def asked(name: str, chosen: Options) -> bool:
    """Whether the user has the peer, or asks for it by name: it can't be installed by itself."""
    return bool(chosen.paths(name)) or name in (chosen.peers or ())


def brax(env: str, backend: str, chosen: Options) -> list[Row]:
    """PPO on brax: one training whose parts are the rounds, evaluated at the end."""
    sizes = {"num_epochs": 8, "num_minibatches": 4, "hidden_sizes": [64, 64], "activation": "tanh"}
    settings: dict[str, Any] = {
        "env": f"brax/{env}", "env_options": {"backend": backend}, **BRAX[env], **sizes,
        "hparams": BRAX_HPARAMS, "normalize_observation": True, "goes_on": True, "episodes": 64,
        "seed": 0, "rounds": chosen.rounds, "warmups": 2,
        "set": {"normalize_reward": True} | ours(chosen),
    }  # fmt: skip
    if chosen.num_envs:
        settings["num_envs"] = chosen.num_envs[0]
    settings["steps"] = whole(settings, chosen.steps or 200_000)
    rival = arena.Rival(
        "brax", "peer_brax", extra={"reward_scaling": 10.0 if env == "ant" else 1.0}
    )
    case = f"PPO {env} ({backend}), {settings['num_envs']} envs"
    return arena.meet("training", case, settings, "own_training", [rival], chosen)


def _annealed(settings: dict[str, Any], steps: int) -> dict[str, Any]:
    """The settings with whole iterations and the learning rate annealed over them."""
    steps = whole(settings, steps)
    return settings | {"steps": steps, "hparams": CARTPOLE_HPARAMS | {"anneal_steps": steps}}


def whole(settings: dict[str, Any], steps: int) -> int:
    """`steps` rounded to whole iterations, at least one."""
    iteration = settings["num_envs"] * settings["num_steps"]
    return max(1, round(steps / iteration)) * iteration


def extra(chosen: Options) -> dict[str, Any]:
    """`--set` as Python values."""
    return {name: _literal(text) for name, text in chosen.set}


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return {"true": True, "false": False}.get(text.lower(), text)


if __name__ == "__main__":
    sys.exit(main())
