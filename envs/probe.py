"""Probes: environments of a few steps, each of which tests one link of a learner.

Run them in this order before any benchmark. The first that fails names the broken link, and
each takes seconds. `gamma` is the learner's discount; "V = 1" says what the critic must
learn, "return 1" what the policy must reach.

| name | right | what is broken otherwise |
|---|---|---|
| `probe/Value` | V = 1 | the value loss, or bootstrapping from terminal states |
| `probe/ValueFromObservation` | V(o) = o | observations do not reach the critic |
| `probe/Discount` | V(0) = gamma, V(1) = 1 | bootstrapping, or the discount |
| `probe/Policy` | return 1 | the advantage's sign, or the policy's gradient |
| `probe/PolicyFromObservation` | return 1 | observations and actions get out of step |
| `probe/ContinuousPolicy` | return 0 | the continuous policy's density or its bounds |
| `probe/TimeLimit` | V = 1 / (1 - gamma) | truncation is taken for termination |
| `probe/Memory` | return 1 | memory is not kept, or not cleared at every end |
"""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastrl.envs import checks, drawing
from fastrl.registry import register
from fastrl.spaces import Box, Discrete
from fastrl.types import Array, Key, Step


class NoParams(NamedTuple):
    """A task without numbers."""


class Seen(NamedTuple):
    """A state that is shown as it is, in a single observation entry."""

    shown: Array  # float32


class Drawn:
    """An environment that is drawn by the numbers of its state."""

    def render(self, state: Any, params: Any) -> np.ndarray:
        """A bar for each number of the state: uint8 `[300, 400, 3]`."""
        return drawing.bars(state, greatest=1.0)


@dataclasses.dataclass(frozen=True)
class Still(Drawn):
    """What most probes share: no params, one observation that is always 0, two actions."""

    version: ClassVar[int] = 1

    def default_params(self) -> NoParams:
        return NoParams()

    def reset(self, key: Key, params: NoParams) -> tuple[Seen, Array]:
        state = Seen(jnp.float32(0.0))
        return state, _show(state)

    def observation_space(self, params: NoParams) -> Box:
        return Box(0.0, 0.0, (1,))

    def action_space(self, params: NoParams) -> Discrete | Box:
        return Discrete(2)


@dataclasses.dataclass(frozen=True)
class Coin(Still):
    """The same with an observation of +1 or -1, drawn at the start."""

    def reset(self, key: Key, params: NoParams) -> tuple[Seen, Array]:
        state = Seen(jnp.where(jax.random.bernoulli(key), 1.0, -1.0).astype(jnp.float32))
        return state, _show(state)

    def observation_space(self, params: NoParams) -> Box:
        return Box(-1.0, 1.0, (1,))


@dataclasses.dataclass(frozen=True)
class Value(Still):
    """One step, reward 1, always the same observation. Right: V = 1."""

    def step(self, key: Key, state: Seen, action: Array, params: NoParams) -> tuple[Seen, Step]:
        checks.step(self, action, params)
        return state, _last(_show(state), jnp.float32(1.0))


@dataclasses.dataclass(frozen=True)
class ValueFromObservation(Coin):
    """One step, observation +1 or -1, reward equal to it. Right: V(o) = o."""

    def step(self, key: Key, state: Seen, action: Array, params: NoParams) -> tuple[Seen, Step]:
        checks.step(self, action, params)
        return state, _last(_show(state), state.shown)


@dataclasses.dataclass(frozen=True)
class Discount(Still):
    """Two steps, observations 0 and 1, reward 1 for the second. Right: V(0) = gamma, V(1) = 1."""

    def step(self, key: Key, state: Seen, action: Array, params: NoParams) -> tuple[Seen, Step]:
        checks.step(self, action, params)
        reward = state.shown
        state = Seen(jnp.minimum(state.shown + 1.0, 1.0))
        terminated = reward == 1.0
        return state, Step(_show(state), reward, terminated, jnp.zeros_like(terminated))

    def observation_space(self, params: NoParams) -> Box:
        return Box(0.0, 1.0, (1,))


@dataclasses.dataclass(frozen=True)
class Policy(Still):
    """One step, always the same observation, reward 1 for action 1 and 0 else. Right: return 1."""

    def step(self, key: Key, state: Seen, action: Array, params: NoParams) -> tuple[Seen, Step]:
        action = checks.step(self, action, params)
        return state, _last(_show(state), (action == 1).astype(jnp.float32))


@dataclasses.dataclass(frozen=True)
class PolicyFromObservation(Coin):
    """One step, observation +1 or -1, reward 1 for action 1 or 0 respectively. Right: return 1.

    A policy that is blind gets 0.5.
    """

    def step(self, key: Key, state: Seen, action: Array, params: NoParams) -> tuple[Seen, Step]:
        action = checks.step(self, action, params)
        right = (action == 1) == (state.shown > 0)
        return state, _last(_show(state), right.astype(jnp.float32))


@dataclasses.dataclass(frozen=True)
class ContinuousPolicy(Coin):
    """One step, observation +1 or -1, reward -(action - observation / 2)^2.

    Right: action o / 2, return 0; a policy that is blind gets -0.25. Action: float32 `[1]`.
    """

    def step(self, key: Key, state: Seen, action: Array, params: NoParams) -> tuple[Seen, Step]:
        action = checks.step(self, action, params)
        error = jnp.reshape(action, ()) - state.shown / 2
        return state, _last(_show(state), -(error**2))

    def action_space(self, params: NoParams) -> Box:
        return Box(-1.0, 1.0, (1,))


class TimeLimitParams(NamedTuple):
    max_steps: int = 10


class TimeLimitState(NamedTuple):
    time: Array  # int32, steps taken


@dataclasses.dataclass(frozen=True)
class TimeLimit(Drawn):
    """Reward 1 a step for ever, cut off every `max_steps`; always the same observation.

    Right: V = 1 / (1 - gamma), since a cut takes nothing from what would have followed. A
    learner that takes cuts for ends learns the mean of (1 - gamma^k) / (1 - gamma) over the
    k = 1 .. max_steps steps left.
    """

    version: ClassVar[int] = 1

    def default_params(self) -> TimeLimitParams:
        return TimeLimitParams()

    def reset(self, key: Key, params: TimeLimitParams) -> tuple[TimeLimitState, Array]:
        return TimeLimitState(jnp.int32(0)), jnp.zeros(1)

    def step(
        self, key: Key, state: TimeLimitState, action: Array, params: TimeLimitParams
    ) -> tuple[TimeLimitState, Step]:
        checks.step(self, action, params)
        state = TimeLimitState(state.time + 1)
        truncated = state.time >= params.max_steps
        terminated = jnp.zeros_like(truncated)
        return state, Step(jnp.zeros(1), jnp.float32(1.0), terminated, truncated)

    def observation_space(self, params: TimeLimitParams) -> Box:
        return Box(0.0, 0.0, (1,))

    def action_space(self, params: TimeLimitParams) -> Discrete:
        return Discrete(2)


class MemoryParams(NamedTuple):
    max_steps: int = 4  # the longest episode; the shortest has 2 steps


class MemoryState(NamedTuple):
    cue: Array  # int32, the right action: 0 where nothing was shown, else 1 or 2
    steps_left: Array  # int32
    cut: Array  # bool, whether the episode ends by truncation


@dataclasses.dataclass(frozen=True)
class Memory(Drawn):
    """The right last action was shown in the first observation only. Right: return 1.

    The first observation is (1, 0), (0, 1) or nothing, and asks for the last action to be 1,
    2 or 0; all later observations are nothing. The last step is not announced: an episode
    has 2 to `max_steps` steps, and ends by termination or truncation, half of the time each.
    So a policy without memory gets 1/3 at best. One whose memory outlives an episode
    mistakes an empty start for the middle of the last episode, and fails there.
    """

    version: ClassVar[int] = 1

    def default_params(self) -> MemoryParams:
        return MemoryParams()

    def reset(self, key: Key, params: MemoryParams) -> tuple[MemoryState, Array]:
        cue_key, steps_key, cut_key = jax.random.split(key, 3)
        cue = jax.random.randint(cue_key, (), 0, 3)
        steps = jax.random.randint(steps_key, (), 2, params.max_steps + 1)
        state = MemoryState(cue, steps, jax.random.bernoulli(cut_key))
        return state, jnp.stack([cue == 1, cue == 2]).astype(jnp.float32)

    def step(
        self, key: Key, state: MemoryState, action: Array, params: MemoryParams
    ) -> tuple[MemoryState, Step]:
        action = checks.step(self, action, params)
        last = state.steps_left <= 1
        reward = (last & (action == state.cue)).astype(jnp.float32)
        step = Step(jnp.zeros(2), reward, last & ~state.cut, last & state.cut)
        return state._replace(steps_left=state.steps_left - 1), step

    def observation_space(self, params: MemoryParams) -> Box:
        return Box(0.0, 1.0, (2,))

    def action_space(self, params: MemoryParams) -> Discrete:
        return Discrete(3)


def _show(state: Seen) -> Array:
    return jnp.reshape(state.shown, (1,))


def _last(observation: Array, reward: Array) -> Step:
    return Step(observation, reward, jnp.bool_(True), jnp.bool_(False))


for _probe in (
    Value,
    ValueFromObservation,
    Discount,
    Policy,
    PolicyFromObservation,
    ContinuousPolicy,
    TimeLimit,
    Memory,
):
    register(f"probe/{_probe.__name__}", _probe)
