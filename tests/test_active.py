"""Learning to actively learn: the bandit, policies by hand, policy and adversary."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastrl
from fastrl.meta import active, active_bandit, active_policies
from fastrl.meta.active_bandit import BestArm, Instance, Statistics

ENV = BestArm(arms=4, budget=12)
CONFIG = active.Config((3.0, 6.0), num_particles=4, num_episodes=16, hidden_sizes=(16,))
POLICIES = [active_policies.uniform, active_policies.successive_rejects, active_policies.lucb]


def test_a_class_has_one_complexity():
    """An adversary that leaves the class, or a complexity with another exponent."""
    numbers = jax.random.normal(jax.random.key(0), (50, 4)) * 3
    for h in (2.0, 40.0):
        means = jax.vmap(active_bandit.of_class, (0, None))(numbers, h).means
        gaps = -np.asarray(means, np.float64)[:, 1:]
        np.testing.assert_allclose((1 / gaps**2).sum(1), h, rtol=1e-5)
        np.testing.assert_allclose(jax.vmap(active_bandit.complexity)(means), h, rtol=1e-4)
        assert (gaps > 0).all()
    drawn = active_bandit.samples(jax.random.key(1), ENV, 5.0, 7).means
    np.testing.assert_allclose(drawn[0], [0.0] + [-np.sqrt(3 / 5)] * 3, rtol=1e-5)
    np.testing.assert_allclose(jax.vmap(active_bandit.complexity)(drawn), 5.0, rtol=1e-4)


def test_an_episode_by_hand():
    """Averages over all pulls, a reward before the end, the wrong arm recommended."""
    instance, state = Instance(jnp.array([0.0, 1.0, -1.0])), None
    for regret in (False, True):
        env = BestArm(3, 4, regret)
        state, _ = env.reset(jax.random.key(0), instance)
        paid = []
        for arm, noise in ((1, -3.0), (0, 0.5), (1, 1.0), (2, 0.2)):
            state = env.pull(state, jnp.int32(arm), jnp.float32(noise), instance)
            paid.append((arm, float(instance.means[arm]) + noise))
        assert [float(x) for x in state.counts] == [1, 2, 1]
        sums = [sum(y for a, y in paid if a == arm) for arm in range(3)]
        np.testing.assert_allclose(state.sums, sums, rtol=1e-6)
        assert float(state.left) == pytest.approx(0.0, abs=1e-6)
        assert int(state.recommended()) == 0  # 0.5 against 0 and -0.8
        loss, correct = env.loss(state, instance)
        assert (float(loss), float(correct)) == (1.0, 0.0)
    only = Statistics(jnp.array([0.0, 1.0]), jnp.array([0.0, -5.0]), jnp.float32(0.5))
    assert int(only.recommended()) == 1  # an arm that was never pulled is not recommended


def test_the_environment_is_played_by_the_engine():
    """Episodes that never end, a reward that is not minus the loss."""
    state, _ = ENV.reset(jax.random.key(0), ENV.default_params())
    rewards = []
    for i in range(ENV.budget):
        action, key = jnp.int32(i % 4), jax.random.key(i)
        state, step = jax.jit(ENV.step)(key, state, action, ENV.default_params())
        rewards.append(float(step.reward))
        assert bool(step.terminated) == (i == ENV.budget - 1)
    assert rewards[:-1] == [0.0] * (ENV.budget - 1)
    assert rewards[-1] == -float(ENV.loss(state, ENV.default_params())[0])


@functools.cache
def histories(which: int, budget: int = 20) -> active_policies.Episode:
    env = BestArm(4, budget)
    means = Instance(jnp.array([0.5, 0.0, 0.3, -0.8]))
    play = functools.partial(active_policies.play, env, POLICIES[which](env))
    return jax.jit(jax.vmap(play, (0, None)))(jax.random.split(jax.random.key(3), 50), means)


def test_uniform_and_lucb_pull_what_they_say():
    """A turn that is skipped, a bound on the wrong side, an arm that is never tried."""
    assert bool((histories(0).end.counts == 5).all())
    episode = histories(2)
    counts, sums, arms = (np.asarray(x) for x in (*episode.seen[:2], episode.arms))
    assert all(sorted(row[:4]) == [0, 1, 2, 3] for row in arms)
    for n, s, arm in zip(counts.reshape(-1, 4), sums.reshape(-1, 4), arms.ravel(), strict=True):
        if n.min() < 1:
            continue
        average = s / n
        leader = int(average.argmax())
        bound = average + np.sqrt(2 * np.log(20) / n)
        bound[leader] = -np.inf
        wanted = leader if (n.sum() - 4) % 2 == 0 else int(bound.argmax())
        assert arm == wanted


def test_successive_rejects_by_the_book():
    """Phases of the wrong length, the best thrown out instead of the worst, one that comes back."""
    episode = histories(1)
    harmonic = 0.5 + 1 / 2 + 1 / 3 + 1 / 4
    lengths = [int(np.ceil((20 - 4) / (harmonic * (4 + 1 - k)))) for k in (1, 2, 3)]
    for counts, sums, arms in zip(*(np.asarray(x) for x in (*episode.seen[:2], episode.arms)),
                                  strict=True):  # fmt: skip
        left = {0, 1, 2, 3}
        for n, s, arm in zip(counts, sums, arms, strict=True):
            phase = 4 - len(left)
            if phase < 3 and min(n[i] for i in left) >= lengths[phase]:
                left.remove(min(left, key=lambda i: s[i] / n[i]))
            assert arm in left
            assert n[arm] == min(n[i] for i in left)


def test_the_policy_goes_with_the_arms():
    """What it does depends on the order of the arms or on where 0 is, so classes are not enough."""
    network = active.Network((8, 8), 12)
    apply: Any = jax.jit(network.apply)
    counts, sums = jnp.array([3.0, 0.0, 1.0, 2.0]), jnp.array([1.0, 0.0, -1.0, 4.0])
    seen = Statistics(counts, sums, jnp.float32(0.5))
    params = network.init(jax.random.key(0), seen)
    logits = apply(params, seen)
    order = jnp.array([2, 0, 3, 1])
    moved = Statistics(counts[order], sums[order] + 7.0 * counts[order], seen.left)
    np.testing.assert_allclose(apply(params, moved), logits[order], atol=1e-5)
    assert float(jnp.ptp(logits)) > 1e-6
    nothing = Statistics(jnp.zeros(4), jnp.zeros(4), jnp.float32(1.0))
    assert bool(jnp.isfinite(apply(params, nothing)).all())


def test_the_adversary_climbs_the_loss():
    """A score of the wrong sign or arm: against the exact loss of pulling two arms once each."""
    env = BestArm(2, 2)
    config = active.Config((1.0,), 1, 4000, ())
    counts = jnp.ones((1, 1, 4000, 2))
    numbers = jnp.zeros((1, 1, 1))
    # With two arms the class is one point: differentiate in the means themselves
    gap = 1.0
    noise = jax.random.normal(jax.random.key(0), (1, 1, 4000, 2))
    end = Statistics(counts, noise + jnp.array([[[[0.0, -gap]]]]), jnp.zeros((1, 1, 4000)))
    losses = jax.vmap(jax.vmap(jax.vmap(env.loss, (0, None))))(
        end, Instance(jnp.array([[[0.0, -gap]]]))
    )[0]
    centred = losses - losses.mean()
    score = end.sums - counts * jnp.array([[[[0.0, -gap]]]])
    got = np.asarray((score * centred[..., None]).mean((0, 1, 2)))
    density = np.exp(-(gap**2) / 4) / np.sqrt(4 * np.pi)  # of P(wrong) = Phi(-gap / sqrt 2)
    np.testing.assert_allclose(got, [-density, density], atol=0.03)
    plays = active_policies.Episode(losses, end, end, counts)
    # The class of two arms is one point, so no particle may move
    assert float(jax.grad(functools.partial(active._adversarial, env, config, plays, centred))(
        numbers)[0, 0, 0]) == pytest.approx(0.0, abs=1e-6)  # fmt: skip


@functools.cache
def trained(iterations: int):
    algorithm = active.make(ENV, CONFIG)
    steps = iterations * algorithm.steps_per_iteration
    run = jax.jit(fastrl.run(algorithm, steps))
    start = jax.jit(algorithm.init)(fastrl.key(0), algorithm.default_hparams, None)
    return algorithm, start, run(fastrl.key(0), active.HParams(learning_rate=1e-2), None)


def worst(policy, h=6.0):
    instances = active_bandit.samples(jax.random.key(7), ENV, h, 8)
    losses = jax.jit(lambda key: active_policies.losses(ENV, policy, key, instances, 4000))
    return float(losses(jax.random.key(8)).max())


@pytest.mark.slow
def test_the_worst_case_gets_better():
    """A policy that ascends, a baseline with a bias, an adversary that helps."""
    algorithm, start, (state, metrics) = trained(300)
    before, after = worst(active.learned(algorithm, start)), worst(active.learned(algorithm, state))
    alike = worst(active_policies.uniform(ENV))
    assert after < before - 0.03
    assert after < alike - 0.01
    excess = metrics["worst_excess"]
    assert bool(jnp.isfinite(excess.total).all())


@pytest.mark.slow
def test_the_weights_go_to_the_hard_class_and_floors_move_them():
    """An adversary that likes what is easy, or floors that are not taken off."""
    _, _, (state, _) = trained(300)
    weights = jax.nn.softmax(state.logits.ravel()).reshape(state.logits.shape).sum(1)
    assert float(weights[1]) > 0.8
    algorithm = active.make(ENV, CONFIG)
    hparams = active.HParams(floors=jnp.array([0.0, 1.0]))
    state, _ = jax.jit(fastrl.run(algorithm, 20 * algorithm.steps_per_iteration))(
        fastrl.key(0), hparams, None
    )
    weights = jax.nn.softmax(state.logits.ravel()).reshape(state.logits.shape).sum(1)
    assert float(weights[0]) > 0.8


def test_what_does_not_fit_is_told_apart():
    """An error deep in a trace instead of one that names the value and the way out."""
    with pytest.raises(ValueError, match="complexities"):
        active.Config(complexities=())
    with pytest.raises(ValueError, match="complexities"):
        active.Config(complexities=(1.0, -2.0))
    with pytest.raises(ValueError, match="num_episodes"):
        active.Config(num_episodes=1)
    with pytest.raises(ValueError, match="budget"):
        BestArm(arms=5, budget=4)
    with pytest.raises(TypeError, match="BestArm"):
        active.make(fastrl.make("CartPole-v1"))
    with pytest.raises(ValueError, match="floors"):
        active.make(ENV, CONFIG).check(active.HParams(floors=jnp.zeros(3)))
