"""SAC: its density, its update against float64, bad input, probes, and Pendulum."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle_continuous as oracle
import pytest
import scipy.integrate
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
from fastrl import distributions, sac
from fastrl.spaces import Box

SMALL = sac.Config(hidden_sizes=(3,), activation="tanh")
FUSED = sac.Config(hidden_sizes=(8,), activation="tanh", fused_mlp=True)
HPARAMS = sac.HParams(
    learning_rate=0.02, critic_learning_rate=0.05, temperature_learning_rate=0.03, tau=0.3,
    temperature=0.4, target_entropy=-0.7,
)  # fmt: skip


@pytest.mark.parametrize(("mean", "log_std"), [(0.3, -0.5), (-1.5, 0.4), (0.0, -3.0)])
def test_the_squashed_density_integrates_to_one_and_gives_its_entropy(mean, log_std):
    """A missing or wrong correction for the tanh would show in both."""
    normal = distributions.DiagonalNormal(jnp.array([mean]), jnp.array([log_std]))
    policy = distributions.SquashedNormal(normal)
    u = np.linspace(mean - 8 * np.exp(log_std), mean + 8 * np.exp(log_std), 4001)
    a = np.tanh(u)
    p = np.exp(np.asarray(jax.vmap(policy.log_prob)(jnp.asarray(a[:, None], jnp.float32))))
    inside = np.abs(a) < 1 - 1e-5
    assert scipy.integrate.trapezoid(p[inside], a[inside]) == pytest.approx(1.0, abs=5e-3)
    entropy = -scipy.integrate.trapezoid((p * np.log(np.maximum(p, 1e-30)))[inside], a[inside])
    assert float(policy.entropy()) == pytest.approx(entropy, abs=2e-2)


def test_the_log_probability_of_a_sample_is_that_of_its_density_also_at_the_bounds():
    """1 - tanh(u)^2 is 0 in float32 from u = 9 on, where a plain logarithm is -inf."""
    normal = distributions.DiagonalNormal(jnp.array([0.4, -1.0]), jnp.array([-1.0, 0.2]))
    policy = distributions.SquashedNormal(normal)
    action, log_prob = policy.sample_and_log_prob(fastrl.key(0))
    np.testing.assert_allclose(policy.log_prob(action), log_prob, rtol=1e-4)
    far = distributions.SquashedNormal(dataclasses.replace(normal, mean=jnp.array([30.0, -30.0])))
    action, log_prob = far.sample_and_log_prob(fastrl.key(0))
    assert np.abs(action).max() <= 1.0
    slope = jax.grad(lambda m: distributions.SquashedNormal(dataclasses.replace(normal, mean=m))
                     .sample_and_log_prob(fastrl.key(0))[1])(jnp.array([30.0, -30.0]))  # fmt: skip
    np.testing.assert_allclose(slope, [2.0, -2.0], rtol=1e-4)  # of 2 log cosh u
    assert np.isfinite(log_prob)
    assert np.isfinite(far.log_prob(jnp.array([1.0, -1.0])))


def test_actions_go_to_an_odd_box_and_back():
    """A learner that assumes [-1, 1] stores other actions than it takes."""
    space = Box((-0.2, -3.0), (0.6, 1.0), (2,))
    unit = jnp.array([[-1.0, 1.0], [0.5, 0.0]])
    action = distributions.to_environment(space, unit)
    np.testing.assert_allclose(action, [[-0.2, 1.0], [0.4, -1.0]], rtol=1e-6)
    np.testing.assert_allclose(distributions.from_environment(space, action), unit, atol=1e-6)


@pytest.mark.parametrize("config", [SMALL, pytest.param(FUSED, marks=pytest.mark.slow)])
def test_two_updates_equal_a_float64_oracle(config):
    """The target, its minimum and entropy, both losses, the temperature, Adam, and tau."""
    learner, given = compiled(sac, config), batches()
    keys = [fastrl.key(7), fastrl.key(8)]
    start, end, errors = updated(learner, HPARAMS, given, keys)
    s = {"actor": start.policy.actor.variables, "critic": start.critic.variables}
    s = oracle.numbers({k: v["params"] for k, v in s.items()})
    target, log_alpha = s["critic"], {"x": np.log(0.4)}
    optimizers = {k: oracle.Adam(s[k], r) for k, r in (("actor", 0.02), ("critic", 0.05))}
    optimizers["alpha"] = oracle.Adam(log_alpha, 0.03)
    for b, key, error in zip(given, keys, errors, strict=True):
        next_noise, noise = noises(key)
        alpha = np.exp(log_alpha["x"])
        action, log_p = sampled(s["actor"], b["next_observation"], next_noise)
        following = oracle.values(target, b["next_observation"], action)[0].min(0)
        y = b["reward"] + b["discount"] * (following - alpha * log_p)
        q = functools.partial(lambda p, x, a: oracle.values(p, x, a)[0])
        np.testing.assert_allclose(
            error, np.abs(q(s["critic"], b["observation"], b["unit"]) - y).mean(0), rtol=1e-3
        )
        grads = oracle.gradient(
            lambda p, b=b, y=y: oracle.critic_loss(
                oracle.values(p, b["observation"], b["unit"])[0], y, b["weight"]
            ),
            s["critic"],
        )
        s["critic"] = optimizers["critic"].step(s["critic"], grads)

        def loss(p, b=b, noise=noise, alpha=alpha, critic=s["critic"]):
            action, log_p = sampled(p, b["observation"], noise)
            return (
                alpha * log_p - oracle.values(critic, b["observation"], action)[0].min(0)
            ).mean()

        _, log_p = sampled(s["actor"], b["observation"], noise)
        s["actor"] = optimizers["actor"].step(s["actor"], oracle.gradient(loss, s["actor"]))
        missing = log_p.mean() - 0.7 * 2
        log_alpha = optimizers["alpha"].step(log_alpha, {"x": -missing})
        target = oracle.follow(target, s["critic"], 0.3)
    assert_close(end.critic.variables["params"], s["critic"])
    assert_close(end.policy.actor.variables["params"], s["actor"])
    assert_close(end.target["params"], target)
    np.testing.assert_allclose(
        end.policy.temperature.variables["params"], log_alpha["x"], rtol=1e-5
    )


def noises(key):
    """Of the successors' actions and of the policy's, `[6, 2]` each."""
    draw = lambda k: np.asarray(jax.random.normal(k, (6, 2)), np.float64)  # noqa: E731
    return [draw(k) for k in jax.random.split(key)]


def sampled(params, x, noise):
    return oracle.squashed(oracle.forward(params, x)[0], noise)


def test_first_actions_are_even_over_the_box_and_later_ones_the_policys():
    """Learning from a start that saw a part of the box, or from random actions for ever."""
    config = dataclasses.replace(SMALL, learning_starts=100)
    learner = sac.agent(Spaces(), config).learner
    learned = jax.jit(learner.init)(fastrl.key(0), HPARAMS)
    observation = jnp.zeros((4000, 3))
    explore = jax.jit(learner.explore)
    first = explore(learned, observation, fastrl.key(1), HPARAMS, jnp.int32(99))
    assert first.min() >= LOW
    assert first.max() <= HIGH
    np.testing.assert_allclose(first.mean(0), (LOW + HIGH) / 2, atol=0.02)
    np.testing.assert_allclose(first.std(0), (HIGH - LOW) / np.sqrt(12), atol=0.01)
    later = explore(learned, observation, fastrl.key(1), HPARAMS, jnp.int32(100))
    assert np.abs(later.std(0) - first.std(0)).max() > 0.02


def test_a_fixed_temperature_stays():
    """`learn_temperature=false` that is not heard, or a temperature that is not `hparams`'."""
    config = sac.Config(hidden_sizes=(3,), learn_temperature=False, policy_delay=2)
    learner = compiled(sac, config)
    learned = learner.init(fastrl.key(0), HPARAMS)
    before = learned.policy.actor.variables
    moved = []
    for batch in batches(4):
        learned, metrics, _ = learner.update(
            learned, as_batch(batch), fastrl.key(1), HPARAMS, jnp.int32(0)
        )
        after = learned.policy.actor.variables
        moved.append(any((a != b).any() for a, b in zip(*map(jax.tree.leaves, (before, after)))))  # noqa: B905
        before = after
        assert float(metrics["temperature"].total) == pytest.approx(0.4 * moved[-1])
    assert moved == [False, True, False, True]  # the policy's delay


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"num_critics": 0}, "num_critics=0"),
        ({"policy_delay": 0}, "policy_delay=0"),
        ({"hidden_sizes": (64, -1)}, "hidden_sizes"),
        ({"activation": "tan"}, "'tan'.*'tanh'"),
        ({"num_updates": 0}, "num_updates=0"),
        ({"learn_temperature": 3}, "learn_temperature=3"),
        ({"buffer_size": 0}, "buffer_size=0"),
    ],
)
def test_bad_configs_name_the_value(fields, words):
    with pytest.raises(ValueError, match=words):
        sac.Config(**fields)


def test_actions_that_do_not_fit_are_refused():
    """Else an error from deep inside a trace, or a policy over an endless box."""
    with pytest.raises(ValueError, match="take sac_discrete or dqn"):
        sac.make(fastrl.make("CartPole-v1"))
    unbounded = fastrl.transforms.ClipAction(fastrl.make("Pendulum-v1"))
    with pytest.raises(ValueError, match="needs finite bounds"):
        sac.make(unbounded)


def test_hparams_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"hparams.temperature=0.0: must be above 0"):
        sac.make(Probes(), SMALL).check(sac.HParams(temperature=0.0))


@pytest.mark.slow
def test_probes():
    """Values, discount, policy in an odd box, and a time limit that is no end."""
    config = sac.Config(
        num_envs=8, num_steps=2, num_updates=2, batch_size=64, buffer_size=4096,
        learning_starts=200, hidden_sizes=(32,), learn_temperature=False,
    )  # fmt: skip
    hparams = sac.HParams(
        learning_rate=3e-3, critic_learning_rate=3e-3, gamma=0.9, tau=0.05, temperature=1e-3
    )
    check_probes(sac.make(Probes(), config), hparams, 16_000)


@pytest.mark.slow
def test_pendulum_swings_up():
    """-1200 is a policy that learned nothing; 5k steps reach about -150."""
    env = fastrl.make("Pendulum-v1")
    config = sac.Config(hidden_sizes=(64, 64), learning_starts=500, buffer_size=10_000)
    algorithm = sac.make(env, config)
    state, _ = jax.jit(fastrl.run(algorithm, 5_000))(
        jax.random.key(0), sac.HParams(learning_rate=1e-3), env.default_params()
    )
    assert fastrl.evaluate(algorithm, state, episodes=20).mean_return > -300
