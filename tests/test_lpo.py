"""LPO and TA-LPO: drifts by construction, whatever the weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_objectives

from fastrl import objectives, ppo
from fastrl.meta import lpo
from fastrl.objectives import At

RULES = [
    lpo.LPO(ppo_init=ppo_init, temporal=temporal)
    for ppo_init in (False, True)
    for temporal in (False, True)
]
HPARAMS = ppo.HParams()
SAMPLES = 10_000


def wild(rule: lpo.LPO, seed: int) -> lpo.Parameters:
    """Weights as no training would leave them."""
    keys = jax.random.split(jax.random.key(seed), 2)
    return lpo.Parameters(
        2.0 * jax.random.normal(keys[0], (rule.hidden_size, rule.num_features)),
        jax.random.normal(keys[1], (rule.hidden_size,)),
    )


def somewhere(progress: float) -> At:
    rng = np.random.default_rng(1)
    log_ratio, advantage = rng.normal(0, 0.7, SAMPLES), rng.normal(0, 2.0, SAMPLES)
    return At(jnp.float32(log_ratio), jnp.float32(advantage), jnp.float32(progress))


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_any_weights_make_a_drift(rule):
    """D >= 0, D = 0 at r = 1, and flat there: biases, a missing margin, features that are not 0."""
    for seed, progress in ((0, 0.0), (1, 0.4), (2, 1.0)):
        eta, at = wild(rule, seed), somewhere(progress)
        drift = rule.drift(eta, at, HPARAMS)
        assert float(drift.min()) >= 0.0
        assert float(jnp.mean(drift > 0.0)) > 0.2
        for step in (0.0, 1e-8, -1e-8):  # flat: 0 on both sides
            near = at._replace(log_ratio=jnp.full(SAMPLES, step))
            drift = rule.drift(eta, near, HPARAMS)
            np.testing.assert_array_equal(drift, 0.0)


def test_without_weights_it_is_ppo_or_the_plain_gradient():
    """The start of a meta-training is what it is said to be, up to the margin of 1e-4."""
    samples = test_objectives.random_samples(SAMPLES)
    for rule, reference in (
        (lpo.LPO(), objectives.clip),
        (lpo.LPO(ppo_init=False, temporal=True), objectives.policy_gradient),
    ):
        ours, _ = rule(rule.init(jax.random.key(0)), samples, HPARAMS)
        np.testing.assert_allclose(ours, reference((), samples, HPARAMS)[0], atol=1.01e-4)


def test_features_are_those_of_the_released_code():
    """Weights mean nothing with another order of inputs, or r - 1 in the place of 1 - r."""
    r, a = 1.7, -0.6
    u, v = np.log(r), 1 - r
    expected = [u, u**2, v, v**2, u * a, u**2 * a, v * a, v**2 * a]
    at = At(jnp.array([u]), jnp.array([a]), jnp.float32(0.25))
    np.testing.assert_allclose(lpo.features(at)[0], expected, rtol=1e-5)
    both = np.concatenate([expected, 0.25 * np.array(expected)])
    np.testing.assert_allclose(lpo.features(at, temporal=True)[0], both, rtol=1e-5)


def test_only_ta_lpo_sees_the_lifetime():
    """Progress that does not arrive, or goes on beyond the lifetime that was learned on."""
    for temporal in (False, True):
        rule = lpo.LPO(temporal=temporal)
        drifts = [rule.drift(wild(rule, 0), somewhere(p), HPARAMS) for p in (0.0, 0.5, 1.0, 7.0)]
        assert bool((drifts[0] == drifts[1]).all()) != temporal
        assert bool((drifts[1] == drifts[2]).all()) != temporal
        np.testing.assert_array_equal(drifts[2], drifts[3])


def test_gradients_reach_every_weight_and_are_finite():
    """A relu or mask that cuts the learner's or the meta-learner's gradient everywhere."""
    rule = lpo.LPO(hidden_size=8, temporal=True)
    samples = test_objectives.random_samples(200)._replace(progress=jnp.float32(0.5))

    def loss(eta, log_prob):
        return rule(eta, samples._replace(log_prob=log_prob), HPARAMS)[0].mean()

    by_eta, by_policy = jax.grad(loss, (0, 1))(wild(rule, 3), samples.log_prob)
    for leaf in (*by_eta, by_policy):
        assert bool(jnp.isfinite(leaf).all())
    assert all(bool((leaf != 0.0).all()) for leaf in by_eta)


@pytest.mark.parametrize("eta", [(), lpo.LPO(hidden_size=4).init(jax.random.key(0))])
def test_parameters_of_another_network_are_refused(eta):
    """Without a check NumPy's broadcasting would say something about dot_general."""
    with pytest.raises(ValueError, match=r"LPO.*needs lpo\.Parameters"):
        lpo.LPO().drift(eta, somewhere(0.0), HPARAMS)
