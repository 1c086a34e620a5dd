"""Discrete SAC: its update against float64, masks, probes."""

import dataclasses

import all_probes
import jax
import jax.numpy as jnp
import numpy as np
import oracle_continuous as oracle
import pytest
import toys
from continuous_cases import Spaces, assert_close, batches, compiled

import fastrl
from fastrl import sac_discrete
from fastrl.algorithms.replay import Batch
from fastrl.spaces import Discrete

HPARAMS = sac_discrete.HParams(
    learning_rate=0.02, critic_learning_rate=0.05, temperature_learning_rate=0.03, tau=0.3,
    temperature=0.4, entropy_share=0.6,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class ThreeActions(Spaces):
    def action_space(self, params):
        return Discrete(3)


def test_two_updates_equal_a_float64_oracle():
    """Expectations over the actions, the entropy that is aimed at, targets, Adam."""
    config = sac_discrete.Config(hidden_sizes=(3,), activation="tanh")
    learner, given = compiled(sac_discrete, config, ThreeActions()), batches()
    start = learned = learner.init(fastrl.key(3), HPARAMS)
    actor = oracle.numbers(start.policy.actor.variables["params"])
    critic = target = oracle.numbers(start.critic.variables["params"])
    log_alpha = {"x": np.log(0.4)}
    optimizers = [oracle.Adam(p, r) for p, r in ((actor, 0.02), (critic, 0.05), (log_alpha, 0.03))]
    for b in given:
        rows, action = np.arange(6), np.random.default_rng(5).integers(0, 3, 6)
        x, next_x = b["observation"], b["next_observation"]
        arrays = {k: jnp.asarray(v, jnp.float32) for k, v in b.items() if k != "unit"}
        batch = Batch(**arrays | {"action": jnp.asarray(action, jnp.int32)})
        learned, _, error = learner.update(learned, batch, fastrl.key(0), HPARAMS, jnp.int32(0))
        alpha = np.exp(log_alpha["x"])
        p, log_p = softmax(actor, next_x)
        following = (p * (oracle.forward(target, next_x)[0].min(0) - alpha * log_p)).sum(-1)
        y = b["reward"] + b["discount"] * following
        predicted = oracle.forward(critic, x)[0][:, rows, action]
        np.testing.assert_allclose(error, np.abs(predicted - y).mean(0), rtol=2e-3)

        def loss(params, x=x, y=y, at=(rows, action), weight=b["weight"]):
            return oracle.critic_loss(oracle.forward(params, x)[0][:, *at], y, weight)

        critic = optimizers[1].step(critic, oracle.gradient(loss, critic))

        def policy_loss(params, x=x, alpha=alpha, critic=critic):
            p, log_p = softmax(params, x)
            return (p * (alpha * log_p - oracle.forward(critic, x)[0].min(0))).sum(-1).mean()

        p, log_p = softmax(actor, x)
        actor = optimizers[0].step(actor, oracle.gradient(policy_loss, actor))
        missing = 0.6 * np.log(3) + (p * log_p).sum(-1).mean()
        log_alpha = optimizers[2].step(log_alpha, {"x": -missing})
        target = oracle.follow(target, critic, 0.3)
    assert_close(learned.critic.variables["params"], critic)
    assert_close(learned.policy.actor.variables["params"], actor)
    assert_close(learned.target["params"], target)
    np.testing.assert_allclose(
        learned.policy.temperature.variables["params"], log_alpha["x"], rtol=1e-5
    )


def softmax(params, x):
    logits = oracle.forward(params, x)[0][0]
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return np.exp(log_p), log_p


@pytest.mark.slow
def test_masked_actions_are_never_taken_and_have_no_part_in_the_entropy():
    """One that leaks costs 100 at once; an entropy over all six can't be reached by three."""
    config = sac_discrete.Config(
        num_envs=4, num_rounds=16, hidden_sizes=(8,), batch_size=16, buffer_size=256,
        learning_starts=32,
    )  # fmt: skip
    env = toys.MaskedChoice()
    algorithm = sac_discrete.make(env, config)
    state, metrics = jax.jit(fastrl.run(algorithm, 256))(
        jax.random.key(0), sac_discrete.HParams(), env.default_params()
    )
    assert (np.asarray(metrics["episode_return"].total) >= 0).all()
    entropy = np.asarray(metrics["entropy"].total / metrics["entropy"].weight)
    assert np.nanmax(entropy) < np.log(4) + 1e-3
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.learned.critic.variables))


def test_continuous_actions_are_refused():
    """Else an error from deep inside a trace."""
    with pytest.raises(ValueError, match="needs Discrete ones; see sac"):
        sac_discrete.make(fastrl.make("Pendulum-v1"))


@pytest.mark.parametrize(
    ("fields", "words"), [({"num_critics": 0}, "num_critics=0"), ({"batch_size": 0}, "batch_size")]
)
def test_bad_configs_name_the_value(fields, words):
    with pytest.raises(ValueError, match=words):
        sac_discrete.Config(**fields)


@pytest.mark.slow
def test_probes():
    """Values, discount, policy, and a time limit that is no end."""
    config = sac_discrete.Config(
        num_envs=8, num_steps=2, num_updates=2, batch_size=64, buffer_size=4096,
        learning_starts=200, hidden_sizes=(32,), learn_temperature=False,
    )  # fmt: skip
    hparams = sac_discrete.HParams(
        learning_rate=3e-3, critic_learning_rate=3e-3, gamma=0.9, tau=0.05, temperature=1e-3
    )
    all_probes.check(sac_discrete.make(all_probes.AllProbes(), config), hparams, 48_000)
