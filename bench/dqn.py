"""DQN: fastrl and rejax with the same network, batches and replay, returns beside steps/s.

python bench/dqn.py --peer-path rejax=../venv-rejax --members 16
"""

import sys
from typing import Any

import arena
import options
from options import Options
from report import Report, Row, machine
from training import cores

# An update on 128 transitions after a step of each environment; else PureJaxRL's settings.
CARTPOLE: dict[str, Any] = {
    "env": "CartPole-v1", "num_envs": 10, "batch_size": 128, "buffer_size": 10_000,
    "learning_starts": 1_000, "double": True, "hidden_sizes": [64, 64], "activation": "relu",
    "seed": 0, "hparams": {
        "learning_rate": 2.5e-4, "gamma": 0.99, "epsilon": 1.0, "final_epsilon": 0.05,
        "exploration_steps": 50_000, "target_period": 50, "max_grad_norm": 10.0,
    },
}  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    parser = options.parser(__doc__, ("rejax",))
    parser.add_argument("--members", nargs="+", type=int, default=(1, 16), metavar="M")
    parser.add_argument("--devices", type=int, help="CPU devices for fastrl's members")
    parsed = parser.parse_args(arguments)
    chosen = options.options(parsed)
    report = Report("DQN", chosen)
    for num_envs in chosen.num_envs or (10,):
        for count in parsed.members:
            report.add(*cartpole(num_envs, count, parsed.devices, chosen))
    report.close()
    return 0


def cartpole(num_envs: int, count: int, devices: int | None, chosen: Options) -> list[Row]:
    """Whole trainings of `count` seeds in one program; steps are those of all of them."""
    here = machine()
    settings = CARTPOLE | {"num_envs": num_envs, "steps": chosen.steps or 100_000}
    if count > 1:
        devices = devices or (here["cores"] if here["backend"] == "cpu" else None)
        settings |= {"members": count, "devices": devices}
    rivals = [arena.Rival("rejax", "peer_rejax_dqn", cores())]
    case = f"DQN CartPole-v1, {count} seeds of {num_envs} envs"
    return arena.meet("dqn", case, settings, "own_dqn", rivals, chosen)


if __name__ == "__main__":
    sys.exit(main())
