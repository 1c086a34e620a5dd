"""What the tests of learners of continuous actions share: probes, spaces and batches."""

import dataclasses
import functools
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import fastrl
from fastrl.algorithms.replay import Batch
from fastrl.envs import probe
from fastrl.spaces import Box
from fastrl.types import Array, Key, Step

LOW, HIGH = -0.2, 0.6  # of all actions here: neither [-1, 1] nor even about 0
CHAIN = probe.Value(), probe.ValueFromObservation(), probe.Discount()
NAMES = [type(p).__name__ for p in CHAIN] + ["ContinuousPolicy", "TimeLimit"]


class Params(NamedTuple):
    which: int = 0  # an index into NAMES


class State(NamedTuple):
    seen: probe.Seen
    counted: probe.TimeLimitState  # of TimeLimit


@dataclasses.dataclass(frozen=True)
class Probes:
    """The probes with an action in [-0.2, 0.6], as tasks of one environment.

    ContinuousPolicy's best action is -0.1 where the observation is -1, and 0.5 where it is 1.
    """

    version: ClassVar[int] = 1

    def default_params(self) -> Params:
        return Params()

    def reset(self, key: Key, params: Params) -> tuple[State, Array]:
        starts = [*CHAIN, probe.ContinuousPolicy()]
        seen = [p.reset(key, probe.NoParams())[0].shown for p in starts] + [jnp.float32(0.0)]
        state = State(probe.Seen(jnp.stack(seen)[params.which]), probe.TimeLimitState(jnp.int32(0)))
        return state, state.seen.shown[None]

    def step(self, key: Key, state: State, action: Array, params: Params) -> tuple[State, Step]:
        unit = (action - LOW) / (HIGH - LOW) * 2 - 1  # best at 0.75 of the observation
        outcomes = [p.step(key, state.seen, action, probe.NoParams()) for p in CHAIN]
        outcomes.append(
            probe.ContinuousPolicy().step(key, state.seen, unit / 1.5, probe.NoParams())
        )
        counted, limit = probe.TimeLimit().step(key, state.counted, action, probe.TimeLimitParams())
        outcomes.append((state.seen, limit))
        seen, step = jax.tree.map(lambda *xs: jnp.stack(xs)[params.which], *outcomes)
        return State(seen, counted), step

    def observation_space(self, params: Params) -> Box:
        return Box(-1.0, 1.0, (1,))

    def action_space(self, params: Params) -> Any:
        return Box(LOW, HIGH, (1,))


def check_probes(algorithm: Any, hparams: Any, steps: int, tolerance: float = 0.05) -> None:
    """Trains `algorithm`, made for `Probes()`, on each; asserts values and actions."""
    gamma = float(hparams.gamma)
    program = jax.jit(fastrl.run(algorithm, steps))
    wrong = []
    for i, name in enumerate(NAMES):
        state, _ = program(jax.random.key(i), hparams, Params(which=i))
        value = lambda o, state=state: float(algorithm.value(state, jnp.array([o])))  # noqa: E731
        expected = {
            "Value": {0.0: 1.0}, "ValueFromObservation": {1.0: 1.0, -1.0: -1.0},
            "Discount": {0.0: gamma, 1.0: 1.0}, "TimeLimit": {0.0: 1 / (1 - gamma)},
        }.get(name, {})  # fmt: skip
        got = [(o, value(o), v) for o, v in expected.items()]
        if name == "ContinuousPolicy":
            for o, best in ((-1.0, -0.1), (1.0, 0.5)):
                got.append((o, float(algorithm.act(state, (), jnp.array([o]), None)[0][0]), best))
        wrong += [(name, *g) for g in got if abs(g[1] - g[2]) > tolerance * max(1.0, abs(g[2]))]
    assert wrong == []


OBSERVATIONS, ACTIONS = Box(-1.0, 1.0, (3,)), Box(LOW, HIGH, (2,))


@dataclasses.dataclass(frozen=True)
class Spaces(Probes):
    """Nothing but spaces: three numbers seen, two given."""

    def observation_space(self, params: Params) -> Box:
        return OBSERVATIONS

    def action_space(self, params: Params) -> Any:
        return ACTIONS


def batches(count: int = 2, size: int = 6) -> list[dict[str, np.ndarray]]:
    """Batches for `Spaces()` in float64; `unit` is the action where the Box is [-1, 1]."""
    made = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        unit = rng.uniform(-0.9, 0.9, (size, 2))
        made.append(
            {
                "observation": rng.normal(size=(size, 3)), "unit": unit,
                "action": LOW + (unit + 1) / 2 * (HIGH - LOW), "reward": rng.normal(size=size),
                "discount": 0.9 * (rng.random(size) < 0.7),
                "next_observation": rng.normal(size=(size, 3)), "weight": rng.random(size) + 0.5,
            }
        )  # fmt: skip
    return made


def as_batch(batch: dict[str, np.ndarray]) -> Batch:
    arrays = {k: jnp.asarray(v, jnp.float32) for k, v in batch.items() if k != "unit"}
    return Batch(**arrays)


class Compiled(NamedTuple):
    """A learner for `Spaces()`, compiled once for all tests."""

    init: Any  # (key, hparams)
    update: Any  # (learned, batch, key, hparams, steps)


def compiled(module: Any, config: Any, env: Any = Spaces()) -> Compiled:
    """What `module` compiles for `config`."""
    return _compiled(module, config, env)


@functools.cache
def _compiled(module: Any, config: Any, env: Any) -> Compiled:
    learner = module.agent(env, config).learner
    return Compiled(jax.jit(learner.init), jax.jit(learner.update))


def updated(
    learner: Compiled, hparams: Any, given: list[Any], keys: list[Key]
) -> tuple[Any, Any, list[Array]]:
    """The learned state before and after an update on each batch, and the errors."""
    start = learned = learner.init(fastrl.key(3), hparams)
    errors = []
    for batch, key in zip(given, keys, strict=True):
        learned, _, error = learner.update(learned, as_batch(batch), key, hparams, jnp.int32(0))
        errors.append(error)
    return start, learned, errors


def assert_close(got: Any, expected: Any, path: str = "") -> None:
    """Nested dicts of arrays, of which `got` is fastrl's."""
    if isinstance(expected, dict):
        assert sorted(got) == sorted(expected), path
        for k in expected:
            assert_close(got[k], expected[k], f"{path}/{k}")
        return
    np.testing.assert_allclose(got, expected, atol=3e-5, rtol=1e-4, err_msg=path)
