"""PPO in one file, from fastrl's parts: copy it and change what you like.

    python ppo_single_file.py

Every line of the update stands here. What is taken from fastrl: the batch of environments, the
rollout loop, the network, GAE, and the shuffle.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import fastrl
from fastrl import returns
from fastrl.kernels.permutation import permutation
from fastrl.networks import actor_critic
from fastrl.vec import VecEnv, rollout

NUM_ENVS, NUM_STEPS, EPOCHS, MINIBATCHES = 32, 64, 4, 8
STEPS = 300_000
LEARNING_RATE, GAMMA, LAMBDA, CLIP = 1e-3, 0.98, 0.9, 0.2
ENTROPY, VALUE, MAX_GRAD_NORM = 0.0, 0.5, 0.5

env = fastrl.make("CartPole-v1")
task = env.default_params()
batch = VecEnv(env, NUM_ENVS, fastrl.reset.fresh(env))
network = actor_critic(env.observation_space(task), env.action_space(task))
ITERATIONS = STEPS // (NUM_ENVS * NUM_STEPS)
optimizer = optax.chain(
    optax.clip_by_global_norm(MAX_GRAD_NORM),
    optax.adam(
        optax.linear_schedule(LEARNING_RATE, 0.0, ITERATIONS * EPOCHS * MINIBATCHES), eps=1e-5
    ),
)


class State(NamedTuple):
    key: Any
    params: Any
    optimizer: Any
    envs: Any


class Sample(NamedTuple):
    """One step of every environment: leaves `[T, N, ...]`."""

    observation: Any
    action: Any
    log_prob: Any
    value: Any
    reward: Any
    terminated: Any
    truncated: Any
    final_value: Any  # V of the true successor where the episode was cut off


def init(key):
    key, network_key, env_key = jax.random.split(key, 3)
    params = network.init(network_key)
    return State(key, params, optimizer.init(params), batch.init(env_key, task))


def iterate(state, _):
    """One iteration: a rollout, advantages, and EPOCHS passes of minibatches."""
    key, rollout_key, shuffle_key = jax.random.split(state.key, 3)

    def policy(key, observation):
        distribution, value = network.apply(state.params, observation)
        action = distribution.sample(key)
        return action, (action, distribution.log_prob(action), value)

    def keep(t, extras):
        final_value = jax.lax.cond(  # hardly ever needed, so hardly ever computed
            t.truncated.any(),
            lambda: network.value(state.params, t.next_observation) * t.truncated,
            lambda: jnp.zeros(NUM_ENVS),
        )
        return Sample(t.observation, *extras, t.reward, t.terminated, t.truncated, final_value)

    envs, samples, metrics = rollout(batch, policy, rollout_key, state.envs, task, NUM_STEPS, keep)
    last_value = network.value(state.params, envs.observation)
    next_value = jnp.concatenate([samples.value[1:], last_value[None]])
    next_value = jnp.where(samples.truncated, samples.final_value, next_value)
    advantage = returns.gae(
        samples.reward, samples.value, next_value, samples.terminated, samples.truncated,
        GAMMA, LAMBDA,
    )  # fmt: skip
    data = samples, advantage, advantage + samples.value
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), data)

    def minibatch(carry, index):
        params, optimizer_state = carry
        grads = jax.grad(loss)(params, *jax.tree.map(lambda x: x[index], flat))
        updates, optimizer_state = optimizer.update(grads, optimizer_state)
        return (optax.apply_updates(params, updates), optimizer_state), None

    keys = jax.random.split(shuffle_key, EPOCHS)
    indices = jax.vmap(lambda key: permutation(key, NUM_STEPS, NUM_ENVS))(keys)
    indices = indices.reshape(EPOCHS * MINIBATCHES, -1)
    (params, optimizer_state), _ = jax.lax.scan(minibatch, (state.params, state.optimizer), indices)
    return State(key, params, optimizer_state, envs), metrics["episode_return"]


def loss(params, samples, advantage, target):
    distribution, value = network.apply(params, samples.observation)
    ratio = jnp.exp(distribution.log_prob(samples.action) - samples.log_prob)
    advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    clipped = jnp.clip(ratio, 1 - CLIP, 1 + CLIP)
    policy_loss = -jnp.minimum(ratio * advantage, clipped * advantage).mean()
    value_loss = 0.5 * jnp.square(value - target).mean()
    return policy_loss + VALUE * value_loss - ENTROPY * distribution.entropy().mean()


@jax.jit
def train(key):
    return jax.lax.scan(iterate, init(key), None, ITERATIONS)


if __name__ == "__main__":
    state, episodes = train(fastrl.key(0))
    for i in range(0, ITERATIONS, ITERATIONS // 10):
        rows = slice(i, i + ITERATIONS // 10)
        average = episodes.total[rows].sum() / episodes.weight[rows].sum()
        print(f"{(i + 1) * NUM_ENVS * NUM_STEPS:>8,} steps   return {average:.1f}")
