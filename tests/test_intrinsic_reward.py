"""A learned reward: its network over a life, the gradient through updates, what it is good for."""

import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_ppo_memory import oracle_cell
from toys import Walk

import fastrl
from fastrl import meta
from fastrl.envs.continual import Corners
from fastrl.hparams import as_arrays
from fastrl.kernels import prng
from fastrl.meta import intrinsic, intrinsic_meta, intrinsic_value, lpg_agent, lpo
from fastrl.meta.lpg_a2c import A2C
from fastrl.types import Transition
from fastrl.vec import VecState

K, T, N = 3, 5, 2
REWARD = intrinsic.Reward(hidden_size=3)
LEARNER = intrinsic.learner(Walk(), intrinsic.Config(N, T), objective=REWARD)
AGENT = lpg_agent.HParams(learning_rate=3.0, head_learning_rate=1.0, max_grad_norm=10.0)
ACTS = LEARNER.algorithm


class Record(NamedTuple):
    """What a life sees, whatever it does."""

    rollouts: Transition  # [K, T, N]
    after: Any  # int32 [N]: what is seen after the last step


def record(seed: int = 0) -> Record:
    draw = np.random.RandomState(seed)
    shape = (K, T, N)
    place, following = (jnp.asarray(draw.randint(4, size=shape), jnp.int32) for _ in range(2))
    action = jnp.asarray(draw.randint(2, size=shape), jnp.int32)
    ends = draw.rand(*shape) < 0.3
    cuts = (draw.rand(*shape) < 0.2) & ~ends
    rollouts = Transition(place, action, jnp.asarray(draw.randn(*shape)), jnp.asarray(ends),
                          jnp.asarray(cuts), following)  # fmt: skip
    return Record(rollouts, jnp.asarray(draw.randint(4, size=N), jnp.int32))


def double(tree: Any) -> Any:
    return jax.tree.map(lambda x: x.astype(jnp.float64) if x.dtype == jnp.float32 else x, tree)


@functools.cache
def value_network() -> Any:
    return intrinsic_value.value(LEARNER, 3)


@functools.cache
def differentiated(window: int = K) -> Any:
    """(eta, lives, record, hparams) -> ((loss, lives), gradient), jitted."""

    def loss(eta: Any, lives: Any, record: Record, hparams: Any) -> Any:
        def collect(state: intrinsic.State, task: Any) -> Any:
            seen = jax.tree.map(lambda x: x[state.agent.iteration], record.rollouts)
            standing = state.agent.env._replace(observation=record.after)
            return state._replace(agent=state.agent._replace(env=standing)), seen, {}

        life = intrinsic_meta.Life(
            LEARNER._replace(collect=collect), value_network(), window, K + 1
        )
        value, (lives, _) = life.loss(eta, lives, hparams)
        return value, lives

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


def started(age: int = 0) -> tuple[Any, Any]:
    """An eta whose parameters are all drawn, and one life, in float64."""
    keys = jax.random.split(jax.random.key(0, impl="threefry2x32"), 4)
    eta = intrinsic_meta.Eta(LEARNER.reward.init(keys[0]), value_network().init(keys[1]))
    draw = np.random.RandomState(1)
    eta = jax.tree.map(lambda x: jnp.asarray(x + draw.normal(0, 0.5, x.shape)), eta)
    tables = {"policy": (4, 2), "value": (4, 1)}
    params = {n: [jnp.asarray(draw.normal(size=s))] for n, s in tables.items()}
    nothing: Any = ()
    env = VecState((), (), (), jnp.zeros(N, jnp.int32), jnp.zeros(N), jnp.zeros(N, jnp.int32))
    agent = lpg_agent.State(
        keys[2], params, dict.fromkeys(params, nothing), nothing, env, jnp.int32(0)
    )
    memory = (jnp.asarray(draw.normal(size=(N, 3))),)
    lives = intrinsic_meta.Lives(
        intrinsic.State(agent, memory), memory, (), jnp.int32(K + 1), jnp.int32(age),
        jnp.int32(K + 1),
    )  # fmt: skip
    return eta, lives


def numbers(**changes: Any) -> intrinsic_meta.HParams:
    inner = intrinsic.HParams(agent=AGENT)
    return intrinsic_meta.HParams(inner=inner, policy_entropy=0.1)._replace(**changes)


@pytest.mark.slow
def test_against_finite_differences() -> None:
    """A stopped gradient on the way from the reward through the updates to later policies."""
    with jax.enable_x64(True):
        eta, lives = started()
        seen, hparams = record(), numbers()
        (_, after), gradient = differentiated()(eta, lives, seen, hparams)
        assert int(after.state.agent.iteration) == int(after.age) == K
        leaves, structure = jax.tree.flatten(eta.reward)
        draw = np.random.RandomState(2)
        for i, leaf in enumerate(leaves):
            v = jnp.asarray(draw.randn(*leaf.shape))
            ahead, behind = (
                differentiated()(
                    eta._replace(reward=jax.tree.unflatten(
                        structure, [*leaves[:i], leaf + s * v, *leaves[i + 1 :]]
                    )), lives, seen, hparams,
                )[0][0] for s in (1e-5, -1e-5)
            )  # fmt: skip
            difference = float(ahead - behind) / 2e-5
            got = float((jax.tree.leaves(gradient.reward)[i] * v).sum())
            assert abs(difference) > 1e-7
            np.testing.assert_allclose(got, difference, rtol=1e-5, atol=1e-10)


@pytest.mark.slow
def test_what_is_gained_later_counts_whatever_ends_between() -> None:
    """Advantages that stop at the end of an episode, or go beyond the end of a life."""
    with jax.enable_x64(True):
        eta, lives = started()
        seen, hparams = record(), numbers(policy_entropy=0.0)
        never = jnp.zeros((K, T, N), bool)
        always = seen.rollouts._replace(terminated=~never, truncated=never)

        def slope(record: Record, age: int = 0) -> Any:
            life = lives._replace(age=jnp.int32(age))
            return differentiated()(eta, life, record, hparams)[1].reward["params"]["head"]

        # the last reward matters for the policies before it, though every step ends an episode
        base = Record(always, seen.after)
        richer = base._replace(rollouts=always._replace(reward=always.reward.at[-1, -1].add(1.0)))
        # a change of the reward is a change of the network's input too: only of the last update
        assert np.abs(slope(base)["kernel"] - slope(richer)["kernel"]).max() > 1e-6
        # what is seen after the window matters, but not at the end of the life
        other = base._replace(after=(seen.after + 1) % 4)
        assert np.abs(slope(base)["kernel"] - slope(other)["kernel"]).max() > 1e-9
        end = [slope(r, age=1)["kernel"] for r in (base, other)]
        np.testing.assert_array_equal(*end)


def test_a_reward_is_learned_by_what_follows_its_update() -> None:
    """A gradient that does not go through the update: the first policy owes the reward nothing."""
    with jax.enable_x64(True):
        eta, lives = started()
        hparams = numbers()
        gradient = differentiated(1)(eta, lives, record(), hparams)[1]
        assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradient.reward))
        assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient.value))


def test_the_reward_remembers_all_of_the_life() -> None:
    """A memory that is cleared at an end or an update, or a reward of the step before."""
    with jax.enable_x64(True):
        eta, lives = started()
        t = record().rollouts
        x = LEARNER.sight.inputs(t)
        flat = x.reshape(K * T, N, -1)
        assert x.shape == (K, T, N, 4 + 2 + 2)
        memory, pieces = lives.state.memory, []
        for k in range(K):
            memory, reward = LEARNER.reward.unroll(eta.reward, memory, x[k], t.reward[k])
            pieces.append(reward)
        p = jax.tree.map(np.asarray, eta.reward["params"])
        starts = np.zeros((K * T, N), bool)
        h = oracle_cell("gru", p["memory"], np.asarray(flat), starts, lives.state.memory)
        expected = h @ p["head"]["kernel"] + p["head"]["bias"] + flat @ p["direct"]["kernel"]
        np.testing.assert_allclose(
            np.concatenate(pieces), np.tanh(expected[..., 0]), rtol=1e-10, atol=1e-12
        )


@pytest.mark.slow
def test_without_a_network_it_is_the_agent_on_its_task() -> None:
    """Rewards that are changed though there is nothing to change them, or another agent."""
    task = Walk().default_params()
    twin = lpg_agent.make(Walk(), lpg_agent.Config(N, T), objective=A2C(normalize=False))
    state = ACTS.init(prng.key(0), intrinsic.HParams(agent=AGENT), task)
    other = twin.init(prng.key(0), AGENT, task)
    state, metrics = jax.jit(ACTS.step)(state, intrinsic.HParams(agent=AGENT), task)
    other, expected = jax.jit(twin.step)(other, AGENT, task)
    for name, table in other.params.items():
        np.testing.assert_allclose(state.agent.params[name][0], table[0], atol=1e-6)
    np.testing.assert_array_equal(metrics["reward"].total, metrics["learned_reward"].total)
    assert set(expected) < set(metrics)


@pytest.mark.slow
@pytest.mark.full
def test_what_the_task_pays_in_a_life_rises() -> None:
    """A gradient with the wrong sign, or one that credits nothing: agents stay as they began."""
    env = Corners(5)
    task = env.default_params()._replace(step_reward=0.0, max_steps=12)

    def sampler(key: Any, task: Any) -> Any:
        return task._replace(goal=jax.random.randint(key, (), 0, 4))

    reward = intrinsic.Reward().on(env)
    inner = intrinsic.make(env, intrinsic.Config(num_envs=1, num_steps=16), objective=reward)
    config = intrinsic_meta.Config(num_lives=32, lifetime=40)
    outer = intrinsic_meta.make(inner, reward.init, config, sampler=sampler)
    agent = lpg_agent.HParams(learning_rate=20.0, head_learning_rate=5.0, max_grad_norm=1.0)
    hparams = intrinsic_meta.HParams(learning_rate=5e-3, inner=intrinsic.HParams(agent=agent))
    run = jax.jit(fastrl.run(outer, 60 * outer.steps_per_iteration))
    _, metrics = run(prng.key(0), as_arrays(hparams), as_arrays(task))
    paid = np.asarray(metrics["inner_reward"].total / metrics["inner_reward"].weight)
    assert paid[:3].mean() < 0.025  # by chance 0.015
    assert paid[-20:].mean() > 0.035
    assert np.asarray(metrics["diverged"].total).sum() == 0


def test_bad_settings() -> None:
    """Lives that do not consist of windows."""
    with pytest.raises(ValueError, match="lifetime=12 is not divisible by window=5"):
        intrinsic_meta.Config(lifetime=12)
    with pytest.raises(ValueError, match="num_lives=6 is not divisible"):
        intrinsic_meta.Config(num_lives=6, chunk=4)
    with pytest.raises(ValueError, match="hidden_size=0"):
        intrinsic.Reward(hidden_size=0)
    with pytest.raises(TypeError, match="algorithm is a Learner"):
        intrinsic_meta.make(LEARNER, LEARNER.reward.init)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="inner is lpg_agent, without a learned reward"):
        intrinsic_meta.make(lpg_agent.make(Walk()), LEARNER.reward.init)
    with pytest.raises(ValueError, match=r"reward\.on\(env\)"):
        REWARD.init(jax.random.key(0))
    with pytest.raises(TypeError, match="is no reward: pass an intrinsic"):
        intrinsic.make(Walk(), objective=A2C())


def some_parameters() -> Any:
    """Of `LEARNER.reward`, none of them 0."""
    draw = np.random.RandomState(3)
    shapes = jax.eval_shape(LEARNER.reward.init, jax.random.key(0))
    return jax.tree.map(lambda x: draw.normal(0, 0.5, x.shape).astype(np.float32), shapes)


def test_a_saved_reward_pays_what_it_paid(tmp_path: Path) -> None:
    """Settings or leaves that are lost in the folder, or a loaded reward that () switches off."""
    reward, eta = LEARNER.reward, some_parameters()
    meta.save(tmp_path, reward, eta)
    loaded = meta.load(tmp_path)
    assert loaded.rule == reward
    config = intrinsic.Config(N, T)
    again = intrinsic.learner(Walk(), config, objective=loaded)
    assert again is intrinsic.learner(Walk(), config, objective=meta.load(tmp_path))
    assert again.reward is loaded
    recipe: Any = intrinsic.make(Walk(), config).recipe
    assert recipe.objective is None  # so that `fastrl train` can go on with its run folder
    t = jax.tree.map(lambda x: x[0], record().rollouts)
    x, memory, task = LEARNER.sight.inputs(t), reward.initial_memory(N), t.reward

    def paid(eta: Any) -> Any:
        return [r.unroll(e, memory, x, task)[1] for r, e in ((reward, eta), (again.reward, ()))]

    before, after = jax.jit(paid)(eta)
    np.testing.assert_allclose(after, before, 1e-5, 1e-6)
    assert float(jnp.abs(before - task).min()) > 1e-3
    np.testing.assert_array_equal(reward.unroll((), memory, x, task)[1], task)


def test_a_reward_elsewhere_is_refused(tmp_path: Path) -> None:
    """Weights that meet other inputs: an error of shapes in a trace, or none at all."""
    meta.save(tmp_path, LEARNER.reward, some_parameters())
    loaded = meta.load(tmp_path)
    with pytest.raises(ValueError, match=r"input_size=8: this reward sees .* have 31"):
        intrinsic.make(Corners(), objective=loaded)
    with pytest.raises(TypeError, match="is no function: pass one, such as lpg"):
        lpg_agent.make(Walk(), objective=loaded)
    with pytest.raises(TypeError, match="is no policy objective"):
        loaded((), (), ())
    rule = lpo.LPO(hidden_size=2)
    meta.save(tmp_path, rule, rule.init(jax.random.key(0)))
    with pytest.raises(TypeError, match=r"objective=Loaded\(LPO\(.* is no reward"):
        intrinsic.make(Walk(), objective=meta.load(tmp_path))
