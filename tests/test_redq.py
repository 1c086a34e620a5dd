"""REDQ and DroQ: their updates against float64, the drawn critics, dropout, probes."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle_continuous as oracle
import pytest
from continuous_cases import (
    Probes,
    assert_close,
    batches,
    check_probes,
    compiled,
    updated,
)

import fastrl
from fastrl import ensembles, redq

HPARAMS = redq.HParams(
    learning_rate=0.02, critic_learning_rate=0.05, temperature_learning_rate=0.03, tau=0.3,
    temperature=0.4, target_entropy=-0.7, dropout_rate=0.0,
)  # fmt: skip


@pytest.mark.parametrize("layer_norm", [False, True])
def test_two_updates_equal_a_float64_oracle(layer_norm):
    """The least of the drawn targets, the mean in the policy's step, its delay; DroQ."""
    config = redq.Config(
        hidden_sizes=(3,), activation="tanh", num_critics=3, num_chosen=2, policy_delay=2,
        layer_norm=layer_norm, dropout=layer_norm,
    )  # fmt: skip
    learner, given = compiled(redq, config), batches()
    keys = [fastrl.key(i) for i in range(2)]
    start, end, errors = updated(learner, HPARAMS, given, keys)
    actor = oracle.numbers(start.policy.actor.variables["params"])
    critic = target = oracle.numbers(start.critic.variables["params"])
    norm = {"norm": "layer"} if layer_norm else {}
    values = lambda p, x, a: oracle.values(p, x, a, **norm)[0]  # noqa: E731
    optimizers = oracle.Adam(actor, 0.02), oracle.Adam(critic, 0.05)
    seen = set()
    for b, key, error in zip(given, keys, errors, strict=True):
        target_key, _, _ = jax.random.split(key, 3)
        choice_key, action_key, _ = jax.random.split(target_key, 3)
        chosen = np.asarray(jax.random.permutation(choice_key, 3)[:2])
        seen.add(tuple(chosen))
        action, log_p = sampled(actor, b["next_observation"], action_key)
        following = values(target, b["next_observation"], action)[chosen].min(0)
        y = b["reward"] + b["discount"] * (following - 0.4 * log_p)
        predicted = values(critic, b["observation"], b["unit"])
        np.testing.assert_allclose(error, np.abs(predicted - y).mean(0), rtol=2e-3)

        def loss(p, b=b, y=y):
            return oracle.critic_loss(values(p, b["observation"], b["unit"]), y, b["weight"])

        critic = optimizers[1].step(critic, oracle.gradient(loss, critic))
        target = oracle.follow(target, critic, 0.3)
    b, key = given[-1], jax.random.split(jax.random.split(keys[-1], 3)[2])[0]

    def policy_loss(p):
        action, log_p = sampled(p, b["observation"], key)
        return (0.4 * log_p - values(critic, b["observation"], action).mean(0)).mean()

    actor = optimizers[0].step(actor, oracle.gradient(policy_loss, actor))
    assert len(seen) == 2  # another pair each time
    assert_close(end.critic.variables["params"], critic)
    assert_close(end.target["params"], target)
    assert_close(end.policy.actor.variables["params"], actor)
    dropping = HPARAMS._replace(dropout_rate=0.5)
    _, _, dropped = updated(learner, dropping, given[:1], keys[:1])
    assert (np.abs(dropped[0] - errors[0]).max() > 1e-3) == layer_norm  # so it is heard


def sampled(params, x, key):
    noise = np.asarray(jax.random.normal(key, (6, 2)), np.float64)
    return oracle.squashed(oracle.forward(params, x)[0], noise)


def test_dropout_drops_its_share_and_keeps_the_mean():
    """A rate that is the share kept, or a scale that is missing."""
    h = jnp.ones((2, 500, 40))
    dropped = ensembles._dropped(fastrl.key(0), h, 0.2)
    assert float((dropped == 0).mean()) == pytest.approx(0.2, abs=0.01)
    assert float(dropped.mean()) == pytest.approx(1.0, abs=0.02)
    np.testing.assert_array_equal(ensembles._dropped(fastrl.key(0), h, 0.0), h)


def test_droq_is_a_config():
    assert redq.Config(num_critics=2, layer_norm=True, dropout=True) == redq.DROQ
    assert redq.DROQ.num_updates == redq.DROQ.policy_delay == 20


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"num_chosen": 11}, "num_chosen=11: there are only num_critics=10"),
        ({"num_critics": 0}, "num_critics=0"),
        ({"num_chosen": 0}, "num_chosen=0"),
        ({"dropout": 0.01}, "dropout=0.01"),
    ],
)
def test_bad_configs_name_the_value(fields, words):
    with pytest.raises(ValueError, match=words):
        redq.Config(**fields)


def test_a_dropout_rate_of_one_is_refused():
    """It would divide by 0."""
    algorithm = redq.make(Probes(), redq.Config(hidden_sizes=(3,)))
    with pytest.raises(ValueError, match=r"hparams.dropout_rate=1.0: must be"):
        algorithm.check(redq.HParams(dropout_rate=1.0))


@pytest.mark.slow
def test_probes():
    """Values, discount, policy in an odd box, and a time limit that is no end."""
    config = redq.Config(
        num_envs=8, num_steps=4, num_updates=16, policy_delay=4, batch_size=64, buffer_size=4096,
        learning_starts=200, hidden_sizes=(32,), num_critics=3, layer_norm=True, dropout=True,
        learn_temperature=False,
    )  # fmt: skip
    hparams = redq.HParams(
        learning_rate=3e-3, critic_learning_rate=3e-3, gamma=0.9, tau=0.05, temperature=1e-3
    )
    check_probes(redq.make(Probes(), config), hparams, 6_000)
