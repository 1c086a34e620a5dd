"""Bandits: a new task every episode, or always the same one, by numbers in the params.

Bernoulli arms as in Duan et al. 2016 (RL^2, section 3.1) and Wang et al. 2016 ("Learning to
reinforcement learn"); Gaussian arms as the testbed of Sutton and Barto 2018, section 2.3;
linear contextual ones as in Li et al. 2010 (LinUCB).  What an episode's task is drawn from has
a width in the params: where it is 0, every episode has the task that the params say.
"""

import dataclasses
import functools
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastrl.door import integer
from fastrl.envs import checks, compiling, drawing
from fastrl.envs.bsuite import _draws
from fastrl.spaces import Box, Discrete
from fastrl.types import Array, Key, Step


class BernoulliParams(NamedTuple):
    """The probabilities of an episode are uniform in [low, high], arm by arm."""

    low: Any  # float32 [arms]
    high: Any  # float32 [arms]
    pulls: int = 100  # of an episode


class GaussianParams(NamedTuple):
    """The means of an episode are normal about `mean` with deviation `spread`, arm by arm."""

    mean: Any  # float32 [arms]
    spread: Any  # float32 [arms]
    noise: Any  # float32 [arms], standard deviation of a pull
    pulls: int = 100


class LinearParams(NamedTuple):
    """The weights of an episode are normal about `mean` with deviation `spread`."""

    mean: Any  # float32 [arms, features]
    spread: Any  # float32 [arms, features]
    noise: float = 0.1  # standard deviation of a pull
    pulls: int = 100


class State(NamedTuple):
    """Scalars, one an arm: choosing among those is faster than to index an array."""

    means: tuple[Array, ...]  # float32, what each arm pays on average
    time: Array  # int32, pulls so far


class LinearState(NamedTuple):
    weights: tuple[tuple[Array, ...], ...]  # float32, `arms` times `features`
    context: tuple[Array, ...]  # float32, `features`, of the next pull
    time: Array  # int32, pulls so far


@dataclasses.dataclass(frozen=True)
class BernoulliBandit:
    """Observation: the last reward, the last action one-hot (0 at first), pulls / `pulls`.

    Action: an arm, which pays 1 with its own probability and else 0.  Terminates after `pulls`
    pulls.  The metric `regret` is what the best arm pays more on average.
    """

    arms: int = 2

    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        integer("arms", self.arms, 1)

    def default_params(self) -> BernoulliParams:
        return BernoulliParams(_full(0.0, self.arms), _full(1.0, self.arms))

    def reset(self, key: Key, params: BernoulliParams) -> tuple[State, Array]:
        shares = _draws.uniform(jax.random.bits(key, (self.arms,)))
        low, high = (_draws.sized(n, getattr(params, n), (self.arms,)) for n in ("low", "high"))
        means = low + shares * (high - low)
        return State(tuple(means), jnp.int32(0)), _first(self.arms)

    def step(
        self, key: Key, state: State, action: Array, params: BernoulliParams
    ) -> tuple[State, Step]:
        action = checks.step(self, action, params)
        return self.pull(state, action, _draws.uniform(jax.random.bits(key)), params)

    def pull(
        self, state: State, action: Array, share: Array, params: BernoulliParams
    ) -> tuple[State, Step]:
        """A step whose chance event is given: it pays where `share`, in [0, 1), is below."""
        mean = _choose(action, state.means)
        return _pulled(state, action, mean, (share < mean).astype(jnp.float32), params.pulls)

    def observation_space(self, params: BernoulliParams) -> Box:
        return Box(0.0, 1.0, (self.arms + 2,))

    def action_space(self, params: BernoulliParams) -> Discrete:
        return Discrete(self.arms)

    def render(self, state: State, params: BernoulliParams) -> np.ndarray:
        """The mean of each arm: uint8 `[300, 400, 3]`."""
        return drawing.bars(state.means)


@dataclasses.dataclass(frozen=True)
class GaussianBandit:
    """Observation: the last reward, the last action one-hot (0 at first), pulls / `pulls`.

    Action: an arm, which pays its mean and normal noise.  Terminates after `pulls` pulls.
    The metric `regret` is what the best arm pays more on average.
    """

    arms: int = 2

    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        integer("arms", self.arms, 1)

    def default_params(self) -> GaussianParams:
        ones = _full(1.0, self.arms)
        return GaussianParams(_full(0.0, self.arms), ones, ones)

    def reset(self, key: Key, params: GaussianParams) -> tuple[State, Array]:
        drawn = _draws.normal(jax.random.bits(key, (self.arms,)))
        names = "mean", "spread"
        mean, spread = (_draws.sized(n, getattr(params, n), (self.arms,)) for n in names)
        means = mean + spread * drawn
        return State(tuple(means), jnp.int32(0)), _first(self.arms)

    def step(
        self, key: Key, state: State, action: Array, params: GaussianParams
    ) -> tuple[State, Step]:
        action = checks.step(self, action, params)
        return self.pull(state, action, _draws.normal(jax.random.bits(key)), params)

    def pull(
        self, state: State, action: Array, noise: Array, params: GaussianParams
    ) -> tuple[State, Step]:
        """A step whose chance event is given: a standard normal number."""
        mean = _choose(action, state.means)
        reward = mean + noise * _choose(
            action, tuple(_draws.sized("noise", params.noise, (self.arms,)))
        )
        return _pulled(state, action, mean, reward, params.pulls)

    def observation_space(self, params: GaussianParams) -> Box:
        ones, inf = [1.0] * (self.arms + 1), np.inf
        return Box((-inf, *[0.0] * (self.arms + 1)), (inf, *ones), (self.arms + 2,))

    def action_space(self, params: GaussianParams) -> Discrete:
        return Discrete(self.arms)

    def render(self, state: State, params: GaussianParams) -> np.ndarray:
        """The mean of each arm: uint8 `[300, 400, 3]`."""
        return drawing.bars(state.means)


@dataclasses.dataclass(frozen=True)
class LinearContextualBandit:
    """Observation: the context, the last reward, the last action one-hot, pulls / `pulls`.

    Action: an arm, which pays the product of its weights with the context and normal noise.
    The entries of a context are uniform in [-1, 1], new for every pull.  Terminates after
    `pulls` pulls.  The metric `regret` is what the best arm for the context pays more.
    """

    arms: int = 5
    features: int = 4

    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        integer("arms", self.arms, 1)
        integer("features", self.features, 1)

    def default_params(self) -> LinearParams:
        shape = self.arms, self.features
        return LinearParams(_full(0.0, *shape), _full(1.0, *shape))

    def reset(self, key: Key, params: LinearParams) -> tuple[LinearState, Array]:
        words = jax.random.bits(key, (1 + self.arms, self.features))
        names, shape = ("mean", "spread"), (self.arms, self.features)
        mean, spread = (_draws.sized(n, getattr(params, n), shape) for n in names)
        weights = mean + spread * _draws.normal(words[1:])
        context = _context(words[0])
        state = LinearState(tuple(tuple(w) for w in weights), context, jnp.int32(0))
        return state, _with_context(context, _first(self.arms))

    def step(
        self, key: Key, state: LinearState, action: Array, params: LinearParams
    ) -> tuple[LinearState, Step]:
        action = checks.step(self, action, params)
        words = jax.random.bits(key, (1 + self.features,))
        return self.pull(state, action, _draws.normal(words[0]), _context(words[1:]), params)

    def pull(
        self,
        state: LinearState,
        action: Array,
        noise: Array,
        context: tuple[Array, ...],
        params: LinearParams,
    ) -> tuple[LinearState, Step]:
        """A step whose chance events are given: a standard normal number, the next context."""
        means = tuple(
            sum((w * x for w, x in zip(weights, state.context, strict=True)), jnp.float32(0.0))
            for weights in state.weights
        )
        mean = _choose(action, means)
        now = State(means, state.time)
        after, step = _pulled(now, action, mean, mean + noise * params.noise, params.pulls)
        seen = _with_context(context, step.observation)
        return LinearState(state.weights, context, after.time), step._replace(observation=seen)

    def observation_space(self, params: LinearParams) -> Box:
        low, ones = [-1.0] * self.features, [1.0] * self.features
        low += [-np.inf, *[0.0] * (self.arms + 1)]
        return Box(tuple(low), (*ones, np.inf, *[1.0] * (self.arms + 1)), (len(low),))

    def action_space(self, params: LinearParams) -> Discrete:
        return Discrete(self.arms)

    def render(self, state: LinearState, params: LinearParams) -> np.ndarray:
        """What each arm pays on average in the context: uint8 `[300, 400, 3]`."""
        return drawing.bars(np.asarray(state.weights) @ np.asarray(state.context))


def _full(number: float, *shape: int) -> np.ndarray:
    return np.full(shape, number, np.float32)


def _context(words: Array) -> tuple[Array, ...]:
    return tuple(2 * _draws.uniform(words) - 1)


def _with_context(context: tuple[Array, ...], observation: Array) -> Array:
    seen = jnp.pad(observation, (len(context), 0))
    for i, x in enumerate(context):
        seen = compiling.put(seen, x, i)
    return seen


def _choose(action: Array, values: tuple[Array, ...]) -> Array:
    """The value of the arm `action`."""
    chosen = values[0]
    for i, value in enumerate(values[1:], start=1):
        chosen = jnp.where(action == i, value, chosen)
    return chosen


def _first(arms: int) -> Array:
    return jnp.zeros(arms + 2, jnp.float32)


def _pulled(
    state: State, action: Array, mean: Array, reward: Array, pulls: Any
) -> tuple[State, Step]:
    """The step of a pull of the arm `action`, which pays `mean` on average."""
    arms, time, reward = len(state.means), state.time + 1, reward.astype(jnp.float32)
    places = jax.lax.iota(jnp.float32, arms + 2)
    observation = (places == compiling.once(action + 1)).astype(jnp.float32)
    share = time.astype(jnp.float32) / pulls
    observation = compiling.put(compiling.put(observation, reward, 0), share, arms + 1)
    over = time >= pulls
    regret = functools.reduce(jnp.maximum, state.means) - mean
    step = Step(observation, reward, over, jnp.zeros_like(over), {"regret": regret})
    return State(state.means, time), step
