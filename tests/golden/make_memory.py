"""Plays POPGym's RepeatFirst and RepeatPrevious at random and records the cards and what they paid.

python tests/golden/make_memory.py

Made with popgym 1.0.7. `record(name, steps, seed)` also serves the test against an installed
popgym. Only suits are recorded: the one shown first and the one dealt by every step.
"""

# The original simulators are no dependencies.
# pyright: reportMissingImports=false

import sys
from pathlib import Path
from typing import Any, cast

import numpy as np

STEPS = 10_000
OPTIONS: dict[str, dict[str, Any]] = {
    "RepeatFirst": {"num_decks": 2},
    "RepeatPrevious": {"num_decks": 1, "k": 4},
    "RepeatPrevious32": {"num_decks": 2, "k": 32},
}


def record(name: str, steps: int, seed: int) -> dict[str, np.ndarray]:
    """`steps` random steps: whether an episode began before, its first suit, and the step."""
    from popgym.envs.repeat_first import RepeatFirst
    from popgym.envs.repeat_previous import RepeatPrevious

    env = (RepeatFirst if name == "RepeatFirst" else RepeatPrevious)(**OPTIONS[name])
    rng, rows, start, first = np.random.default_rng(seed), [], True, 0
    for _ in range(steps):
        if start:
            first = env.reset(seed=int(rng.integers(2**31)))[0]
        action = int(rng.integers(4))
        shown, reward, terminated, truncated, _ = env.step(action)
        assert not truncated
        rows.append((start, first, action, shown, reward, terminated))
        start = terminated
    names = ("start", "first", "action", "shown", "reward", "ended")
    types = (bool, np.int8, np.int8, np.int8, np.float32, bool)
    columns = zip(*rows, strict=True)
    return {n: np.array(c, t) for n, t, c in zip(names, types, columns, strict=True)}


def main() -> None:
    folder = Path(__file__).parent
    for name in OPTIONS:
        recorded = record(name, STEPS, seed=1)
        np.savez_compressed(folder / f"memory_{name}.npz", **cast(Any, recorded))


if __name__ == "__main__":
    sys.exit(main())
