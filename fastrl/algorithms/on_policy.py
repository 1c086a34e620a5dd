"""What on-policy actor-critic learners share: a rollout, its values and advantages."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fastrl import distributions, returns, sharding
from fastrl.anywhere import anywhere
from fastrl.metrics import Metrics
from fastrl.networks import ActorCritic
from fastrl.spaces import Space
from fastrl.types import Action, Array, Key, Observation, PyTree, Scalar, Transition
from fastrl.vec import BatchPolicy, VecEnv, VecState, rollout


class Sample(NamedTuple):
    """What is kept of a rollout. Leaves are `[T, N, ...]`, then `[B, ...]` in a minibatch."""

    observation: PyTree  # as kept, see `fastrl.storage`
    action: Action  # as sampled, before it is clipped for the environment
    log_prob: Any  # an array; () of learners that need none
    reward: Array
    terminated: Array
    truncated: Array
    final_value: Array  # of the true successor where truncated, else 0
    value: Any = ()  # this and the following are filled in after the rollout
    advantage: Any = ()
    target: Any = ()


def collect(
    vec_env: VecEnv,
    network: ActorCritic,
    see: Callable[[Observation], Observation],
    pack: Callable[[Observation], PyTree],
    action_space: Space,
    key: Key,
    params: PyTree,
    state: VecState,
    task: Any,
    num_steps: int,
) -> tuple[VecState, Sample, Metrics]:
    """A rollout `[T, N]` under `network.policy(params, see(observation))`. Consumes `key`.

    The samples hold `pack(observation)`.
    """

    def policy(key: Key, observation: Observation) -> tuple[Action, tuple[Action, Array]]:
        distribution = network.policy(params, see(observation))
        action = distribution.sample(key)
        extras = action, distribution.log_prob(action)
        return distributions.to_environment(action_space, action), extras

    def keep(t: Transition, extras: tuple[Action, Array], final: PyTree) -> Sample:
        return Sample(pack(t.observation), *extras, t.reward, t.terminated, t.truncated, final)

    def value(following: Observation) -> Array:
        return network.value(params, see(following))

    return rollout_with_final(vec_env, policy, value, key, state, task, num_steps, keep)


def rollout_with_final(
    vec_env: VecEnv,
    policy: BatchPolicy,
    value: Callable[[Observation], Array],
    key: Key,
    state: VecState,
    task: Any,
    num_steps: int,
    keep: Callable[[Transition, PyTree, PyTree], Any],
) -> tuple[VecState, Any, Metrics]:
    """A `rollout` whose samples, `keep(transition, extras, final)`, have a field `final_value`.

    That is `value(next_observation)` where the step was truncated, else 0.  Consumes `key`.
    """
    each_step = _branches_are_cheap()

    def kept(t: Transition, extras: PyTree) -> Any:
        if not each_step:
            return keep(t, extras, t.next_observation)
        return keep(t, extras, final_value(value, t.truncated, t.next_observation))

    state, samples, metrics = rollout(vec_env, policy, key, state, task, num_steps, kept)
    if not each_step:
        final = final_value(value, samples.truncated, samples.final_value)
        samples = samples._replace(final_value=final)
    return state, sharding.collect(samples), metrics


def final_value(
    value: Callable[[Observation], Array], truncated: Array, following: Observation
) -> Array:
    """The value of what follows where `truncated` `[...]`, else 0.

    It is needed where an episode was cut off, and nearly always there is none.
    """
    return jax.lax.cond(
        anywhere(truncated),
        lambda x: jnp.where(truncated, value(x), 0.0),
        lambda x: jnp.zeros(truncated.shape),
        following,
    )


def _branches_are_cheap() -> bool:
    """Whether a program may branch at every step: a GPU waits for the host at each branch.

    So there true successors are kept, and one branch is taken after the rollout.
    """
    return jax.default_backend() == "cpu"


def add_advantages(
    samples: Sample,
    value: Callable[[PyTree], Array],
    last_value: Array,
    gamma: Scalar,
    gae_lambda: Scalar,
    pieces: int,
) -> Sample:
    """Fills in values, GAE advantages and value targets.

    `value` takes observations as the samples hold them; `last_value` `[N]` is that of the
    observation after the rollout.  Values are computed apart from the rollout, in large
    batches: in up to `pieces`, so that they need no more memory than as many minibatches do.
    """
    values = _in_pieces(value, samples.observation, math.gcd(pieces, samples.reward.shape[0]))
    following = jnp.concatenate([values[1:], last_value[None]])
    next_values = jnp.where(samples.truncated, samples.final_value, following)
    advantage = returns.gae(
        samples.reward, values, next_values, samples.terminated, samples.truncated,
        gamma, gae_lambda,
    )  # fmt: skip
    return samples._replace(value=values, advantage=advantage, target=advantage + values)


def _in_pieces(f: Callable[[PyTree], Array], x: PyTree, pieces: int) -> Array:
    """`f` on `x` `[T, ...]`, `T / pieces` at a time."""
    y = jax.lax.map(f, jax.tree.map(lambda a: a.reshape(pieces, -1, *a.shape[1:]), x))
    return y.reshape(-1, *y.shape[2:])
