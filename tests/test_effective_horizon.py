"""Exact analysis of small processes, the tabular environments that they come from, and GORP."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import fastrl
from fastrl import effective_horizon as eh
from fastrl.envs.tabular import Lock, RandomMDP
from fastrl.envs.tabular.tabular import State

SMALL = RandomMDP(states=3, actions=2, horizon=3, branching=2, sparsity=0.3, seed=4)


def by_recursion(mdp, t, state, action, k):
    """Q^k written out: `k - 1` best actions after the first, then random ones."""
    value = mdp.rewards[state, action]
    if t + 1 == mdp.horizon:
        return value
    for following, probability in enumerate(mdp.transitions[state, action]):
        q = [
            by_recursion(mdp, t + 1, following, a, max(k - 1, 1))
            for a in range(len(mdp.rewards[0]))
        ]
        value += probability * (max(q) if k > 1 else sum(q) / len(q))
    return value


@pytest.mark.parametrize("k", [1, 2, 3])
def test_q_values_equal_a_plain_recursion(k):
    """A backup of the wrong step, or a mean where there is a maximum."""
    mdp = eh.of(SMALL)
    q = eh.random_values(mdp)
    for _ in range(k - 1):
        q = eh.deeper(mdp, q)
    for t, s, a in itertools.product(range(3), range(3), range(2)):
        np.testing.assert_allclose(q[t, s, a], by_recursion(mdp, t, s, a, k), rtol=1e-12)


def test_deep_enough_is_optimal():
    """Q^T is Q*: after T backups nothing random is left."""
    mdp = eh.of(SMALL)
    q = functools.reduce(lambda q, _: eh.deeper(mdp, q), range(2), eh.random_values(mdp))
    np.testing.assert_allclose(q, eh.optimal_values(mdp), rtol=1e-12)


@pytest.mark.parametrize("length", [3, 4, 5, 6])
@pytest.mark.parametrize("way_out", [0.05, 0.1, 0.2, 0.3])
def test_the_lock_needs_the_depth_that_it_is_built_for(length, way_out):
    """Going in is worth 2^-(length - k) to Q^k, and must beat the way out; so must the gap."""
    analysis = eh.effective_horizon(eh.of(Lock(length=length, way_out=way_out, horizon=length + 2)))
    k = next(k for k in range(1, length + 1) if 2.0 ** -(length - k) > way_out)
    assert analysis.k == k
    at_door = 2.0 ** -(length - k) - way_out
    later = min([2.0 ** -max(length - 1 - i - (k - 1), 0) for i in range(1, length)])
    assert math.isclose(analysis.gap, min(at_door, later), rel_tol=1e-9)
    samples = math.ceil((1 / analysis.gap) ** 2 - 1e-9)
    assert math.isclose(analysis.depths[k - 1].stochastic, k + math.log2(samples), rel_tol=0.02)
    assert analysis.optimal_return == 1.0


def test_greedy_play_of_a_depth_is_judged_by_what_it_earns():
    """`solvable` must mean that greedy play earns what optimal play does, and else earns less."""
    for seed in range(12):
        mdp = eh.of(RandomMDP(seed=seed, horizon=4))
        q, best = eh.random_values(mdp), eh.optimal_values(mdp)[0].max(-1) @ mdp.start
        for depth in eh.effective_horizon(mdp).depths:
            value = np.zeros(len(mdp.start))
            for t in reversed(range(mdp.horizon)):
                follow = mdp.rewards + (mdp.transitions @ value if t + 1 < mdp.horizon else 0.0)
                value = follow[np.arange(len(value)), q[t].argmax(-1)]
            earned = value @ mdp.start
            assert depth.solvable == (earned > best - 1e-9), (seed, depth)
            q = eh.deeper(mdp, q)


def test_only_deterministic_processes_have_a_bound_for_gorp():
    stochastic = eh.effective_horizon(eh.of(Lock(slip=0.2)))
    certain = eh.effective_horizon(eh.of(Lock()))
    assert stochastic.deterministic == math.inf
    assert certain.deterministic < math.inf
    assert stochastic.stochastic >= stochastic.k


def test_tables_that_are_no_process_are_refused():
    mdp = eh.of(SMALL)
    with pytest.raises(ValueError, match="transitions are no probabilities"):
        eh.effective_horizon(mdp._replace(transitions=2 * mdp.transitions))
    with pytest.raises(ValueError, match=r"need \[S, A, S\]"):
        eh.effective_horizon(mdp._replace(rewards=mdp.rewards[:, :1]))
    with pytest.raises(TypeError, match="no tables"):
        eh.of(fastrl.make("CartPole-v1"))


@pytest.mark.parametrize(("k", "expected"), [(1, 0.1), (2, 1.0)])
def test_gorp_opens_a_lock_as_soon_as_it_looks_far_enough(k, expected):
    """Length 5 and a way out of 0.1 need k = 2; with k = 1 leaving looks better."""
    env = Lock(length=5, way_out=0.1, horizon=6)

    @jax.jit
    def plan(key):
        plan = eh.gorp(env, env.default_params(), key, horizon=6, k=k, runs=60)
        return plan.rewards.sum(), plan.returns

    earned, means = plan(fastrl.key(1))
    assert math.isclose(float(earned), expected, abs_tol=1e-6)
    q = eh.random_values(eh.of(env))
    q = q if k == 1 else eh.deeper(eh.of(env), q)
    best = np.asarray(means[0]).reshape(2, -1).max(-1)  # by first action
    np.testing.assert_allclose(best, q[0, 0], atol=0.15)


def test_gorp_refuses_what_would_take_for_ever():
    env = Lock()
    with pytest.raises(ValueError, match="more than 10,000"):
        eh.gorp(env, env.default_params(), fastrl.key(0), horizon=3, k=14)
    pendulum = fastrl.make("Pendulum-v1")
    with pytest.raises(ValueError, match="Discrete"):
        eh.gorp(pendulum, pendulum.default_params(), fastrl.key(0), horizon=3)


def test_play_follows_the_tables():
    """Next states of 4,000 steps against their probabilities (chi squared), and their rewards."""
    env = RandomMDP(branching=3, seed=2)
    params = env.default_params()
    at = State(jnp.int32(3), jnp.int32(0))
    step = jax.jit(jax.vmap(lambda key: env.step(key, at, jnp.int32(1), params)))
    state, seen = step(jax.random.split(fastrl.key(0), 4000))
    counts = np.bincount(np.asarray(state.state), minlength=8)
    expected = 4000 * env.tables()[0][3, 1]
    assert (counts[expected == 0] == 0).all()
    possible = expected > 0
    assert stats.chisquare(counts[possible], expected[possible], sum_check=False).pvalue > 1e-3
    np.testing.assert_allclose(seen.reward, env.tables()[1][3, 1], rtol=1e-6)


def test_tabular_tasks_say_what_is_wrong():
    with pytest.raises(ValueError, match=r"slip=1\.0"):
        Lock(slip=1.0)
    with pytest.raises(ValueError, match="horizon=3 is below length=5"):
        Lock(horizon=3)
    env = Lock()
    with pytest.raises(ValueError, match=r"params\.rewards has shape \(3, 2\)"):
        env.step(fastrl.key(0), env.reset(fastrl.key(0), env.default_params())[0], jnp.int32(0),
                 env.default_params()._replace(rewards=np.zeros((3, 2))))  # fmt: skip
