"""SubPO and the coverage tasks: set functions, their gains, and the gradient that follows them."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastrl
from fastrl import subpo
from fastrl.algorithms.trajectories import Played
from fastrl.envs.coverage import Coverage, InformativePath
from fastrl.envs.coverage.walk import MOVES
from fastrl.kernels import prng

TASKS = [
    Coverage(rows=3, columns=4, horizon=6, radius=1),
    InformativePath(rows=3, columns=4, horizon=6),
]


def value(env, cells):
    """F of a set of cells in float64, from its definition."""
    weights = np.asarray(env.default_params().weights, np.float64)
    cells = sorted(set(cells))
    if isinstance(env, Coverage):
        return weights[env.reach()[cells].any(0)].sum() if cells else 0.0
    places = env.places()[cells].astype(np.float64)
    squares = ((places[:, None] - places[None]) ** 2).sum(-1)
    covariance = np.outer(weights[cells], weights[cells]) * np.exp(
        -0.5 * squares / env.length_scale**2
    )
    return 0.5 * np.linalg.slogdet(np.eye(len(cells)) + covariance / env.noise)[1]


def walk(env, actions):
    """The cells and the steps of a walk."""
    params, step = env.default_params(), jax.jit(env.step)
    state, _ = env.reset(prng.key(0), params)
    cells, seen = [int(state.cell)], []
    for action in actions:
        state, one = step(prng.key(1), state, jnp.int32(action), params)
        cells.append(int(state.cell))
        seen.append(one)
    return cells, seen


@pytest.mark.parametrize("env", TASKS, ids=lambda e: type(e).__name__)
def test_gains_telescope_to_the_set_function(env):
    """Each gain is F of the set with the cell less F of it without; their sum is F of all."""
    for seed in range(3):
        actions = np.random.RandomState(seed).randint(len(MOVES), size=env.horizon)
        cells, seen = walk(env, actions)
        for i, step in enumerate(seen):
            gain = value(env, cells[: i + 2]) - value(env, cells[: i + 1])
            np.testing.assert_allclose(step.reward, gain, atol=2e-5)
        total = value(env, cells) - value(env, cells[:1])
        np.testing.assert_allclose(sum(float(s.reward) for s in seen), total, atol=5e-5)
        np.testing.assert_allclose(
            env.value(cells, env.default_params()), value(env, cells), atol=5e-5
        )
        assert bool(seen[-1].terminated)
        assert not any(bool(s.terminated) for s in seen[:-1])


@pytest.mark.parametrize("env", TASKS, ids=lambda e: type(e).__name__)
def test_the_set_functions_are_monotone_and_submodular(env):
    """Else the greedy constant means nothing: what a cell adds must shrink and stay above 0."""
    draw = np.random.RandomState(0)
    for _ in range(40):
        large = draw.choice(env.cells, 5, replace=False)
        small, cell = large[:2], draw.randint(env.cells)
        to_small = value(env, [*small, cell]) - value(env, small)
        to_large = value(env, [*large, cell]) - value(env, large)
        assert to_small >= to_large - 1e-12
        assert to_large >= -1e-12


def test_an_additive_task_pays_each_cell_as_if_it_were_the_first():
    env = Coverage(rows=3, columns=4, horizon=6, additive=True)
    cells, seen = walk(env, [4, 4, 2])
    for cell, step in zip(cells[1:], seen, strict=True):
        np.testing.assert_allclose(step.reward, value(env, [cell]), atol=1e-6)
    assert float(seen[0].metrics["gain"]) == 0.0  # it stayed
    assert float(seen[2].metrics["gain"]) > 0.0


def test_a_walker_with_history_sees_where_it_was():
    env = Coverage(rows=2, columns=2, horizon=3, history=True, start=0)
    _, seen = walk(env, [0, 3, 4])
    np.testing.assert_array_equal(seen[1].observation.visited, [True, True, False, True])
    np.testing.assert_array_equal(seen[1].observation.place, [3, 2])


def test_advantages_by_hand():
    """Gains from each step on, less the mean of the other trajectories', nothing after an end."""
    reward = np.array([[1.0, 2.0, 0.0], [3.0, 1.0, 5.0], [0.0, 4.0, 0.0]], np.float32)
    alive = np.array([[1, 1, 1], [1, 1, 1], [0, 1, 0]], np.float32)
    played = Played((), (), jnp.asarray(reward), jnp.asarray(alive))
    got = subpo.advantages(played, 0.5, True)
    gained = [[2.5, 2 + 0.5 + 1.0, 2.5], [1.5, 1.5, 2.5], [0.0, 1.0, 0.0]]
    others = [[3.0, 2.5, 3.0], [2.0, 2.0, 1.5], [0.5, 0.0, 0.5]]
    np.testing.assert_allclose(got, (np.array(gained) - np.array(others)) * alive, atol=1e-6)


def test_an_update_equals_one_by_hand():
    """A linear softmax policy, one step of Adam: the sign of it is that of the gradient."""
    env = Coverage(rows=2, columns=2, horizon=2, start=0, radius=0)
    algorithm = subpo.make(env, subpo.Config(num_trajectories=6, horizon=2, hidden_sizes=()))
    hparams, task = subpo.HParams(learning_rate=0.1), env.default_params()
    state = jax.jit(algorithm.init)(prng.key(1), hparams, task)
    after, _ = jax.jit(algorithm.step)(state, hparams, task)
    parts = algorithm.step.args[0]  # type: ignore[attr-defined]
    played, _, _ = jax.jit(lambda key, params: subpo.trajectories.play(
        parts.vec_env, parts.network, parts.action_space, 2, key, params, (), task
    ))(jax.random.split(state.key)[1], state.params)  # fmt: skip
    head = jax.tree.map(lambda x: np.asarray(x, np.float64), state.params["params"]["actor_head"])
    place = np.asarray(played.observation)
    x = np.concatenate([np.eye(4)[place[..., 0]], np.eye(3)[place[..., 1]]], -1)
    logits = x @ head["kernel"] + head["bias"]
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    reward = np.asarray(played.reward, np.float64)
    gained = np.cumsum(reward[::-1], 0)[::-1]
    weight = gained - (gained.sum(1, keepdims=True) - gained) / 5
    d_logits = weight[..., None] * (np.eye(5)[np.asarray(played.action)] - p) / 6
    gradient = np.einsum("tnf,tna->fa", x, d_logits)
    moved = np.asarray(after.params["params"]["actor_head"]["kernel"]) - head["kernel"]
    clear = np.abs(gradient) > 1e-4
    assert clear.sum() > 5
    np.testing.assert_allclose(moved[clear], 0.1 * np.sign(gradient[clear]), atol=0.02)
    assert (np.abs(moved[gradient == 0]) < 1e-7).all()


def best_walk(env):
    """The best return of all walks, by trying them."""
    start = value(env, [walk(env, [])[0][0]])
    places = {tuple(p): i for i, p in enumerate(env.places().tolist())}
    best = 0.0
    first = env.places()[walk(env, [])[0][0]]
    for actions in itertools.product(range(4), repeat=env.horizon):
        at, cells = np.array(first), [places[tuple(first)]]
        for action in actions:
            at = np.clip(at + MOVES[action], 0, [env.rows - 1, env.columns - 1])
            cells.append(places[tuple(at.tolist())])
        best = max(best, value(env, cells) - start)
    return best


@pytest.mark.slow
def test_it_learns_a_walk_above_the_greedy_constant():
    """On a grid whose walks can all be tried: 1 - 1/e of the best return, and more."""
    env = Coverage(rows=4, columns=4, horizon=5, radius=0, start=5)
    algorithm = subpo.make(env, subpo.Config(num_trajectories=32, horizon=5, hidden_sizes=()))
    program = jax.jit(fastrl.run(algorithm, 150 * algorithm.steps_per_iteration))
    state, metrics = program(
        jax.random.key(0), subpo.HParams(learning_rate=0.1), env.default_params()
    )
    earned = fastrl.evaluate(algorithm, state, episodes=1).mean_return
    assert earned > (1 - 1 / np.e) * best_walk(env)
    returns = np.asarray(metrics["episode_return"].total / metrics["episode_return"].weight)
    assert returns[-1] > returns[0] + 0.3


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Coverage(start=49), "start=49"),
        (lambda: Coverage(radius=-1), "radius=-1"),
        (lambda: InformativePath(noise=0.0), "noise=0"),
        (lambda: subpo.Config(num_trajectories=1), "num_trajectories=1"),
    ],
)
def test_bad_values_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_weights_of_another_grid_and_moves_that_are_none_are_refused():
    env, other = TASKS[0], Coverage(rows=2, columns=2)
    with pytest.raises(ValueError, match=r"params\.weights has shape \(4,\)"):
        env.reset(prng.key(0), other.default_params())
    state, _ = env.reset(prng.key(0), env.default_params())
    with pytest.raises(ValueError, match="action=5"):
        env.step(prng.key(0), state, 5, env.default_params())
