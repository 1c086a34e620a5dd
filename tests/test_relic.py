"""ReLIC: attention with sinks against float64, partial updates against the policy that acted."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastrl
from fastrl import memory, ppo_memory
from fastrl.algorithms import relic
from fastrl.cells import MemoryConfig
from fastrl.envs.bsuite import DelayedChain
from fastrl.envs.classic import CartPole
from fastrl.kernels import prng
from fastrl.levels import levels
from fastrl.meta import rl2
from fastrl.networks import NetworkConfig
from fastrl.spaces import Box, Discrete
from fastrl.transforms import MetaEpisode

T, N, D, SIZE, HEADS, SINKS = 6, 2, 3, 4, 2, 2
STARTS = np.zeros((T, N), bool)
STARTS[0] = True
STARTS[3, 1] = True


@functools.cache
def case() -> tuple[Any, Any, Any]:
    """A network with sinks whose parameters are all drawn, and observations `[T, N, D]`."""
    config = MemoryConfig("transformer", SIZE, window=T, heads=HEADS, sinks=SINKS)
    network = memory.recurrent(
        Box(-1.0, 1.0, (D,)), Discrete(3), NetworkConfig((3,), shared_torso=True), config
    )
    leaves, treedef = jax.tree.flatten(jax.jit(network.init)(prng.key(0)))
    draw = np.random.default_rng(0)
    drawn = [jnp.asarray(draw.normal(0, 0.5, x.shape), x.dtype) for x in leaves]
    return network, treedef.unflatten(drawn), jnp.asarray(draw.normal(size=(T, N, D)), jnp.float32)


def empty(network: Any) -> Any:
    """A memory without entries."""
    return jax.tree.map(lambda x: x[:, :0], network.initial_carry((N,)))


def oracle(p: Any, x: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Values of one sequence `[T, D]`, step by step, in float64."""

    def dense(name: str, x: np.ndarray) -> np.ndarray:
        return x @ p[name]["kernel"] + p[name].get("bias", 0.0)

    def norm(name: str, x: np.ndarray) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
        return scaled * p[name]["scale"] + p[name]["bias"]

    torso, head, p = p["actor_torso"]["Dense_0"], p["critic_head"], p["actor_memory"]
    entries = dense("inputs", np.tanh(x @ torso["kernel"] + torso["bias"]))
    seen, values = norm("a_0", entries), []
    query, key, value = (
        dense(f"{n}_0", seen).reshape(T, HEADS, -1) for n in ("query", "key", "value")
    )
    for t in range(T):
        first = np.flatnonzero(starts[: t + 1])[-1]
        mixed = []
        for h in range(HEADS):
            keys = [*p["sink_key_0"][:, h], *key[first : t + 1, h]]
            bias = [0.0] * SINKS + [p["age_0"][h, t - s] for s in range(first, t + 1)]
            scores = np.array(keys) @ query[t, h] / np.sqrt(SIZE // HEADS) + bias
            weights = np.exp(scores - scores.max())
            drawn = np.array([*p["sink_value_0"][:, h], *value[first : t + 1, h]])
            mixed.append(weights / weights.sum() @ drawn)
        y = entries[t] + dense("output_0", np.concatenate(mixed))
        y = y + dense("narrow_0", np.maximum(dense("wide_0", norm("b_0", y)), 0.0))
        values.append(norm("last", y) @ head["kernel"][:, 0] + head["bias"][0])
    return np.array(values)


def test_attention_with_sinks_in_float64() -> None:
    """Sinks that a start hides, that count as entries, or a bias of another age."""
    network, params, x = case()
    value = jax.jit(network.unroll)(params, empty(network), x, STARTS)[2]
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params["params"])
    for n in range(N):
        expected = oracle(p, np.asarray(x[:, n], np.float64), STARTS[:, n])
        np.testing.assert_allclose(value[:, n], expected, atol=2e-5)


def test_a_context_gives_the_memory_that_its_steps_give() -> None:
    """A memory that is computed anew after an update, and does not stand where the old one did."""
    network, params, x = case()
    after, _, values = jax.jit(network.unroll)(params, empty(network), x, STARTS)
    step, carry = jax.jit(network.step), network.initial_carry((N,))
    for t in range(T):
        carry, _, value = step(params, carry, x[t], STARTS[t])
        np.testing.assert_allclose(value, values[t], atol=2e-5)
    (valid, *entries), (other, *others) = after[0], carry[0]
    np.testing.assert_array_equal(valid, other)
    for a, b in zip(entries, others, strict=True):
        where = np.asarray(valid)[..., None]
        np.testing.assert_allclose(np.where(where, a, 0), np.where(where, b, 0), atol=2e-5)


CONFIG: dict[str, Any] = {
    "num_envs": 4, "num_steps": 12, "num_epochs": 1, "num_minibatches": 1, "memory_size": 4,
    "heads": 1, "layers": 1, "hidden_sizes": (4,),
}  # fmt: skip
HPARAMS = relic.HParams(learning_rate=0.02)


def started(num_updates: int) -> tuple[Any, Any, Any]:
    """The algorithm on CartPole, a task whose episodes end within pieces, a state."""
    algorithm = relic.make(CartPole(), relic.Config(**CONFIG, num_updates=num_updates))
    task = algorithm.env.default_params()._replace(max_steps=7)
    return algorithm, task, jax.jit(algorithm.init)(prng.key(0), HPARAMS, task)


def kl(metrics: Any) -> float:
    return float(metrics["approximate_kl"].total / metrics["approximate_kl"].weight)


@pytest.mark.slow
def test_partial_updates_are_on_policy() -> None:
    """Memory or values of the old parameters after an update, steps of other environments or
    times, a start that is lost: the next update would not see the policy that acted."""
    algorithm, task, state = started(3)
    parts = algorithm.step.args[0]
    rollout = relic._Rollout(state, parts.remembered(), relic._blank(parts, state, task))
    piece = jax.jit(lambda rollout: relic._piece(parts, HPARAMS, task, False, rollout))
    for _ in range(2):
        before = rollout.state.params
        rollout, metrics = piece(rollout)
        assert kl(metrics) == pytest.approx(0.0, abs=1e-6)
        moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), before, rollout.state.params)
        assert max(jax.tree.leaves(moved)) > 0.01
    assert rollout.context.start[:4].all()  # no step yet
    assert rollout.context.start[4].all()  # the first of the rollout
    assert not rollout.context.start[5].all()
    network, seen = parts.network, parts.storage.unpack(rollout.context.samples.observation)
    _, _, value = network.unroll(
        rollout.state.params, rollout.context.carry, seen, rollout.context.start
    )
    np.testing.assert_allclose(rollout.context.samples.value, value, atol=1e-5)


@pytest.mark.slow
@pytest.mark.full
def test_one_update_is_ppo_with_memory() -> None:
    """Another loss, other advantages or minibatches than those of the learner it extends."""
    algorithm, task, state = started(1)
    twin = ppo_memory.make(CartPole(), relic.Config(**CONFIG).learner)
    own, metrics = jax.jit(algorithm.step)(state, HPARAMS, task)
    other = jax.jit(twin.init)(prng.key(0), HPARAMS, task)
    other, expected = jax.jit(twin.step)(other, HPARAMS, task)
    for a, b in zip(*map(jax.tree.leaves, (own.params, other.params)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    for name, mean in expected.items():
        np.testing.assert_allclose(metrics[name].total, mean.total, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_later_episodes_are_better_than_the_first() -> None:
    """Context that is lost between the pieces of a rollout, or between the episodes of a life."""
    env = MetaEpisode(DelayedChain(longest=5), 4)
    config = relic.Config(num_steps=20, memory_size=16, layers=1, hidden_sizes=(16,))
    algorithm = relic.make(env, config, reset=levels)
    program = jax.jit(fastrl.run(algorithm, 50_000))
    hparams = relic.HParams(learning_rate=3e-3)
    state, _ = program(prng.key(0), hparams, env.default_params())
    first, *later = rl2.returns_by_episode(algorithm, state, lives=400).mean(0)
    assert abs(first) < 0.2  # by chance
    assert min(later) > 0.9


def test_bad_configs_name_the_value() -> None:
    """Pieces of different lengths, or a window beyond what is remembered."""
    with pytest.raises(ValueError, match="num_steps=128 is not divisible by num_updates=3"):
        relic.Config(num_updates=3)
    with pytest.raises(ValueError, match="window=200 is above num_steps=128"):
        relic.Config(window=200)
    with pytest.raises(ValueError, match="sinks=-1"):
        relic.Config(sinks=-1)
    assert relic.Config(window=5).learner.memory.window == 5
    assert relic.Config().learner.memory.window == 128
