"""TD3 and DDPG: updates against float64, the optimism of MEX, noise, probes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import oracle_continuous as oracle
import pytest
from continuous_cases import (
    HIGH,
    LOW,
    Probes,
    Spaces,
    as_batch,
    assert_close,
    batches,
    check_probes,
    compiled,
    updated,
)

import fastrl
from fastrl import ddpg, td3

SMALL = td3.Config(hidden_sizes=(3,), activation="tanh")
PROBED = {
    "num_envs": 8, "num_steps": 2, "num_updates": 2, "batch_size": 64, "buffer_size": 4096,
    "learning_starts": 200, "hidden_sizes": (32,),
}  # fmt: skip
HPARAMS = td3.HParams(
    learning_rate=0.02, critic_learning_rate=0.05, tau=0.3, target_noise=0.4, target_noise_clip=0.3,
    eta=0.3,
)  # fmt: skip


@pytest.mark.parametrize("name", ["td3", "mex", "ddpg"])
def test_three_updates_equal_a_float64_oracle(name):
    """Smoothing, the minimum, the delay, the actor's critic, the targets, MEX's baseline."""
    plain = name == "ddpg"
    changes = {"num_critics": 1, "policy_delay": 1, "smoothing": False} if plain else {}
    config = dataclasses.replace(SMALL, optimism=name == "mex", **changes)
    learner, given = compiled(td3, config), batches(3)
    keys = [fastrl.key(i) for i in range(3)]
    start, end, errors = updated(learner, HPARAMS, given, keys)
    actor = oracle.numbers(start.actor.variables["params"])
    critic = oracle.numbers(start.critic.variables["params"])
    targets = actor, critic
    optimizers = oracle.Adam(actor, 0.02), oracle.Adam(critic, 0.05)
    act = lambda p, x: np.tanh(oracle.forward(p, x)[0][0])  # noqa: E731
    for i, (b, key, error) in enumerate(zip(given, keys, errors, strict=True)):
        noise_key, optimism_key = jax.random.split(key)
        action = act(targets[0], b["next_observation"])
        if not plain:
            noise = 0.4 * np.asarray(jax.random.normal(noise_key, (6, 2)), np.float64)
            action = np.clip(action + np.clip(noise, -0.3, 0.3), -1, 1)
        following = oracle.values(targets[1], b["next_observation"], action)[0].min(0)
        y = b["reward"] + b["discount"] * following
        q = oracle.values(critic, b["observation"], b["unit"])[0]
        np.testing.assert_allclose(error, np.abs(q - y).mean(0), rtol=1e-3)
        other = jax.random.uniform(optimism_key, (6, 2), minval=-1.0, maxval=1.0)
        actions = [act(actor, b[k]) for k in ("observation", "next_observation")]
        actions.append(np.asarray(other, np.float64))

        def loss(p, b=b, y=y, actions=actions):
            values = oracle.values(p, b["observation"], b["unit"])[0]
            own, *others = (oracle.values(p, b["observation"], a)[0] for a in actions)
            baseline = np.log(np.exp(np.stack([values, *others])).sum(0))
            gain = (own - baseline).sum(0).mean() if name == "mex" else 0.0
            return oracle.critic_loss(values, y, b["weight"]) - 0.3 * gain

        critic = optimizers[1].step(critic, oracle.gradient(loss, critic))
        if plain or i % 2:

            def actor_loss(p, b=b, critic=critic):
                return -oracle.values(critic, b["observation"], act(p, b["observation"]))[0][
                    0
                ].mean()

            actor = optimizers[0].step(actor, oracle.gradient(actor_loss, actor))
            pairs = zip(targets, (actor, critic), strict=True)
            targets = tuple(oracle.follow(t, p, 0.3) for t, p in pairs)
    assert_close(end.critic.variables["params"], critic)
    assert_close(end.actor.variables["params"], actor)
    assert_close(end.targets[0]["params"], targets[0])
    assert_close(end.targets[1]["params"], targets[1])


def test_optimism_of_weight_zero_is_td3_bit_for_bit():
    """A bonus that changes what it should only add to; and eta is traced, so it must matter."""

    def after(config, eta):
        learner = compiled(td3, config)
        keys = [fastrl.key(i) for i in range(4)]
        return updated(learner, HPARAMS._replace(eta=eta), batches(4), keys)[1]

    base = after(SMALL, 0.0)
    optimistic = dataclasses.replace(SMALL, optimism=True)
    for a, b in zip(jax.tree.leaves(base), jax.tree.leaves(after(optimistic, 0.0)), strict=True):
        np.testing.assert_array_equal(a, b)
    other = after(optimistic, 0.1).critic.variables
    pairs = zip(jax.tree.leaves(base.critic.variables), jax.tree.leaves(other), strict=True)
    assert any((a != b).any() for a, b in pairs)


def test_noise_is_in_units_of_the_box_and_stays_inside():
    """A deviation of 0.1 of half the box of width 0.8: 0.04; the mode without."""
    config = td3.Config(hidden_sizes=(3,), learning_starts=100)
    agent = td3.agent(Spaces(), config)
    learned = jax.jit(agent.learner.init)(fastrl.key(0), HPARAMS)
    observation = jnp.zeros((4000, 3))
    explore = jax.jit(agent.learner.explore)
    action = explore(learned, observation, fastrl.key(1), HPARAMS, jnp.int32(100))
    np.testing.assert_allclose(action.std(0), 0.04, rtol=0.05)
    mode = agent.policy(learned, observation, fastrl.key(2))
    np.testing.assert_allclose(action.mean(0), mode[0], atol=0.004)
    np.testing.assert_array_equal(mode, agent.policy(learned, observation, None))
    wild = HPARAMS._replace(noise=5.0)
    action = explore(learned, observation, fastrl.key(1), wild, jnp.int32(100))
    assert action.min() == pytest.approx(LOW)
    assert action.max() == pytest.approx(HIGH)
    first = explore(learned, observation, fastrl.key(1), HPARAMS, jnp.int32(0))
    np.testing.assert_allclose(first.std(0), 0.8 / np.sqrt(12), atol=0.01)


def test_the_policy_waits_for_its_turn():
    """The metric counts its updates: one for every two of the critics."""
    learner = compiled(td3, SMALL)
    learned = learner.init(fastrl.key(0), HPARAMS)
    counted = []
    for batch in batches(4):
        learned, metrics, _ = learner.update(
            learned, as_batch(batch), fastrl.key(1), HPARAMS, jnp.int32(0)
        )
        counted.append(float(metrics["policy_updates"].weight))
    assert counted == [0.0, 1.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"num_critics": 0}, "num_critics=0"),
        ({"policy_delay": 1.5}, "policy_delay=1.5"),
        ({"hidden_sizes": (0,)}, "hidden_sizes"),
        ({"smoothing": "yes"}, "smoothing='yes'"),
        ({"num_envs": 0}, "num_envs=0"),
    ],
)
def test_bad_configs_name_the_value(fields, words):
    with pytest.raises(ValueError, match=words):
        td3.Config(**fields)


@pytest.mark.parametrize("module", [td3, ddpg])
def test_actions_that_do_not_fit_are_refused(module):
    """Else an error from deep inside a trace."""
    with pytest.raises(ValueError, match="take sac_discrete or dqn"):
        module.make(fastrl.make("CartPole-v1"))


def test_ddpg_has_no_number_that_does_nothing():
    """Smoothing and optimism are TD3's."""
    assert set(ddpg.HParams._fields) < set(td3.HParams._fields)
    algorithm = ddpg.make(Probes(), ddpg.Config(hidden_sizes=(3,)))
    assert algorithm.recipe is not None
    assert algorithm.recipe.algorithm == "ddpg"
    with pytest.raises(ValueError, match=r"hparams.noise=-1.0"):
        algorithm.check(ddpg.HParams(noise=-1.0))


@pytest.mark.slow
@pytest.mark.parametrize("module", [td3, ddpg])
def test_probes(module):
    """Values, discount, policy in an odd box, and a time limit that is no end."""
    hparams = module.HParams(learning_rate=3e-3, critic_learning_rate=3e-3, gamma=0.9, tau=0.05)
    check_probes(module.make(Probes(), module.Config(**PROBED)), hparams, 16_000)
