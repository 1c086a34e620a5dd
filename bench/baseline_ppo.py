"""A frozen PPO on CartPole to measure fastrl against. Never make it faster.

One self-contained file in the manner of PureJaxRL (Lu et al. 2022): a scan of updates in one
jitted program, threefry keys, a key split off for every environment and step, every environment
reset at every step, a permutation by sorting.  It uses jax, flax and optax only, and nothing of
fastrl, so no change to fastrl changes it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax


class Settings(NamedTuple):
    """PureJaxRL's own, for CartPole-v1."""

    num_envs: int = 4
    num_steps: int = 128
    num_epochs: int = 4
    num_minibatches: int = 4
    updates: int = 64
    learning_rate: float = 2.5e-4
    gamma: float = 0.99
    gae_lambda: float = 0.95
    clip: float = 0.2
    entropy_coefficient: float = 0.01
    value_coefficient: float = 0.5
    max_grad_norm: float = 0.5


class Cart(NamedTuple):
    """CartPole's state: position, velocity, angle, angular velocity, steps taken, return."""

    x: Any
    v: Any
    angle: Any
    w: Any
    time: Any
    total: Any


class Batch(NamedTuple):
    """What is kept of a step."""

    observation: Any
    action: Any
    log_prob: Any
    value: Any
    reward: Any
    done: Any
    returned: Any  # of the episode that ended, else 0


def reset(key: Any) -> Cart:
    """A start close to upright."""
    x, v, angle, w = jax.random.uniform(key, (4,), minval=-0.05, maxval=0.05)
    return Cart(x, v, angle, w, jnp.int32(0), jnp.float32(0.0))


def observe(cart: Cart) -> Any:
    """Position, velocity, angle, angular velocity: `[4]`."""
    return jnp.array([cart.x, cart.v, cart.angle, cart.w])


def step(key: Any, cart: Cart, action: Any) -> tuple[Cart, Any, Any, Any, Any]:
    """The dynamics of Gymnasium's CartPole-v1, reset at the end; `key` is of this environment.

    Returns the cart, its observation, the reward, whether the episode ended, and its return.
    """
    force = jnp.where(action == 1, 10.0, -10.0)
    cos, sin = jnp.cos(cart.angle), jnp.sin(cart.angle)
    push = (force + 0.05 * cart.w**2 * sin) / 1.1
    turn = (9.8 * sin - cos * push) / (0.5 * (4.0 / 3.0 - 0.1 * cos**2 / 1.1))
    acceleration = push - 0.05 * turn * cos / 1.1
    moved = Cart(
        cart.x + 0.02 * cart.v, cart.v + 0.02 * acceleration, cart.angle + 0.02 * cart.w,
        cart.w + 0.02 * turn, cart.time + 1, cart.total + 1.0,
    )  # fmt: skip
    fell = (jnp.abs(moved.x) > 2.4) | (jnp.abs(moved.angle) > 0.20943951)
    done = fell | (moved.time >= 500)
    _, reset_key = jax.random.split(key)
    following = jax.tree.map(lambda a, b: jax.lax.select(done, a, b), reset(reset_key), moved)
    return following, observe(following), jnp.float32(1.0), done, moved.total * done


class ActorCritic(nn.Module):
    """Two tanh layers of 64 for the policy, and two for the value."""

    @nn.compact
    def __call__(self, x: Any) -> tuple[Any, Any]:
        heads = []
        for outputs, scale in ((2, 0.01), (1, 1.0)):
            h = x
            for _ in range(2):
                h = nn.tanh(nn.Dense(64, kernel_init=nn.initializers.orthogonal(2**0.5))(h))
            heads.append(nn.Dense(outputs, kernel_init=nn.initializers.orthogonal(scale))(h))
        return heads[0], heads[1][..., 0]


def make_train(settings: Settings) -> Callable[[Any], tuple[Any, Any]]:
    """The function `key -> (params, mean return of the episodes that ended, by update)`."""
    s, network = settings, ActorCritic()
    optimizer = optax.chain(
        optax.clip_by_global_norm(s.max_grad_norm), optax.adam(s.learning_rate, eps=1e-5)
    )

    def train(key: Any) -> tuple[Any, Any]:
        key, network_key, reset_key = jax.random.split(key, 3)
        params = network.init(network_key, jnp.zeros(4))
        carts = jax.vmap(reset)(jax.random.split(reset_key, s.num_envs))
        observation = jax.vmap(observe)(carts)

        def update(carry: Any, _: Any) -> tuple[Any, Any]:
            params, optimizer_state, carts, observation, key = carry
            key, rollout_key, shuffle_key = jax.random.split(key, 3)
            (carts, observation), batch = rollout(
                s, network, params, carts, observation, rollout_key
            )
            advantages = gae(s, batch, network.apply(params, observation)[1])
            params, optimizer_state = learn(
                s, network, optimizer, params, optimizer_state, batch, advantages, shuffle_key
            )
            mean = batch.returned.sum() / jnp.maximum(batch.done.sum(), 1)
            return (params, optimizer_state, carts, observation, key), mean

        carry = params, optimizer.init(params), carts, observation, key
        carry, returns = jax.lax.scan(update, carry, None, s.updates)
        return carry[0], returns

    return train


def rollout(
    s: Settings, network: Any, params: Any, carts: Any, observation: Any, key: Any
) -> tuple[Any, Batch]:
    """`num_steps` steps of every environment; leaves of the batch are `[T, N, ...]`."""

    def body(carry: Any, _: Any) -> tuple[Any, Batch]:
        carts, observation, key = carry
        key, action_key, step_key = jax.random.split(key, 3)
        logits, value = network.apply(params, observation)
        action = jax.random.categorical(action_key, logits)
        log_prob = pick(logits, action)
        keys = jax.random.split(step_key, s.num_envs)
        carts, following, reward, done, returned = jax.vmap(step)(keys, carts, action)
        kept = Batch(observation, action, log_prob, value, reward, done, returned)
        return (carts, following, key), kept

    (carts, observation, _), batch = jax.lax.scan(
        body, (carts, observation, key), None, s.num_steps
    )
    return (carts, observation), batch


def pick(logits: Any, action: Any) -> Any:
    """The log-probability of each action."""
    return jnp.take_along_axis(jax.nn.log_softmax(logits), action[..., None], -1)[..., 0]


def gae(s: Settings, batch: Batch, last_value: Any) -> Any:
    """Advantages `[T, N]`, with a time limit taken for an end, as PureJaxRL does."""

    def body(carry: Any, now: Batch) -> tuple[Any, Any]:
        advantage, following = carry
        going = 1.0 - now.done
        delta = now.reward + s.gamma * going * following - now.value
        advantage = delta + s.gamma * s.gae_lambda * going * advantage
        return (advantage, now.value), advantage

    start = jnp.zeros_like(last_value), last_value
    return jax.lax.scan(body, start, batch, reverse=True, unroll=16)[1]


def learn(
    s: Settings, network: Any, optimizer: Any, params: Any, optimizer_state: Any, batch: Batch,
    advantages: Any, key: Any,
) -> tuple[Any, Any]:  # fmt: skip
    """`num_epochs` passes over the rollout, shuffled by sorting, in minibatches."""
    size = s.num_envs * s.num_steps
    flat = jax.tree.map(
        lambda x: x.reshape(size, *x.shape[2:]), (batch, advantages, advantages + batch.value)
    )

    def loss(params: Any, batch: Batch, advantage: Any, target: Any) -> Any:
        logits, value = network.apply(params, batch.observation)
        ratio = jnp.exp(pick(logits, batch.action) - batch.log_prob)
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        gain = jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - s.clip, 1 + s.clip) * advantage)
        near = batch.value + jnp.clip(value - batch.value, -s.clip, s.clip)
        error = jnp.maximum((value - target) ** 2, (near - target) ** 2)
        log_probs = jax.nn.log_softmax(logits)
        entropy = -(jnp.exp(log_probs) * log_probs).sum(-1).mean()
        value_loss = s.value_coefficient * 0.5 * error.mean()
        return value_loss - gain.mean() - s.entropy_coefficient * entropy

    def minibatch(carry: Any, rows: Any) -> tuple[Any, None]:
        params, optimizer_state = carry
        updates, optimizer_state = optimizer.update(
            jax.grad(loss)(params, *rows), optimizer_state, params
        )
        return (optax.apply_updates(params, updates), optimizer_state), None

    def epoch(carry: Any, key: Any) -> tuple[Any, None]:
        order = jax.random.permutation(key, size)
        shuffled = jax.tree.map(lambda x: jnp.take(x, order, axis=0), flat)
        split = jax.tree.map(lambda x: x.reshape(s.num_minibatches, -1, *x.shape[1:]), shuffled)
        return jax.lax.scan(minibatch, carry, split)[0], None

    keys = jax.random.split(key, s.num_epochs)
    return jax.lax.scan(epoch, (params, optimizer_state), keys)[0]
