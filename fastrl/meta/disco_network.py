"""DiscoRL's meta-network: a recurrence backwards over a rollout, and one over the updates.

What it sees of step t, 27 numbers, with f(x) = sign(x) log(1 + |x|), e_y and e_z embeddings of
predictions (softmax, K -> 16 -> 1), max and mean over actions, the mean by the policy:

    pi(a), mu(a), f(r), 1 - d, f(V(s)), f(V(s')), f(A), normalised A, target pi(a),
    e_y(y(s)), e_y(y(s')), the same of the target network,
    e_z(z(s, a)), mean e_z(z(s, .)), mean e_z(z(s', .)), max e_z(z(s, .)), max e_z(z(s', .)),
    the same five of the target network,
    mean over actions of c(s, .), c(s, a)

with c(s, b) two numbers of a network of layers on each action and the mean over all actions, which
sees of action b: the three policies, both e_z, f(q), f(q - v), normalised q - v, 1[b = a].  Then

    x_t = LSTM(input_t, x_{t+1}) * (W m + b)         x_{t+1} = 0 where an episode ends
    y^, z^ = linear in x_t;  pi^(b) = linear in relu(layer of [x_t, c(s, b)])
    m'  = LSTM(mean over t of a layer on [inputs, linear in x_t, e_y(y^)], m)

where the second recurrence has a reader of its own, with other weights, and m stays for all of
an update.
"""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fastrl.meta.disco_values import select
from fastrl.meta.lpg import Dense
from fastrl.types import Array, Key

CHANNELS = (16, 2)  # of the network c
_FIXED = 25  # numbers of an input beside those of c


class Reader(NamedTuple):
    """How inputs are made."""

    y: tuple[Dense, Dense]
    z: tuple[Dense, Dense]
    actions: tuple[Dense, ...]


class Parameters(NamedTuple):
    """Weights of the rule: what is learned."""

    reader: Reader
    trajectory: Dense  # LSTM over the rollout, gates i, g, f, o
    gate: Dense  # of its output by the state of the other
    summary: Dense
    y: Dense
    z: Dense
    policy_layer: Dense
    policy: Dense
    lifetime_reader: Reader
    lifetime_layer: Dense
    lifetime: Dense  # LSTM over updates


class Recurrent(NamedTuple):
    """The state of an LSTM, `[..., H]`."""

    hidden: Array
    cell: Array

    @classmethod
    def zero(cls, *shape: int) -> "Recurrent":
        return cls(jnp.zeros(shape), jnp.zeros(shape))


class Pair(NamedTuple):
    """Predictions in a state and its true successor, as probabilities."""

    y: Array  # [T, N, K]
    next_y: Array
    z: Array  # [T, N, A, K]
    next_z: Array


class Seen(NamedTuple):
    """What the network looks at."""

    action: Array  # int32 [T, N]
    ends: Array  # bool [T, N]: nothing follows in the recurrence
    policy: Array  # [T, N, A], as are those below
    next_policy: Array
    behaviour: Array
    target_policy: Array
    numbers: tuple[Array, ...]  # [T, N]: from f(r) to the normalised A
    per_action: tuple[Array, ...]  # [T, N, A]: f(q), f(q - v), normalised q - v
    online: Pair
    target: Pair


class Outputs(NamedTuple):
    """Logits of what the agent's outputs should have been."""

    policy: Array  # [T, N, A]
    y: Array  # [T, N, K]
    z: Array  # [T, N, K]


def init(key: Key, predictions: int, hidden: int, lifetime: int, embedding: int) -> Parameters:
    """Random weights as the released code draws them. Consumes `key`."""
    keys = iter(jax.random.split(key, 24))
    width = _FIXED + CHANNELS[-1]

    def dense(rows: int, columns: int, scale: float | None = None) -> Dense:
        deviation = rows**-0.5 if scale is None else scale
        weights = deviation * jax.random.truncated_normal(next(keys), -2, 2, (rows, columns))
        return Dense(weights, jnp.zeros(columns))

    def reader() -> Reader:
        embed = lambda: (dense(predictions, embedding), dense(embedding, 1))  # noqa: E731
        sizes = (9, *CHANNELS)
        layers = [dense(2 * a, b) for a, b in itertools.pairwise(sizes)]
        return Reader(embed(), embed(), tuple(layers))

    return Parameters(
        reader(), dense(width + hidden, 4 * hidden), dense(lifetime, hidden, 1.0),
        dense(hidden, 1, 0.3), dense(hidden, predictions, 0.3), dense(hidden, predictions, 0.3),
        dense(2 * (hidden + CHANNELS[-1]), CHANNELS[0]), dense(CHANNELS[0], 1, 0.3),
        reader(), dense(width + 2, CHANNELS[0]), dense(CHANNELS[0] + lifetime, 4 * lifetime),
    )  # fmt: skip


def apply(p: Parameters, memory: Recurrent, seen: Seen) -> tuple[Outputs, Recurrent]:
    """What the outputs should have been, and the state of the recurrence over updates."""
    inputs, actions = read(p.reader, seen)
    x = backwards(p.trajectory, inputs, seen.ends)
    x = x * p.gate(memory.hidden).reshape((1, 1, -1))
    each = x[:, :, None]  # the same for all actions, so its mean over them is itself
    mean = actions.mean(2, keepdims=True)
    layer = jax.nn.relu(_joined(p.policy_layer, each, actions, each, mean))
    outputs = Outputs(p.policy(layer)[..., 0], p.y(x), p.z(x))
    reader = p.lifetime_reader
    inputs, _ = read(reader, seen)
    told = _embed(reader.y, jax.nn.softmax(outputs.y))
    summary = _joined(p.lifetime_layer, *inputs, p.summary(x), told).mean((0, 1))
    gates = _joined(p.lifetime, summary, memory.hidden)
    return outputs, _gated(gates, memory)


def read(reader: Reader, seen: Seen) -> tuple[tuple[Array, ...], Array]:
    """Inputs in parts that make up `[T, N, 27]`, and c(s, .) `[T, N, A, 2]`."""
    action = seen.action
    online, target = (_Embedded(reader, pair) for pair in (seen.online, seen.target))
    one_hot = jax.nn.one_hot(action, seen.policy.shape[-1], dtype=seen.policy.dtype)
    policies = seen.policy, seen.behaviour, seen.target_policy
    c = jnp.stack([*policies, online.z, target.z, *seen.per_action, one_hot], -1)
    for layer in reader.actions:
        c = jax.nn.relu(_joined(layer, c, c.mean(2, keepdims=True)))
    chosen = [select(x, action) for x in policies]
    columns = [
        *chosen[:2], *seen.numbers, chosen[2], online.y, online.next_y, target.y, target.next_y,
        *online.columns(seen), *target.columns(seen),
    ]  # fmt: skip
    return (jnp.stack(columns, -1), c.mean(2), select(c, action)), c


class _Embedded:
    """Predictions as one number each."""

    def __init__(self, reader: Reader, pair: Pair):
        embed = lambda layers, x: _embed(layers, x)[..., 0]  # noqa: E731
        self.y, self.next_y = embed(reader.y, pair.y), embed(reader.y, pair.next_y)
        self.z, self.next_z = embed(reader.z, pair.z), embed(reader.z, pair.next_z)

    def columns(self, seen: Seen) -> list[Array]:
        """Of the predictions per action: the chosen one, means and maxima, `[T, N]` each."""
        means = [(seen.policy * self.z).sum(-1), (seen.next_policy * self.next_z).sum(-1)]
        return [select(self.z, seen.action), *means, self.z.max(-1), self.next_z.max(-1)]


def backwards(p: Dense, inputs: tuple[Array, ...], ends: Array) -> Array:
    """The LSTM's outputs `[T, N, H]` over `inputs` `[T, N, *]`, from the last step to the first."""
    size = p.bias.shape[0] // 4
    width = sum(x.shape[-1] for x in inputs)
    own = _joined(Dense(p.weights[:width], p.bias), *inputs)

    def step(state: Recurrent, now: tuple[Array, Array]) -> tuple[Recurrent, Array]:
        own_t, end_t = now
        state = jax.tree.map(lambda x: jnp.where(end_t[:, None], 0.0, x), state)
        state = _gated(own_t + state.hidden @ p.weights[width:], state)
        return state, state.hidden

    zero = jnp.zeros_like(own[0, :, :size])
    return jax.lax.scan(step, Recurrent(zero, zero), (own, ends), reverse=True)[1]


def _gated(gates: Array, state: Recurrent) -> Recurrent:
    """c = sigmoid(f + 1) c + sigmoid(i) tanh(g),  h = sigmoid(o) tanh(c)."""
    i, g, f, o = jnp.split(gates, 4, -1)
    cell = jax.nn.sigmoid(f + 1.0) * state.cell + jax.nn.sigmoid(i) * jnp.tanh(g)
    return Recurrent(jax.nn.sigmoid(o) * jnp.tanh(cell), cell)


def _embed(layers: tuple[Dense, Dense], x: Array) -> Array:
    first, second = layers
    return second(jax.nn.relu(first(x)))


def _joined(layer: Dense, *parts: Array) -> Array:
    """`layer` on `parts` `[..., *]` side by side, as a sum of products.

    What is the same along an axis is multiplied once.  And where XLA (of jaxlib 0.10.2) fuses
    arrays put side by side into others put side by side, its CPU compiler fails.
    """
    start, total = 0, layer.bias.reshape((1,) * (parts[0].ndim - 1) + layer.bias.shape)
    for part in parts:
        end = start + part.shape[-1]
        total = total + part @ layer.weights[start:end]
        start = end
    return total
