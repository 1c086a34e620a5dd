"""Plays DeepMind's bsuite at random and records what happened, with every chance event.

python tests/golden/make_bsuite.py

Made with bsuite 0.3.6, whose environments draw from one NumPy generator; a recorder in its
place notes what was drawn. `record(name, steps, seed)` also serves the test against an
installed bsuite.
"""

# The original simulators are no dependencies.
# pyright: reportMissingImports=false

import sys
from pathlib import Path
from typing import Any, cast

import numpy as np

STEPS = 10_000
OPTIONS: dict[str, dict[str, Any]] = {
    "Catch": {},
    "DeepSea": {"size": 10, "mapping_seed": 42},
    "DeepSeaStochastic": {"size": 6, "mapping_seed": 7, "deterministic": False},
    "DiscountingChain": {"mapping_seed": 3},
    "MemoryChain": {"memory_length": 7, "num_bits": 5},
    "UmbrellaChain": {"chain_length": 9, "n_distractor": 20},
    "CartPoleSwingup": {},
}


class Recorder:
    """A generator that notes its draws in `drawn`."""

    def __init__(self, rng: np.random.RandomState) -> None:
        self._rng, self.drawn = rng, []

    def __getattr__(self, name: str) -> Any:
        def draw(*args: Any, **kwargs: Any) -> Any:
            value = getattr(self._rng, name)(*args, **kwargs)
            self.drawn.append((name, np.copy(value)))
            return value

        return draw

    def take(self) -> list[tuple[str, np.ndarray]]:
        """The draws since the last call."""
        drawn, self.drawn = self.drawn, []
        return drawn


def make(name: str, seed: int) -> Any:
    """bsuite's environment with the options that are recorded."""
    from bsuite.environments import catch, deep_sea, discounting_chain, memory_chain, umbrella_chain
    from bsuite.experiments.cartpole_swingup import cartpole_swingup

    classes = {
        "Catch": catch.Catch,
        "DeepSea": deep_sea.DeepSea,
        "DeepSeaStochastic": deep_sea.DeepSea,
        "DiscountingChain": discounting_chain.DiscountingChain,
        "MemoryChain": memory_chain.MemoryChain,
        "UmbrellaChain": umbrella_chain.UmbrellaChain,
        "CartPoleSwingup": cartpole_swingup.CartpoleSwingup,
    }
    drawn = {} if name == "DiscountingChain" else {"seed": seed}
    return classes[name](**OPTIONS[name], **drawn)


def record(name: str, steps: int, seed: int) -> dict[str, np.ndarray]:
    """`steps` random steps: columns `[steps, ...]` of what was done, drawn and seen.

    `start` marks steps before which an episode began, with the first observation in `shown`
    and its draws in `start_<name>`; those of the step itself are in `step_<name>`.
    """
    env, rng = make(name, seed), np.random.default_rng(seed)
    recorder = Recorder(getattr(env, "_rng", np.random.RandomState(0)))
    env._rng = recorder
    rows, last, shown, start_draws = [], None, np.zeros(0), {}
    for _ in range(steps):
        start = last is None or last.last()
        if start:
            last = env.reset()
            shown, start_draws = last.observation, _named("start", recorder.take())
        action = int(rng.integers(env.action_spec().num_values))
        last = env.step(action)
        rows.append(
            {
                "start": start, "shown": shown.ravel(), "action": action,
                "observation": last.observation.ravel(), "reward": last.reward,
                "ended": last.discount == 0.0, **start_draws, **_named("step", recorder.take()),
            }
        )  # fmt: skip
    return _columns(rows)


def record_swingup(steps: int, seed: int) -> dict[str, np.ndarray]:
    """Single steps of CartPoleSwingup from states in a box that reaches every limit.

    The box: `np.random.default_rng(seed)` draws what `box` returns, so states are not stored.
    """
    from bsuite.environments.cartpole import CartpoleState

    env, (states, times, actions) = make("CartPoleSwingup", seed), box(steps, seed)
    rows = []
    for state, time, action in zip(states, times, actions, strict=True):
        env.reset()
        env._state = CartpoleState(*map(float, state), time_elapsed=0.01 * float(time))
        last = env.step(int(action))
        rows.append(
            {"observation": last.observation.ravel(), "reward": last.reward, "ended": last.last()}
        )
    return _columns(rows)


def box(steps: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random states float32 `[steps, 4]`, steps taken so far, and actions."""
    rng = np.random.default_rng(seed)
    states = rng.uniform((-3.02, -3, 0, -6), (3.02, 3, 2 * np.pi, 6), (steps, 4))
    upright = rng.uniform((-1.1, -1, -1.2, -1.1), (1.1, 1, 1.2, 1.1), (steps, 4))
    states = np.where(rng.random((steps, 1)) < 0.5, states, upright).astype(np.float32)
    return states, rng.integers(0, 1000, steps), rng.integers(0, 3, steps)


def record_hanging(seed: int) -> dict[str, np.ndarray]:
    """A whole episode of CartPoleSwingup without a push: the number of steps to its end."""
    env, steps = make("CartPoleSwingup", seed), 1
    start = env.reset().observation.ravel()
    while not (last := env.step(1)).last():
        steps += 1
    return {"shown": start, "steps": np.array(steps), "discount": np.array(last.discount)}


def _named(when: str, draws: list[tuple[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The draws by method, an `s` for vectors; second ones of the same name end in 1."""
    named: dict[str, np.ndarray] = {}
    for method, value in draws:
        name = f"{when}_{method}{'s' * value.ndim}"
        named[f"{name}1" if name in named else name] = value
    return named


def _columns(rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """One array for each name, 0 in rows that lack it, in the smallest type that holds it."""
    examples: dict[str, Any] = {}
    for row in rows:
        examples |= row
    columns = {
        name: np.array([row.get(name, np.zeros_like(example)) for row in rows])
        for name, example in examples.items()
    }
    return {name: _small(column) for name, column in columns.items()}


def _small(column: np.ndarray) -> np.ndarray:
    for dtype in (bool, np.int8, np.float32):
        if (column.astype(dtype) == column).all():
            return column.astype(dtype)
    return column.astype(np.float32) if column.dtype == np.float64 else column


def main() -> None:
    folder = Path(__file__).parent
    for name in OPTIONS:
        if name == "CartPoleSwingup":
            recorded = record_swingup(STEPS, seed=1)
            recorded |= {f"hanging_{k}": v for k, v in record_hanging(seed=2).items()}
        else:
            recorded = record(name, STEPS, seed=1)
        np.savez_compressed(folder / f"bsuite_{name}.npz", **cast(Any, recorded))


if __name__ == "__main__":
    sys.exit(main())
