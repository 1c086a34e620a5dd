"""What SQIRL fits: values of depths 1 .. k, by a network with a head for each or by a table."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from fastrl import metrics as fm
from fastrl import optim, sharding, spaces
from fastrl.kernels.permutation import permutation
from fastrl.metrics import Metrics
from fastrl.networks import NetworkConfig, Torso, encoder
from fastrl.spaces import Discrete, MultiDiscrete, Space
from fastrl.types import Array, Key, Observation, PyTree, Scalar

_UNSEEN = -1e9  # the value of an action that a table knows nothing of

# (params, optimizer state, batch, key, hparams) -> (params, optimizer state, metrics)
Fit = Callable[[PyTree, Any, Any, Key, Any], tuple[PyTree, Any, Metrics]]


class Regression(NamedTuple):
    """Values of all depths; leading axes are the batch."""

    init: Callable[[Key], PyTree]
    values: Callable[[PyTree, Observation], Array]  # -> Q^1 .. Q^k, [..., k, A]
    fit: Fit


class Batch(NamedTuple):
    """What is fitted, `[B, ...]`; only steps of weight 1 count."""

    observation: Observation
    action: Array
    reward: Array
    terminated: Array
    next_observation: Observation
    return_: Array
    weight: Array


class _Heads(nn.Module):
    """Values of `k` depths for each of `A` actions, `[..., k, A]`."""

    config: NetworkConfig
    k: int
    num_actions: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        out = nn.Dense(self.k * self.num_actions)(Torso(self.config)(x))
        return out.reshape(*out.shape[:-1], self.k, self.num_actions)


def network(config: Any, space: Space, num_actions: int) -> Regression:
    """A torso and a head for every depth; `config` is that of `sqirl`."""
    encode, heads = encoder(space), _Heads(config.network, config.k, num_actions)
    apply: Callable[..., Any] = heads.apply

    def values_of(params: PyTree, observation: Observation) -> Array:
        return apply(params, encode(observation))

    return Regression(
        lambda key: heads.init(key, encode(spaces.zeros(space))), values_of,
        functools.partial(_fit_network, config, values_of),
    )  # fmt: skip


def table(config: Any, space: Space, num_actions: int) -> Regression:
    """A value for every observation; such as nothing is known of are `_UNSEEN`."""
    index, size = _numbered(space)
    shape = size, config.k, num_actions

    def values_of(table: Array, observation: Observation) -> Array:
        return table[index(observation)]

    return Regression(
        lambda key: jnp.full(shape, _UNSEEN), values_of,
        functools.partial(_fit_table, config, index, values_of),
    )  # fmt: skip


def _numbered(space: Space) -> tuple[Callable[[Observation], Array], int]:
    """The number of an observation among all of `space`, and how many there are."""
    match space:
        case Discrete(n):
            return lambda x: x, n
        case MultiDiscrete(nvec):
            strides = np.cumprod((1, *nvec[:0:-1]))[::-1].astype(np.int32)
            return lambda x: jnp.tensordot(x, jnp.asarray(strides), 1), int(np.prod(nvec))
    raise ValueError(
        f"regression='table' needs Discrete or MultiDiscrete observations, not {space}: "
        "use regression='network'"
    )


def known(values: Array) -> Array:
    """`values`, with 0 where nothing is known."""
    return jnp.where(values > 0.5 * _UNSEEN, values, 0.0)


def targets(values_of: Any, params: PyTree, batch: Batch, gamma: Scalar) -> Array:
    """What Q^1 .. Q^k are fitted to, `[B, k]`."""
    after = known(values_of(params, batch.next_observation)[..., :-1, :].max(-1))  # [B, k - 1]
    after = jnp.where(batch.terminated[:, None], 0.0, after)
    deeper = batch.reward[:, None] + gamma * after
    return jax.lax.stop_gradient(jnp.concatenate([batch.return_[:, None], deeper], axis=1))


def _fit_network(
    config: Any, values_of: Any, params: PyTree, optimizer_state: Any, batch: Batch, key: Key,
    hparams: Any,
) -> tuple[PyTree, Any, Metrics]:  # fmt: skip
    """`num_epochs` passes of Adam; all depths at once, the targets of one from the one below."""
    optimizer = optim.adam(hparams.learning_rate, hparams.max_grad_norm)
    size = config.num_episodes * config.horizon
    shuffle = functools.partial(permutation, a=config.horizon, b=config.num_episodes)
    order = jax.vmap(shuffle)(jax.random.split(key, config.num_epochs))

    def loss(params: PyTree, batch: Batch) -> tuple[Array, Metrics]:
        values = values_of(params, batch.observation)  # [B, k, A]
        chosen = jnp.take_along_axis(values, batch.action[:, None, None], -1)[..., 0]
        error = (chosen - targets(values_of, params, batch, hparams.gamma)) ** 2
        count = jnp.maximum(batch.weight.sum(), 1.0)
        reported = {"loss": fm.mean(error.mean(1), batch.weight > 0)}
        return (error.mean(1) * batch.weight).sum() / count, reported

    def minibatch(carry: Any, index: Array) -> Any:
        params, optimizer_state = carry
        part = sharding.shard_batch(jax.tree.map(lambda x: x[index], batch))
        gradient, reported = jax.grad(loss, has_aux=True)(params, part)
        updates, optimizer_state = optimizer.update(gradient, optimizer_state, params)
        return (optax.apply_updates(params, updates), optimizer_state), reported

    indices = order.reshape(config.num_epochs * size // config.batch_size, -1)
    start = params, optimizer_state
    (params, optimizer_state), reported = jax.lax.scan(minibatch, start, indices)
    return params, optimizer_state, fm.fold(jax.lax.stop_gradient(reported))


def _fit_table(
    config: Any, rows: Any, values_of: Any, table: Array, optimizer_state: Any, batch: Batch,
    key: Key, hparams: Any,
) -> tuple[PyTree, Any, Metrics]:  # fmt: skip
    """The means of all targets, depth by depth; the table keeps what this batch did not meet."""
    del key
    at = rows(batch.observation), batch.action
    counts = jnp.zeros(table.shape[::2]).at[at].add(batch.weight)  # [observations, A]

    def depth(i: int, table: Array) -> Array:
        target = jax.lax.dynamic_index_in_dim(
            targets(values_of, table, batch, hparams.gamma), i, 1, keepdims=False
        )
        sums = jnp.zeros(counts.shape).at[at].add(batch.weight * target)
        fitted = jnp.where(counts > 0, sums / jnp.maximum(counts, 1.0), table[:, i])
        return table.at[:, i].set(fitted)

    table = jax.lax.fori_loop(0, config.k, depth, table)
    chosen = table[at[0], :, at[1]]
    error = ((chosen - targets(values_of, table, batch, hparams.gamma)) ** 2).mean(1)
    return table, optimizer_state, {"loss": fm.mean(error, batch.weight > 0)}
