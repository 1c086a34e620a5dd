"""Meta-gradients: against finite differences on recorded rollouts; lives that come and go."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import Walk

import fastrl
from fastrl.hparams import as_arrays
from fastrl.meta import (
    evolution_lives,
    lpg,
    lpg_agent,
    lpg_optimizer,
    meta_gradient,
    meta_gradient_inner,
    meta_gradient_outer,
)
from fastrl.meta.meta_gradient_critic import Numbers, critic
from fastrl.meta.meta_gradient_inner import Advanced, View
from fastrl.meta.meta_gradient_lives import KEPT, Life, Lives
from fastrl.spaces import Discrete
from fastrl.types import Transition

T, N = 5, 3
RULE = lpg.LPG(hidden_size=4, embedding_size=3, num_bins=3)
AGENT = lpg_agent.agent(Walk(), lpg_agent.Config(N, T), objective=RULE)
CRITIC = critic(Discrete(4), (), "relu", "sgd")


class Record(NamedTuple):
    """What a life sees, whatever it does."""

    rollouts: Transition  # [K, T, N]
    evaluation: Transition  # [T, N]


def record(num: int) -> Record:
    """`num` rollouts and one to evaluate on, in float64."""
    draw = np.random.RandomState(0)
    shape = (num + 1, T, N)
    place, after = (jnp.asarray(draw.randint(4, size=shape), jnp.int32) for _ in range(2))
    action = jnp.asarray(draw.randint(2, size=shape), jnp.int32)
    ends = draw.rand(*shape) < 0.2
    cuts = (draw.rand(*shape) < 0.2) & ~ends
    all_ = Transition(place, action, jnp.asarray(draw.randn(*shape)), jnp.asarray(ends),
                      jnp.asarray(cuts), after)  # fmt: skip
    rollouts = jax.tree.map(lambda x: x[:num], all_)
    return Record(rollouts, jax.tree.map(lambda x: x[num], all_))


def numbers(**changes: Any) -> meta_gradient.HParams:
    inner = lpg_agent.HParams(learning_rate=5.0, head_learning_rate=5.0, max_grad_norm=0.2)
    return meta_gradient.HParams(
        inner=inner, critic_learning_rate=0.5, policy_entropy=0.1, prediction_entropy=0.1,
        policy_target=0.1, prediction_target=0.1,
    )._replace(**changes)  # fmt: skip


PLAIN = {"policy_entropy": 0.0, "prediction_entropy": 0.0, "policy_target": 0.0,
         "prediction_target": 0.0}  # fmt: skip


@functools.cache
def differentiated(window: int) -> Any:
    """(eta, lives, record, hparams) -> ((loss, lives), gradient), jitted, in float64."""
    return jax.jit(jax.value_and_grad(of_window(window), has_aux=True))


def of_window(window: int) -> Any:
    """(eta, lives, record, hparams) -> (loss, lives)."""

    def loss(eta: Any, lives: Lives, record: Record, hparams: Any) -> Any:
        def advance(state: Any, hparams: Any, task: Any) -> Advanced:
            seen = jax.tree.map(lambda x: x[state.iteration], record.rollouts)
            return_, terms, metrics = AGENT.update(state, seen, hparams)
            return Advanced(return_, seen, terms, metrics)

        def collect(key: Any, state: Any, task: Any) -> Any:
            return state, record.evaluation, {}

        view = View(advance, collect, AGENT.policy, N * T)
        life = Life(AGENT.algorithm, view, CRITIC, evolution_lives.install,
                    lambda key: jnp.int32(0), window,
                    KEPT["activations"])  # fmt: skip
        value, (lives, _) = life.loss(eta, lives, hparams)
        return value, lives

    return loss


def started(seed: int = 0, age: int = 0) -> tuple[Any, Lives]:
    """An eta and one life at its start, in float64."""
    keys = jax.random.split(jax.random.key(seed, impl="threefry2x32"), 4)
    double = lambda tree: jax.tree.map(lambda x: x.astype(jnp.float64), tree)  # noqa: E731
    eta = jax.tree.map(lambda x: x + 0.1, double(RULE.init(keys[0])))
    shapes = {"policy": (4, 2), "prediction": (4, RULE.num_bins)}
    params = {n: [jax.random.normal(keys[1], s, jnp.float64)] for n, s in shapes.items()}
    nothing: Any = ()
    optimizer = dict.fromkeys(params, nothing)
    state = lpg_agent.State(keys[2], params, optimizer, nothing, nothing, jnp.int32(0))
    lives = Lives(keys[3], state, double(CRITIC.init(keys[2])), (), jnp.int32(8), jnp.int32(age),
                  jnp.int32(8))  # fmt: skip
    return eta, lives


def along(gradient: Any, direction: Any) -> float:
    pairs = zip(jax.tree.leaves(gradient), jax.tree.leaves(direction), strict=True)
    return float(sum((g * d).sum() for g, d in pairs))


@pytest.mark.slow
def test_against_finite_differences():
    """A stopped gradient, a path that is missing from the hand-written backward pass, a
    regulariser with the wrong sign: every leaf of eta, through two updates and the critic."""
    with jax.enable_x64(True):
        eta, lives = started()
        seen, hparams = record(2), numbers()
        (_, after), gradient = differentiated(2)(eta, lives, seen, hparams)
        assert int(after.state.iteration) == 2
        leaves, structure = jax.tree.flatten(eta)
        draw = np.random.RandomState(1)
        for i, leaf in enumerate(leaves):
            v = jnp.asarray(draw.randn(*leaf.shape))
            ahead, behind = (
                differentiated(2)(
                    jax.tree.unflatten(structure, [*leaves[:i], leaf + s * v, *leaves[i + 1 :]]),
                    lives, seen, hparams,
                )[0][0] for s in (1e-5, -1e-5)
            )  # fmt: skip
            difference = float(ahead - behind) / 2e-5
            got = float((jax.tree.leaves(gradient)[i] * v).sum())
            np.testing.assert_allclose(got, difference, rtol=1e-5, atol=1e-10)


def test_predictions_matter_from_the_second_update_on():
    """Targets evaluated inside the inner loss, with stopped inputs: no bootstrapping is found."""
    with jax.enable_x64(True):
        eta, lives = started()
        hparams = numbers(**PLAIN)
        one, two = (differentiated(k)(eta, lives, record(k), hparams)[1] for k in (1, 2))
        for leaf in jax.tree.leaves(one.prediction):
            np.testing.assert_array_equal(leaf, 0.0)
        assert all(np.abs(leaf).max() > 1e-9 for leaf in jax.tree.leaves(two.prediction))
        assert np.abs(one.policy.weights).max() > 1e-6


@pytest.mark.slow
def test_gradients_end_where_the_window_begins():
    """A state that carries its history's gradient, or windows that are one long one."""
    with jax.enable_x64(True):
        eta, lives = started()
        hparams, seen = numbers(**PLAIN), record(2)
        (_, between), _ = differentiated(1)(eta, lives, seen, hparams)
        (loss, _), second = differentiated(1)(eta, between, seen, hparams)
        (whole_loss, _), whole = differentiated(2)(eta, lives, seen, hparams)

        loss_of = of_window(1)

        def entered(eta: Any) -> Any:  # the entering state as a function of eta
            return loss_of(eta, loss_of(eta, lives, seen, hparams)[1], seen, hparams)[0]

        gradient = jax.jit(jax.grad(entered))(eta)
        for a, b in zip(*map(jax.tree.leaves, (gradient, second)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-13)
        gap = np.abs(second.policy.weights - whole.policy.weights).max()
        assert gap > 1e-3 * np.abs(whole.policy.weights).max()
        assert np.isfinite([loss, whole_loss]).all()


@pytest.mark.slow
def test_workers_have_no_order():
    """A mean that weighs workers, or targets that leak from one to another."""
    with jax.enable_x64(True):
        eta, lives = started()
        seen, order = record(2), jnp.array([2, 0, 1])
        mixed = Record(*(jax.tree.map(lambda x: x[..., order], part) for part in seen))
        got, wanted = (differentiated(2)(eta, lives, r, numbers())[1] for r in (mixed, seen))
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-13)


def test_an_agent_that_has_had_its_updates_stays():
    """Updates beyond the lifetime, or an age beyond it."""
    with jax.enable_x64(True):
        eta, lives = started(age=7)  # one update is left of 8
        (_, once), _ = differentiated(2)(eta, lives, record(2), numbers())
        assert (int(once.age), int(once.state.iteration)) == (8, 1)
        (_, after), gradient = differentiated(2)(eta, once, record(2), numbers(**PLAIN))
        assert (int(after.age), int(after.state.iteration)) == (8, 1)
        for a, b in zip(
            *map(jax.tree.leaves, (after.state.params, once.state.params)), strict=True
        ):
            np.testing.assert_array_equal(a, b)
        assert along(gradient, jax.tree.map(jnp.ones_like, eta)) == 0.0


@functools.cache
def outer(**changes: Any) -> Any:
    """A meta-learner on Walk, tiny, and its jitted step."""
    inner = lpg_agent.make(Walk(), lpg_agent.Config(4, 8), objective=RULE)
    settings: dict[str, Any] = {"num_lives": 4, "chunk": 1, "window": 2} | changes
    algorithm = meta_gradient.make(inner, RULE.init, meta_gradient.Config(**settings))
    return algorithm, jax.jit(algorithm.step)


HPARAMS = as_arrays(
    meta_gradient.HParams(
        learning_rate=1e-2, critic_learning_rate=1.0,
        inner=lpg_agent.HParams(learning_rate=4.0, head_learning_rate=4.0),
    )
)  # fmt: skip


@functools.cache
def after(steps: int, **changes: Any) -> tuple[Any, list[Any]]:
    """The state after some meta-updates, and all metrics."""
    algorithm, step = outer(**changes)
    state = jax.jit(algorithm.init)(fastrl.key(0), HPARAMS, ())
    metrics = []
    for _ in range(steps):
        state, new = step(state, HPARAMS, ())
        metrics.append(new)
    return state, metrics


def value(metric: Any) -> float:
    return float(metric.total / metric.weight)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes", [pytest.param({"chunk": 4}, marks=pytest.mark.full), {"chunk": 1, "devices": 2}]
)
def test_chunks_and_devices_change_nothing(changes):
    """Random numbers that depend on the chunk, or a mean of means."""
    (one, first), (other, second) = after(3), after(3, **changes)
    for a, b in zip(jax.tree.leaves(one.eta), jax.tree.leaves(other.eta), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    for name in first[-1]:
        np.testing.assert_allclose(
            value(first[-1][name]), value(second[-1][name]), rtol=1e-3, atol=1e-5
        )


@pytest.mark.slow
def test_lives_end_and_critics_learn():
    """Agents that are never replaced or always; a value function that stays as it was."""
    algorithm, step = outer()
    start = jax.jit(algorithm.init)(fastrl.key(0), HPARAMS, ())
    first, second, third = (after(n)[0].lives for n in (1, 2, 3))
    assert (first.age == 2).all()  # of 4 updates
    assert (second.age == 4).all()
    assert (third.age == 2).all()
    assert value(after(3)[1][-1]["ended"]) == 4
    ages = jax.tree.map(np.asarray, (first.state.iteration, third.state.iteration))
    np.testing.assert_array_equal(ages, [[2] * 4, [2] * 4])
    for before, now in ((start.lives, first), (first, second)):
        moved = np.abs(now.critic.params[0] - before.critic.params[0]).max((1, 2))
        assert (moved > 0).all()
    assert (second.task.prize == first.task.prize).all()
    assert (third.task.prize != first.task.prize).any()
    assert value(after(2)[1][-1]["final_return"]) != 0.0
    assert np.isnan(value(after(2)[1][0]["final_return"]))  # none ended
    assert step._cache_size() == 1


@pytest.mark.slow
def test_a_life_that_diverges_is_left_out_and_replaced():
    """One NaN that poisons what is learned for all."""
    _, step = outer()
    healthy, _ = after(1)

    def poisoned(name: str, number: float) -> Any:
        tables = healthy.lives.state.params
        bad = {name: [tables[name][0].at[2].set(number)]}
        state = healthy.lives.state._replace(params=tables | bad)
        return step(healthy._replace(lives=healthy.lives._replace(state=state)), HPARAMS, ())

    (one, metrics), (other, _) = poisoned("policy", jnp.nan), poisoned("prediction", jnp.inf)
    assert value(metrics["diverged"]) == 1
    assert np.isfinite([value(m) for m in metrics.values()]).all()
    expected, _ = step(healthy, HPARAMS, ())
    for a, b, c in zip(*(jax.tree.leaves(s.eta) for s in (one, other, expected)), strict=True):
        np.testing.assert_array_equal(a, b)
        assert np.isfinite(a).all()
        assert (np.asarray(a) != np.asarray(c)).any()
    following, metrics = step(one, HPARAMS, ())
    assert value(metrics["diverged"]) == 0
    assert following.lives.age.tolist() == [2, 2, 2, 2]
    assert np.isfinite(following.lives.state.params["policy"][0]).all()


def test_staggered_ends():
    """All lives that end together, an end of 0, or one beyond the lifetime."""
    ends = meta_gradient_outer._staggered(jnp.full(4, 20, jnp.int32), 5)
    assert ends.tolist() == [5, 10, 15, 20]
    ends = meta_gradient_outer._staggered(jnp.array([3, 7, 50], jnp.int32), 5)
    assert ends.tolist() == [3, 7, 50]


@pytest.mark.slow
def test_the_critic_predicts():
    """Errors with the wrong sign: the loss on a fixed rollout grows."""
    seen = jax.tree.map(lambda x: x[0], record(1).rollouts)
    seen = seen._replace(reward=jnp.asarray(seen.reward, jnp.float32))
    settings = Numbers(0.9, 0.0, 1.0, 10.0)
    state, errors = CRITIC.init(fastrl.key(0)), []
    learn = jax.jit(CRITIC.learn)
    for _ in range(40):
        state, _, error = learn(state, seen, settings)
        errors.append(float(error))
    assert errors[-1] < errors[0]


@pytest.mark.slow
def test_a_resumed_run_is_the_whole(tmp_path):
    """State that is not saved."""
    algorithm, _ = outer()
    steps = algorithm.steps_per_iteration
    options: dict[str, Any] = {"progress": False, "log_every": 2 * steps}
    task = Walk().default_params()
    fastrl.train(algorithm, HPARAMS, task, steps=2 * steps, seed=0, run_dir=tmp_path,
                 checkpoint_every=2 * steps, **options)  # fmt: skip
    resumed = fastrl.train(algorithm, None, task, steps=4 * steps, resume=True, run_dir=tmp_path,
                           progress=False)  # fmt: skip
    whole = fastrl.train(algorithm, HPARAMS, task, steps=4 * steps, seed=0, **options)
    for a, b in zip(jax.tree.leaves(resumed), jax.tree.leaves(whole), strict=True):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
@pytest.mark.full
def test_an_inner_learner_that_knows_nothing():
    """A view that only fits agents that learn by rules."""
    from fastrl import ppo
    from fastrl.meta import lpo

    rule = lpo.LPO(hidden_size=4)
    config = ppo.Config(8, 16, num_epochs=3, num_minibatches=1, hidden_sizes=(8,))
    inner = ppo.make(fastrl.make("CartPole-v1"), config, objective=rule)
    learner = meta_gradient.make(
        inner, rule.init, meta_gradient.Config(2, window=2, lifetime=4, keep="nothing"),
        view=meta_gradient_inner.of_actor_critic,
    )  # fmt: skip
    own = ppo.HParams(learning_rate=0.1)  # so that ratios leave the flat part of the drift
    hparams = as_arrays(learner.default_hparams._replace(learning_rate=0.1, inner=own))
    state = jax.jit(learner.init)(fastrl.key(0), hparams, None)
    moved, metrics = jax.jit(learner.step)(state, hparams, None)
    assert value(metrics["diverged"]) == 0
    assert value(metrics["grad_norm"]) > 0
    assert lpg_optimizer.norm(jax.tree.map(jnp.subtract, moved.eta, state.eta)) > 0
    with pytest.raises(ValueError, match="of_actor_critic"):
        meta_gradient.make(inner, rule.init, meta_gradient.Config(2, lifetime=4))


def test_bad_settings():
    """Chunks that leave lives over."""
    with pytest.raises(ValueError, match="num_lives=6 is not divisible"):
        meta_gradient.Config(num_lives=6, chunk=4)
    with pytest.raises(ValueError, match="unknown keep 'all'"):
        meta_gradient.Config(keep="all")  # type: ignore[arg-type]
    inner = lpg_agent.make(fastrl.make("CartPole-v1"), objective=RULE)
    with pytest.raises(ValueError, match="sample_lifetime"):
        meta_gradient.make(inner, RULE.init)
