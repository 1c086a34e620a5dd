"""SQIRL: its Q-functions against dynamic programming, what it solves with which k, probes."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastrl
from fastrl import effective_horizon as eh
from fastrl import sqirl
from fastrl.envs.tabular import Lock, RandomMDP
from fastrl.kernels import prng


def table(env, state):
    """Q^1 .. Q^k as `[k, T, S, A]`; NaN where nothing was met."""
    q = np.asarray(state.params, np.float64).reshape(env.states, env.horizon + 1, -1, env.actions)
    q = np.where(q < -1e8, np.nan, q)
    return q.transpose(2, 1, 0, 3)[:, : env.horizon]


@functools.lru_cache
def learned(env, k, episodes, iterations):
    """The algorithm and its state after so many iterations."""
    config = sqirl.Config(
        k=k, num_episodes=episodes, horizon=env.horizon, hidden_sizes=(), regression="table"
    )
    algorithm = sqirl.make(env, config)
    hparams, task = sqirl.HParams(), env.default_params()
    if not iterations:
        return algorithm, jax.jit(algorithm.init)(prng.key(0), hparams, task)
    _, state = learned(env, k, episodes, iterations - 1)
    return algorithm, jax.jit(algorithm.step)(state, hparams, task)[0]


def test_the_first_fit_is_the_value_of_random_play_and_its_backups():
    """20,000 episodes against exact Q^1 .. Q^3: a return of the wrong step, or a wrong backup."""
    env = RandomMDP(states=3, actions=2, horizon=4, branching=2, sparsity=0.0, seed=3)
    _, state = learned(env, 3, 20_000, 1)
    q = eh.random_values(eh.of(env))
    for got in table(env, state):
        met = ~np.isnan(got)
        assert met.sum() > 16
        np.testing.assert_allclose(got[met], q[met], atol=0.015)
        q = eh.deeper(eh.of(env), q)


def test_as_deep_as_the_horizon_it_is_value_iteration():
    """Without chance nothing is left of random play: equal to Q* wherever it has been."""
    env = Lock(length=3, way_out=0.2, horizon=4)
    _, state = learned(env, 4, 512, 1)
    got, best = table(env, state)[-1], eh.optimal_values(eh.of(env))
    met = ~np.isnan(got)
    assert met.sum() >= 10
    np.testing.assert_allclose(got[met], best[met], atol=1e-6)


@pytest.mark.parametrize("k", [2, 3])
def test_it_solves_what_is_solvable_at_its_depth(k):
    """Length 4, slips and a way out of 0.2 need k = 3; below, it leaves at the door."""
    env = Lock(length=4, way_out=0.2, slip=0.1, horizon=8)
    analysis = eh.effective_horizon(eh.of(env))
    assert analysis.k == 3
    algorithm, state = learned(env, k, 512, 8)
    earned = fastrl.evaluate(algorithm, state, episodes=200).mean_return
    if k < 3:
        assert abs(earned - 0.2) < 1e-3
    else:
        assert earned > 0.9 * analysis.optimal_return


def test_policies_of_earlier_steps_are_frozen():
    """A later fit must not change what is done earlier, and after T iterations nothing changes."""
    env = Lock(length=4, way_out=0.2, slip=0.1, horizon=8)
    states = [learned(env, 3, 512, n)[1] for n in (3, 8, 10)]
    frozen = [np.asarray(s.frozen) for s in states]
    np.testing.assert_array_equal(frozen[0][:3], frozen[1][:3])
    np.testing.assert_array_equal(frozen[1], frozen[2])
    assert [int(s.iteration) for s in states] == [3, 8, 8]


def network(name, k=1, **options):
    config: dict[str, Any] = {
        "num_episodes": 64,
        "horizon": 4,
        "num_epochs": 40,
        "batch_size": 64,
    } | options
    env = fastrl.make(name)
    algorithm = sqirl.make(env, sqirl.Config(k=k, hidden_sizes=(16,), **config))
    hparams = sqirl.HParams(learning_rate=1e-2, gamma=0.5)
    steps = config["horizon"] * algorithm.steps_per_iteration
    program = jax.jit(fastrl.run(algorithm, steps))
    state, metrics = program(jax.random.key(0), hparams, env.default_params())
    return algorithm, state, metrics


def test_discount_and_policy():
    """A value of the second step that is not discounted, or of an end that is bootstrapped."""
    algorithm, state, _ = network("probe/Discount", k=2)
    assert algorithm.value is not None
    value = algorithm.value(state, jnp.array([[0.0], [1.0]]))
    np.testing.assert_allclose(value, [0.5, 1.0], atol=0.03)
    algorithm, state, _ = network("probe/PolicyFromObservation")
    assert fastrl.evaluate(algorithm, state, episodes=50).mean_return == 1.0


@pytest.mark.slow
def test_a_time_limit_is_no_end():
    """Reward 1 for ever, cut off: worth 2, not the truncated sums, of which the mean is 1.8."""
    algorithm, state, _ = network("probe/TimeLimit", horizon=10)
    assert algorithm.value is not None
    assert abs(float(algorithm.value(state, jnp.zeros(1))) - 2.0) < 0.05


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"k": 0}, "k=0"),
        ({"num_episodes": 3, "horizon": 5}, "15 is not divisible by batch_size=256"),
        ({"regression": "tree"}, "'tree'.*known: 'network', 'table'"),
    ],
)
def test_bad_configs_name_the_value(kwargs, words):
    with pytest.raises(ValueError, match=words):
        sqirl.Config(**kwargs)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="one Discrete action"):
        sqirl.make(fastrl.make("Pendulum-v1"), sqirl.Config(num_episodes=256))
    with pytest.raises(ValueError, match="regression='table' needs Discrete"):
        sqirl.make(fastrl.make("CartPole-v1"), sqirl.Config(regression="table"))
