"""`fused_rollout` and `reference_rollout`: one rollout, as a GPU kernel and as an XLA scan."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fastrl.kernels import prng
from fastrl.kernels.fused_rollout.block import Carry, Kept, Record
from fastrl.kernels.fused_rollout.kernel import Inputs, Launch, call, transposed_heads
from fastrl.kernels.fused_rollout.network import NetworkSpec, Weights, from_flax
from fastrl.kernels.fused_rollout.program import Preprocess, Program, build
from fastrl.kernels.fused_rollout.reference import Step, scan


class Samples(NamedTuple):
    """What a rollout stores. Leaves are `[T, N, ...]`; () for what is not kept."""

    observation: Any
    action: Any  # as sampled, before it is clipped for the environment
    log_prob: Any
    value: Any  # of `observation`
    reward: Any
    terminated: Any
    truncated: Any
    final_value: Any  # of the true successor where truncated, else 0
    next_observation: Any  # the true successor


Sums = dict[str, tuple[jax.Array, jax.Array]]  # name -> total and weight: `metrics.Mean`'s fields
# (params, key, state, task, num_steps, statistics=()) -> (state, samples, sums)
Rollout = Callable[..., tuple[Any, Samples, Sums]]


def fused_rollout(
    env: Any,
    network: NetworkSpec,
    *,
    kept: Kept | None = None,
    preprocess: Preprocess | None = None,
    launch: Launch | None = None,
) -> Rollout:
    """A rollout of `env` under a policy, in one kernel.

    `network` says the shape of the actor-critic (`fastrl.networks.NetworkConfig`); the policy
    sees `preprocess(statistics, observation)`.  The result is

        rollout(params, key, state, task, num_steps, statistics=()) -> (state, samples, sums)

    with `params` of `fastrl.networks.actor_critic` of that shape, a `key` (consumed) and a
    `state` like `fastrl.vec.VecState`: a NamedTuple with the fields `env` and `observation`, leaves
    `[N, ...]`, `episode_return` float32 `[N]` and `episode_length` int32 `[N]`.  Episodes that
    end start again from `env.reset`.  The numbers are those of `fastrl.vec.rollout` with
    `fastrl.reset.fresh`, but for rounding.

    Raises `FusionError` when traced, if `supports` has a reason; ValueError for a state or a
    network that does not fit, TypeError for a key that is not of `hash32`.
    """
    kept, launch = kept or Kept(), launch or Launch()
    if launch.block is not None and (launch.block < 16 or launch.block & (launch.block - 1)):
        raise ValueError(f"block={launch.block}: needs a power of two of at least 16")

    def rollout(
        params: Any, key: Any, state: Any, task: Any, num_steps: int, statistics: Any = ()
    ) -> tuple[Any, Samples, Sums]:
        weights = _checked(params, state, kept)
        program = build(env, network, task, preprocess, statistics)
        inputs = Inputs(
            jnp.concatenate([jax.random.key_data(k) for k in _keys(key, num_steps)], axis=-1),
            program.task.flat(task),
            program.statistics.flat(statistics),
            transposed_heads(weights),
            program.state.pack(state.env),
            program.observation.pack(state.observation),
            jnp.asarray(state.episode_return, jnp.float32),
            jnp.asarray(state.episode_length, jnp.int32),
        )
        carry, record = call(program, kept, launch, num_steps, inputs)
        following = _following(program, state, carry)
        return following, _samples(program, record), _sums(program, carry, record)

    return rollout


def reference_rollout(
    env: Any,
    network: NetworkSpec,
    *,
    kept: Kept | None = None,
    preprocess: Preprocess | None = None,
) -> Rollout:
    """What `fused_rollout` computes, as an XLA scan of ordinary JAX: the oracle and the fallback.

    Takes any `env` with the spaces of the kernel.  Raises as `fused_rollout` does.
    """
    kept = kept or Kept()

    def rollout(
        params: Any, key: Any, state: Any, task: Any, num_steps: int, statistics: Any = ()
    ) -> tuple[Any, Samples, Sums]:
        weights, keys = _checked(params, state, kept), _keys(key, num_steps)

        def see(observation: Any) -> Any:
            return observation if preprocess is None else preprocess(statistics, observation)

        step = Step(env, network, weights, see, task, kept)
        start = state.env, state.observation, state.episode_return, state.episode_length
        end, (samples, ended, metrics) = scan(step, keys, start)
        names = ("env", "observation", "episode_return", "episode_length")
        episodes = ended.episodes.sum()
        sums = {
            "episode_return": (ended.returns.sum(), episodes),
            "episode_length": (ended.lengths.sum(), episodes),
            **{name: (x.sum(), jnp.float32(x.size)) for name, x in metrics.items()},
        }
        return state._replace(**dict(zip(names, end, strict=True))), Samples(*samples), sums

    return rollout


def _keys(key: Any, num_steps: int) -> tuple[Any, Any, Any]:
    """Keys `[T]` of the policy, of `step` and of `reset`, as `fastrl.vec.rollout` splits them."""
    if jax.random.key_impl(key) != prng.HASH32:
        raise TypeError(f"the fused rollout takes a hash32 key (fastrl.key), not {key.dtype}")
    policy, both = _halves(jax.random.split(key, num_steps))
    return policy, *_halves(both)


def _halves(keys: Any) -> tuple[Any, Any]:
    pairs = jax.vmap(jax.random.split)(keys)
    return pairs[:, 0], pairs[:, 1]


def _checked(params: Any, state: Any, kept: Kept) -> Weights:
    weights = from_flax(params)
    if jax.tree.leaves((getattr(state, "memory", ()), getattr(state, "params", ()))):
        raise ValueError(
            "the state is of a Reset with memory or params: only reset.fresh is in the kernel"
        )
    if weights.critic_head is None and (kept.value or kept.final_value):
        raise ValueError("the network has no critic: use Kept(value=False, final_value=False)")
    return weights


def _following(program: Program, state: Any, carry: Carry) -> Any:
    return state._replace(
        env=program.state.unpack(carry.state),
        observation=program.observation.unpack(carry.observation),
        episode_return=carry.episode_return,
        episode_length=carry.episode_length,
    )


def _samples(program: Program, record: Record) -> Samples:
    ends, following = record.ends, record.next_observation
    return Samples(
        program.observation.unpack(record.observation),
        program.action.unpack(record.action),
        record.log_prob,
        record.value,
        record.reward,
        (ends & 1) != 0,
        (ends & 2) != 0,
        record.final_value,
        program.observation.unpack(following) if following else (),
    )


def _sums(program: Program, carry: Carry, record: Record) -> Sums:
    episodes, steps = carry.episodes.sum(), jnp.float32(record.reward.size)
    reported = program.metrics.treedef.unflatten(list(carry.metrics))
    return {
        "episode_return": (carry.return_sum.sum(), episodes),
        "episode_length": (carry.length_sum.sum(), episodes),
        **{name: (total.sum(), steps) for name, total in reported.items()},
    }
