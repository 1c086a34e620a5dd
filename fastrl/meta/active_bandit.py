"""Finding the best arm within a budget of pulls: the environment, and classes of its instances.

An instance is the arms' means mu, pulled with normal noise of deviation 1.  After the budget is
spent, the arm of the highest average is recommended, and the loss is 1 if it is not the best one,
or its gap (simple regret).  How hard an instance is says

    H(mu) = sum over arms i that are not the best of 1 / Delta_i^2,   Delta_i = max mu - mu_i

(Audibert, Bubeck and Munos 2010, COLT): about as many pulls as it takes.  Instances of equal H are
one class; `of_class` gives all of a class from numbers without bounds, so that an adversary can
search it by gradients.
"""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastrl import door
from fastrl.spaces import Box, Discrete
from fastrl.types import Array, Key, Scalar, Step

_LEAST = 1e-3  # the share of an arm in the complexity


class Instance(NamedTuple):
    """The numbers of a task."""

    means: Array  # [A]


class Statistics(NamedTuple):
    """What was seen: enough to know the past by, up to the order of pulls. Also the observation."""

    counts: Array  # [A]: pulls
    sums: Array  # [A]: of what they paid
    left: Array  # []: share of the budget that is left

    def averages(self) -> Array:
        """`[A]`; 0 for an arm without pulls."""
        return self.sums / jnp.maximum(self.counts, 1.0)

    def recommended(self) -> Array:
        """The arm of the highest average; int32 `[]`. Arms without pulls come last."""
        return jnp.argmax(jnp.where(self.counts > 0, self.averages(), -jnp.inf)).astype(jnp.int32)


@dataclasses.dataclass(frozen=True)
class BestArm:
    """An action pulls an arm. Terminates after `budget` pulls, with minus the loss as reward.

    The metric `correct` says whether the arm that is recommended is the best.
    """

    arms: int = 5
    budget: int = 20
    regret: bool = False  # the loss is the gap of the recommended arm, not 1 for a wrong one

    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        door.integer("arms", self.arms, 2)
        door.integer("budget", self.budget, self.arms)
        door.flag("regret", self.regret)

    def default_params(self) -> Instance:
        """One arm is better by 1 than all others."""
        return Instance(np.eye(self.arms, dtype=np.float32)[0])

    def reset(self, key: Key, params: Instance) -> tuple[Statistics, Statistics]:
        zeros = jnp.zeros(self.arms)
        start = Statistics(zeros, zeros, jnp.float32(1.0))
        return start, start

    def step(
        self, key: Key, state: Statistics, action: Array, params: Instance
    ) -> tuple[Statistics, Step]:
        state = self.pull(state, action, jax.random.normal(key), params)
        loss, correct = self.loss(state, params)
        end = state.counts.sum() >= self.budget
        step = Step(state, jnp.where(end, -loss, 0.0), end, jnp.bool_(False), {"correct": correct})
        return state, step

    def pull(self, state: Statistics, action: Array, noise: Array, params: Instance) -> Statistics:
        """After a pull whose chance event is given."""
        at = jax.nn.one_hot(action, self.arms)
        paid = jnp.sum(at * jnp.asarray(params.means)) + noise
        left = state.left - 1.0 / self.budget
        return Statistics(state.counts + at, state.sums + at * paid, left)

    def loss(self, state: Statistics, params: Instance) -> tuple[Array, Array]:
        """Of the arm that would be recommended, and whether it is the best; float32 `[]`."""
        means = jnp.asarray(params.means)
        gap = means.max() - means[state.recommended()]
        correct = (gap <= 0).astype(jnp.float32)
        return gap if self.regret else 1.0 - correct, correct

    def observation_space(self, params: Any) -> Any:
        each = lambda low, high: Box(low, high, (self.arms,))  # noqa: E731
        record: Any = Statistics
        return record(each(0.0, float(self.budget)), each(-np.inf, np.inf), Box(0.0, 1.0))

    def action_space(self, params: Any) -> Discrete:
        return Discrete(self.arms)


def complexity(means: Array) -> Array:
    """H `[]` of `means` `[A]`: infinite where two arms are best."""
    gaps = jnp.sort(means.max() - means)[1:]
    return jnp.sum(1.0 / gaps**2)


def of_class(numbers: Array, h: Scalar) -> Instance:
    """The instance of complexity `h` that `numbers` `[A - 1]` stand for; arm 0 is the best, at 0.

    Their softmax says which share of the complexity an arm has; every share is at least 1/1000.
    """
    size = numbers.shape[-1]
    share = _LEAST + (1.0 - _LEAST * size) * jax.nn.softmax(numbers)
    return Instance(jnp.concatenate([jnp.zeros(1), -jax.lax.rsqrt(h * share)]))


def samples(key: Key, env: BestArm, h: Scalar, num: int) -> Instance:
    """Instances `[num, A]` of complexity `h`, from all arms alike to one rival. Consumes `key`."""
    rank = jnp.linspace(0.0, 4.0, num).reshape(num, 1)
    numbers = rank * jax.random.normal(key, (num, env.arms - 1))
    return jax.vmap(lambda x: of_class(x, h))(numbers)
