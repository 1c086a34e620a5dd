"""Hand-written objectives: golden values, identities, and that PPO takes all of them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastrl
from fastrl import objectives, ppo
from fastrl.objectives import At, Inputs

ALL = ("clip", "a2c", "awr", "policy_gradient", "dpo", "spo")
HPARAMS = ppo.HParams()


def at(ratio, advantage) -> At:
    advantage = jnp.asarray(advantage, jnp.float32)
    return At(jnp.log(jnp.asarray(ratio, jnp.float32)), advantage, jnp.float32(0))


def inputs(ratio, advantage) -> Inputs:
    """Samples whose behaviour policy took the action with probability 1/4."""
    behaviour = jnp.full(np.shape(ratio), jnp.log(0.25))
    log_prob = behaviour + jnp.log(jnp.asarray(ratio, jnp.float32))
    nothing = jnp.zeros(np.shape(ratio))
    flags = jnp.zeros(np.shape(ratio), bool)
    advantage = jnp.asarray(advantage, jnp.float32)
    return Inputs(log_prob, behaviour, advantage, nothing, nothing, flags, flags, jnp.float32(0))


def random_samples(number: int = 1_000) -> Inputs:
    rng = np.random.default_rng(0)
    return inputs(np.exp(rng.normal(0, 0.5, number)), rng.normal(0, 1.5, number))


def test_dpo_has_the_golden_values():
    """Another alpha or beta, the branches swapped, or r - 1 where log r belongs."""
    golden = [
        (1, 1, 0), (1.5, 1, 0.010163), (3, 2, 2.071945), (0.5, 2, 0), (0.5, -1, 0.201457),
        (0.2, -2, 2.618902), (2, -1, 0),
    ]  # fmt: skip
    ratio, advantage, drift = np.array(golden).T
    ours = objectives.dpo_drift((), at(ratio, advantage), HPARAMS)
    np.testing.assert_allclose(ours, drift, atol=1e-6)


def test_numbers_of_an_objective_are_traced():
    """Constants of DPO and AWR that another `hparams.objective` does not reach."""
    here = at([3.0, 0.2], [2.0, -2.0])
    wide = objectives.dpo_drift(objectives.Dpo(alpha=1e3, beta=1e3), here, HPARAMS)
    np.testing.assert_allclose(wide, 0.0, atol=1e-4)  # x - a tanh(x / a) vanishes for large a
    one = inputs([1.0], [1.0])
    cold, _ = objectives.awr(objectives.Awr(temperature=0.5, max_weight=5.0), one, HPARAMS)
    warm, _ = objectives.awr((), one, HPARAMS)
    np.testing.assert_allclose(cold / warm, 5.0 / np.e, rtol=1e-5)  # exp(2) is clipped to 5


def test_ppos_drift_is_its_clip():
    """r A - relu((r - clip(r)) A) = min(r A, clip(r) A), in value and in gradient."""
    mirrored = objectives.Mirror(objectives.clip_drift)
    for ratio, advantage, value in ((1.5, 1.0, 1.2), (0.5, -1.0, -0.8)):
        loss, _ = mirrored((), inputs([ratio], [advantage]), HPARAMS)
        np.testing.assert_allclose(-loss[0], value, rtol=1e-6)
    samples = random_samples()

    def total(log_prob, objective):
        return objective((), samples._replace(log_prob=log_prob), HPARAMS)[0].sum()

    for f in (total, jax.grad(total)):
        ours, theirs = f(samples.log_prob, mirrored), f(samples.log_prob, objectives.clip)
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_spo_is_best_at_the_edge_of_the_clip_range():
    """|A| in the place of A, or a factor of two: the best ratio would be elsewhere."""
    ratio = jnp.linspace(0.5, 1.5, 2_001)
    for advantage, best in ((2.0, 1.2), (-0.3, 0.8)):
        loss, _ = objectives.spo((), inputs(ratio, jnp.full(ratio.shape, advantage)), HPARAMS)
        np.testing.assert_allclose(ratio[loss.argmin()], best, atol=1e-3)


def test_awr_weighs_by_the_exponential_of_the_advantage():
    """float64 NumPy; an advantage whose exponential overflows must only reach the limit."""
    samples = inputs([0.5, 1.0, 2.0, 1.0], [-2.0, 0.5, 2.0, 500.0])
    loss, metrics = objectives.awr((), samples, HPARAMS)
    weight = np.minimum(np.exp(np.array([-2.0, 0.5, 2.0, 500.0])), 20.0)
    np.testing.assert_allclose(metrics["weight"], weight, rtol=1e-5)
    np.testing.assert_allclose(loss, -np.asarray(samples.log_prob, np.float64) * weight, rtol=1e-5)


@pytest.mark.parametrize("name", ["clip", "policy_gradient", "dpo", "spo"])
def test_at_the_old_policy_all_are_the_policy_gradient(name):
    """A drift that is not flat at r = 1 turns the first step away from improvement."""
    advantage = jnp.array([-2.0, -0.1, 0.3, 3.0])
    samples = inputs(jnp.ones(4), advantage)

    def total(log_prob, objective):
        return objective((), samples._replace(log_prob=log_prob), HPARAMS)[0].sum()

    ours = jax.grad(total)(samples.log_prob, getattr(objectives, name))
    np.testing.assert_allclose(ours, jax.grad(total)(samples.log_prob, objectives.a2c), rtol=1e-5)
    np.testing.assert_allclose(ours, -advantage, rtol=1e-5)


@pytest.mark.parametrize("name", ["dpo_drift", "spo_drift", "clip_drift"])
def test_drifts_are_those_of_mirror_learning(name):
    """Nowhere negative and 0 at the old policy, for advantages of either sign."""
    samples = random_samples()
    log_ratio = samples.log_prob - samples.behaviour_log_prob
    drift = functools.partial(getattr(objectives, name), ())
    everywhere = drift(At(log_ratio, samples.advantage, jnp.float32(0)), HPARAMS)
    assert float(everywhere.min()) >= 0.0
    assert float(everywhere.max()) > 0.1
    still = drift(At(jnp.zeros_like(log_ratio), samples.advantage, jnp.float32(0)), HPARAMS)
    np.testing.assert_array_equal(still, 0.0)


@pytest.mark.parametrize("name", ALL)
def test_ppo_takes_it(name):
    """A shape, type or metric that the learner does not take; nothing is compiled here."""
    config = ppo.Config(num_envs=8, num_steps=8, num_minibatches=2, hidden_sizes=(4,))
    algorithm = ppo.make(fastrl.make("CartPole-v1"), config, objective=getattr(objectives, name))
    task = algorithm.env.default_params()
    run = fastrl.run(algorithm, 2 * algorithm.steps_per_iteration)
    state, metrics = jax.eval_shape(run, fastrl.key(0), ppo.HParams(), task)
    assert metrics["policy_loss"].total.shape == (2,)
    assert state.iteration.shape == ()


def test_equal_drifts_make_one_algorithm():
    """An objective that is another one each time compiles each time."""
    env = fastrl.make("CartPole-v1")
    again = objectives.Mirror(objectives.dpo_drift)
    assert ppo.make(env, objective=again) is ppo.make(env, objective=objectives.dpo)
