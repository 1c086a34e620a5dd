"""The parts of a PPO iteration, each as a compiled program of its own, and the machine's peaks."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import own_training
from roofline import layers

import fastrl
from fastrl import networks, returns
from fastrl.kernels.permutation import permutation

INPUTS, OUTPUTS = 4, 2  # CartPole's observation and actions
Parts = dict[str, Callable[[], Any]]
_HPARAMS = {"gamma": 0.99, "gae_lambda": 0.95}


def parts(sizes: dict[str, Any], epochs: tuple[int, int]) -> Parts:
    """Calls that run one part each; everything is compiled when they are called again."""
    return _iterations(sizes, epochs) | _alone(sizes) | _peaks(sizes)


def _iterations(sizes: dict[str, Any], epochs: tuple[int, int]) -> Parts:
    """Whole iterations, with few and with more epochs."""
    made: Parts = {}
    for name, count in zip(("few epochs", "more epochs"), epochs, strict=True):
        settings = sizes | {"env": "CartPole-v1", "num_epochs": count, "hparams": _HPARAMS}
        algorithm, hparams = own_training.build(settings)
        task = algorithm.env.default_params()
        state = jax.jit(algorithm.init)(fastrl.key(0), hparams, task)
        made[name] = functools.partial(jax.jit(algorithm.step), state, hparams, task)
    return made


def _alone(sizes: dict[str, Any]) -> Parts:
    """The rollout, the advantages, a shuffle, and what an epoch gathers by it."""
    steps, n, count = sizes["num_steps"], sizes["num_envs"], sizes["num_minibatches"]
    env, key = fastrl.make("CartPole-v1"), fastrl.key(0)
    task = env.default_params()
    config = networks.NetworkConfig(tuple(sizes["hidden_sizes"]), sizes["activation"])
    network = networks.actor_critic(env.observation_space(task), env.action_space(task), config)
    vec_env = fastrl.VecEnv(env, n, fastrl.reset.fresh(env))
    params = jax.jit(network.init)(key)
    start = jax.jit(vec_env.init)(key, task)

    def rollout(params: Any, start: Any) -> Any:
        def policy(key: Any, observation: Any) -> Any:
            distribution, value = network.apply(params, observation)
            action = distribution.sample(key)
            return action, (distribution.log_prob(action), value)

        def keep(t: Any, extras: Any) -> Any:
            return t.observation, t.action, t.reward, t.terminated, t.truncated, *extras

        return fastrl.rollout(vec_env, policy, key, start, task, steps, keep)

    def advantages(x: Any, ends: Any) -> Any:
        return returns.gae(x, x, x, ends, ends, 0.99, 0.95)

    def gather(index: Any, rows: Any) -> Any:
        take = lambda i: jax.tree.map(lambda x: x[i], rows)  # noqa: E731
        return jax.lax.map(take, index.reshape(count, -1))

    flat = [jnp.ones((steps * n, INPUTS))] + [jnp.ones(steps * n) for _ in range(6)]
    shuffle = jax.jit(functools.partial(permutation, a=steps, b=n))
    ones = jnp.ones((steps, n))
    return {
        "rollout": functools.partial(jax.jit(rollout), params, start),
        "advantages": functools.partial(jax.jit(advantages), ones, ones > 2),
        "shuffle": functools.partial(shuffle, key),
        "gather": functools.partial(jax.jit(gather), shuffle(key), flat),
    }


def _peaks(sizes: dict[str, Any]) -> Parts:
    """A copy, a large product, and the network's own products, of an epoch and of a rollout."""
    shape = layers(INPUTS, sizes["hidden_sizes"], OUTPUTS)
    count = sizes["num_minibatches"]
    batch = sizes["num_envs"] * sizes["num_steps"] // count
    square = jnp.ones((1024, 1024))
    acting = _products(shape, sizes["num_steps"], sizes["num_envs"], backward=False)
    learning = _products(shape, count, batch, backward=True)
    return {
        "copy": _copying(sizes["copy"]),
        "peak product": functools.partial(jax.jit(jnp.matmul), square, square),
        "forward products": acting,
        "products": learning,
    }


def _copying(count: int) -> Callable[[], Any]:
    """Reads and writes `count` numbers in place: no new memory is asked for."""
    program = jax.jit(lambda x: x + 1.0, donate_argnums=0)
    now = {"x": jnp.ones(count)}

    def copy() -> Any:
        now["x"] = program(now["x"])
        return now["x"]

    return copy


def _products(
    shape: list[tuple[int, int]], count: int, batch: int, backward: bool
) -> Callable[[], Any]:
    """The matrix products of `count` batches, and nothing else.

    Every product reads and writes the same arrays for every batch, as fast as it can go; the
    barrier keeps the compiler from doing it once.
    """
    key = jax.random.key(0)
    xs = [jax.random.normal(key, (batch, i)) for i, _ in shape]
    dys = [jax.random.normal(key, (batch, o)) for _, o in shape]
    ws = [jax.random.normal(key, (i, o)) for i, o in shape]

    def products(xs: Any, dys: Any, ws: Any) -> Any:
        outputs = [x @ w for x, w in zip(xs, ws, strict=True)]
        if not backward:
            return outputs
        to_weights = [x.T @ dy for x, dy in zip(xs, dys, strict=True)]
        to_inputs = [dy @ w.T for dy, w in zip(dys, ws, strict=True) if w.shape[0] != INPUTS]
        return outputs, to_weights, to_inputs

    def run(*operands: Any) -> Any:
        def step(_: int, carry: Any) -> Any:
            operands, _ = jax.lax.optimization_barrier(carry)
            return operands, products(*operands)

        return jax.lax.fori_loop(0, count, step, (operands, products(*operands)))[1]

    return functools.partial(jax.jit(run), xs, dys, ws)
