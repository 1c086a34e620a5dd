"""CrossQ: batch renormalisation and the update against float64, bad input, probes."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle_continuous as oracle
import pytest
from continuous_cases import Probes, Spaces, assert_close, batches, check_probes, compiled, updated

import fastrl
from fastrl import crossq
from fastrl.ensembles import BatchRenorm

HPARAMS = crossq.HParams(
    learning_rate=0.02, critic_learning_rate=0.05, temperature_learning_rate=0.03, temperature=0.4,
    target_entropy=-0.7,
)  # fmt: skip


def test_two_updates_equal_a_float64_oracle():
    """One pass over both halves, no gradient through the second, statistics, beta1, the delay."""
    config = crossq.Config(
        hidden_sizes=(3,), critic_hidden_sizes=(3,), activation="tanh", policy_delay=2
    )
    learner, given = compiled(crossq, config), batches()
    keys = [fastrl.key(i) for i in range(2)]
    start, end, errors = updated(learner, HPARAMS, given, keys)
    actor, critic = (oracle.numbers(t.variables) for t in (start.policy.actor, start.critic))
    optimizers = [
        oracle.Adam(t["params"], rate, 0.5) for t, rate in ((actor, 0.02), (critic, 0.05))
    ]
    for b, key, error in zip(given, keys, errors, strict=True):
        next_key, _ = jax.random.split(key)
        action, log_p = sampled(
            actor["params"], actor["statistics"], b["next_observation"], next_key
        )
        both = [
            np.concatenate([b[x], y])
            for x, y in (("observation", b["next_observation"]), ("unit", action))
        ]
        q, own = oracle.values(critic["params"], *both, norm="batch")
        y = b["reward"] + b["discount"] * (q[:, 6:].min(0) - 0.4 * log_p)
        np.testing.assert_allclose(error, np.abs(q[:, :6] - y).mean(0), rtol=2e-3)

        def loss(p, b=b, y=y, both=both):
            values = oracle.values(p, *both, norm="batch")[0]
            return oracle.critic_loss(values[:, :6], y, b["weight"])

        params = optimizers[1].step(critic["params"], oracle.gradient(loss, critic["params"]))
        critic = {"params": params, "statistics": moved(critic["statistics"], own)}

    b, key = given[-1], jax.random.split(keys[-1])[1]

    def policy_loss(p):
        action, log_p = sampled(p, None, b["observation"], key)
        values = oracle.values(
            critic["params"], b["observation"], action, norm="batch",
            statistics=critic["statistics"],
        )[0]  # fmt: skip
        return (0.4 * log_p - values.min(0)).mean()

    _, own = oracle.forward(actor["params"], b["observation"], norm="batch")
    after = optimizers[0].step(actor["params"], oracle.gradient(policy_loss, actor["params"]))
    assert_close(end.critic.variables, critic)
    assert_close(end.policy.actor.variables["params"], after)
    assert_close(end.policy.actor.variables["statistics"], moved(actor["statistics"], own))


def sampled(params, statistics, x, key):
    noise = np.asarray(jax.random.normal(key, (6, 2)), np.float64)
    out, _ = oracle.forward(params, x, norm="batch", statistics=statistics)
    return oracle.squashed(out, noise)


def moved(statistics, own):
    """Running statistics after a batch with its `own`, by 1 %."""
    return {
        name: {
            "mean": 0.99 * s["mean"] + 0.01 * own[name][0],
            "variance": 0.99 * s["variance"] + 0.01 * own[name][1],
            "batches": s["batches"] + 1,
        }
        for name, s in statistics.items()
    }


def test_batch_renormalisation_corrects_towards_the_running_statistics():
    """Within limits a batch comes out as by running statistics, without gradient through them."""
    module = BatchRenorm(warm_up=10)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(0.5, 1.3, (1, 64, 2)), jnp.float32)
    variables = module.init(fastrl.key(0), x, False)

    def out(x, batches, train=True):
        given = {**variables["statistics"], "batches": jnp.int32(batches)}
        given = {"params": variables["params"], "statistics": given}
        return module.apply(given, x, train, mutable=["statistics"])[0]

    np.testing.assert_allclose(out(x, 9).mean(1), 0.0, atol=1e-5)
    np.testing.assert_allclose(out(x, 10), out(x, 10, train=False), atol=1e-4)
    far = out(x * 100 + 900, 10)  # r = 3 and d = 5 at most
    np.testing.assert_allclose(far.mean(1), 5.0, rtol=1e-3)
    np.testing.assert_allclose(far.std(1), 3.0, rtol=1e-3)
    slope = jax.grad(lambda shift: out(x + shift, 10).sum())(0.0)
    assert abs(float(slope)) < 1e-3  # a shift of all is taken out, as without the corrections


def test_acting_uses_running_statistics():
    """Else an action would depend on who else is in the batch."""
    config = crossq.Config(hidden_sizes=(8,), critic_hidden_sizes=(8,))
    agent = crossq.agent(Spaces(), config)
    learned = jax.jit(agent.learner.init)(fastrl.key(0), HPARAMS)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)), jnp.float32)
    asked = jax.jit(lambda x: (agent.policy(learned, x, None), agent.value(learned, x)))
    for together, alone in zip(asked(x), asked(x[2]), strict=True):
        np.testing.assert_allclose(together[2], alone, atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"critic_hidden_sizes": (0,)}, r"critic_hidden_sizes=\(0,\)"),
        ({"hidden_sizes": (-1,)}, r"hidden_sizes=\(-1,\)"),
        ({"num_critics": -1}, "num_critics=-1"),
    ],
)
def test_bad_configs_name_the_value(fields, words):
    with pytest.raises(ValueError, match=words):
        crossq.Config(**fields)


@pytest.mark.slow
def test_probes():
    """Values, discount, policy in an odd box, and a time limit that is no end."""
    config = crossq.Config(
        num_envs=8, num_steps=2, num_updates=4, batch_size=64, buffer_size=4096,
        learning_starts=200, hidden_sizes=(32,), critic_hidden_sizes=(32,),
        learn_temperature=False,
    )  # fmt: skip
    hparams = crossq.HParams(
        learning_rate=3e-3, critic_learning_rate=3e-3, gamma=0.9, temperature=1e-3
    )
    check_probes(crossq.make(Probes(), config), hparams, 16_000)
