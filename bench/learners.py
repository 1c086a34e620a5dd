"""DQN, SAC and TD3 beside rejax, PQN beside PureJaxQL: the same work, returns beside steps/s.

python bench/learners.py --algorithm sac --members 1 16 --peer-path rejax=../venv-rejax
python bench/learners.py --algorithm pqn --peer-path purejaxql=../purejaxql
"""

import sys
from typing import Any

import arena
import options
from options import Options
from report import Report, Row, machine
from training import cores, extra, ours

_DQN: dict[str, Any] = {  # PureJaxRL's settings, but an update after a step of each environment
    "env": "CartPole-v1", "steps": 100_000,
    "config": {
        "num_envs": 10, "num_steps": 1, "num_rounds": 100, "batch_size": 128,
        "buffer_size": 10_000, "learning_starts": 1_000, "double": True, "hidden_sizes": [64, 64],
        "activation": "relu",
    },
    "hparams": {
        "learning_rate": 2.5e-4, "gamma": 0.99, "epsilon": 1.0, "final_epsilon": 0.05,
        "exploration_steps": 50_000, "target_period": 50, "max_grad_norm": 10.0,
    },
}  # fmt: skip
_SAC: dict[str, Any] = {
    "env": "Pendulum-v1", "steps": 10_000,
    "config": {
        "num_envs": 1, "num_rounds": 100, "batch_size": 256, "buffer_size": 10_000,
        "learning_starts": 1_000, "hidden_sizes": [64, 64], "activation": "relu",
    },
    "hparams": {
        "learning_rate": 1e-3, "critic_learning_rate": 1e-3, "temperature_learning_rate": 1e-3,
        "gamma": 0.99, "tau": 0.005,
    },
}  # fmt: skip
# rejax makes up for the steps of the policy that it delays: with 1 both sides do as many.
_TD3: dict[str, Any] = {
    "env": "Pendulum-v1", "steps": 10_000,
    "config": _SAC["config"] | {"policy_delay": 1},
    "hparams": {
        "learning_rate": 1e-3, "critic_learning_rate": 1e-3, "gamma": 0.99, "tau": 0.005,
        "noise": 0.1, "target_noise": 0.2, "target_noise_clip": 0.5,
    },
}  # fmt: skip
_PQN: dict[str, Any] = {  # PureJaxQL's own for CartPole; its schedules end with the training
    "env": "CartPole-v1", "steps": 102_400,
    "config": {
        "num_envs": 32, "num_steps": 64, "num_epochs": 4, "num_minibatches": 16,
        "hidden_sizes": [256, 256],
    },
    "hparams": {
        "learning_rate": 1e-4, "gamma": 0.99, "q_lambda": 0.95, "epsilon": 1.0,
        "final_epsilon": 0.2, "reward_scale": 0.1, "max_grad_norm": 10.0,
    },
    "exploration": 0.2,
}  # fmt: skip
_PQN_MINATAR: dict[str, Any] = {
    "env": "MinAtar/Breakout-v1", "steps": 12_288,
    "config": {
        "num_envs": 128, "num_steps": 32, "num_epochs": 2, "num_minibatches": 32,
        "hidden_sizes": [128], "torso": "conv",
    },
    "hparams": {
        "learning_rate": 5e-4, "gamma": 0.99, "q_lambda": 0.65, "epsilon": 1.0,
        "final_epsilon": 0.05, "reward_scale": 1.0, "max_grad_norm": 10.0,
    },
    "exploration": 0.1,
}  # fmt: skip
FUSED = "sac", "td3", "pqn"  # cases whose dense layers the kernels can do
# The settings, the peer and its program.
CASES: dict[str, tuple[dict[str, Any], str, str]] = {
    "dqn": (_DQN, "rejax", "peer_rejax_learners"),
    "sac": (_SAC, "rejax", "peer_rejax_learners"),
    "td3": (_TD3, "rejax", "peer_rejax_learners"),
    "pqn": (_PQN, "purejaxql", "peer_purejaxql"),
    "pqn_minatar": (_PQN_MINATAR, "purejaxql", "peer_purejaxql"),
}


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    parser = options.parser(__doc__, ("rejax", "purejaxql"))
    parser.add_argument("--algorithm", nargs="+", choices=CASES, default=tuple(CASES))
    parser.add_argument("--members", nargs="+", type=int, default=(1, 16), metavar="M")
    parser.add_argument("--devices", type=int, help="CPU devices for fastrl's members")
    parsed = parser.parse_args(arguments)
    chosen = options.options(parsed)
    report = Report("DQN, SAC, TD3, PQN", chosen)
    for name in parsed.algorithm:
        for count in parsed.members:
            report.add(*case(name, count, parsed.devices, chosen))
    report.close()
    return 0


def case(name: str, count: int, devices: int | None, chosen: Options) -> list[Row]:
    """Whole trainings of `count` seeds in one program; steps are those of all of them."""
    settings, peer, program = CASES[name]
    settings = settings | {"algorithm": name.partition("_")[0], "seed": 0}
    settings["set"] = ours(chosen) if name in FUSED else extra(chosen)
    if chosen.steps:
        settings["steps"] = chosen.steps
    if chosen.num_envs:
        settings["config"] = settings["config"] | {"num_envs": chosen.num_envs[0]}
    if name.startswith("pqn"):
        schedules = {"exploration_steps": settings["exploration"], "anneal_steps": 1.0}
        ends = {field: share * settings["steps"] for field, share in schedules.items()}
        settings["hparams"] = settings["hparams"] | ends
    if count > 1:
        here = machine()
        devices = devices or (here["cores"] if here["backend"] == "cpu" else None)
        settings |= {"members": count, "devices": devices}
    rivals = [arena.Rival(peer, program, cores() if machine()["cores"] > 1 else (None,))]
    title = f"{name} {settings['env']}, {count} seeds, {settings['steps']:,} steps"
    return arena.meet("learners", title, settings, "own_learner", rivals, chosen)


if __name__ == "__main__":
    sys.exit(main())
