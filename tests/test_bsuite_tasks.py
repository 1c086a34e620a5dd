"""What bsuite's tasks and the bandits draw, and that params make many tasks at once."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastrl.registry
from fastrl.envs import compiling
from fastrl.envs.bsuite import (
    BernoulliBandit,
    Catch,
    DeepSea,
    DeepSeaStochastic,
    DelayedChain,
    DiscountingChain,
    GaussianBandit,
    LinearContextualBandit,
    MemoryChain,
    UmbrellaChain,
    _draws,
    bandits,
    deep_sea,
)
from fastrl.kernels import prng
from fastrl.types import Step

KEY = prng.key(3)
N = 4096  # draws; shares of a half are within 0.04 of it (five standard errors)


def starts(env: Any) -> tuple[Any, Any]:
    """`N` start states and observations."""
    keys = jax.random.split(KEY, N)
    return jax.jit(jax.vmap(env.reset, (0, None)))(keys, env.default_params())


def stepped(env: Any, state: Any, action: int, params: Any = None) -> tuple[Any, Step]:
    """`N` steps from one state, with keys of their own."""
    params = env.default_params() if params is None else params
    step = jax.jit(jax.vmap(env.step, (0, None, None, None)))
    return step(jax.random.split(jax.random.fold_in(KEY, 1), N), state, jnp.int32(action), params)


def one(env: Any) -> Any:
    """A start state."""
    return env.reset(KEY, env.default_params())[0]


def near_half(share: Any) -> bool:
    return bool((np.abs(np.asarray(share) - 0.5) < 0.04).all())


def test_words_make_fair_coins_uniform_and_normal_numbers() -> None:
    """Fails if a bit is stuck or shared, or a distribution has another mean, width or tail."""
    words = jax.vmap(lambda key: _draws.words(key, 2))(jax.random.split(KEY, 40_000))
    coins = np.asarray(jax.vmap(lambda w: _draws.coins(w, 40))(words), np.float64)
    assert np.abs(coins.mean(0) - 0.5).max() < 0.0125
    correlation = np.corrcoef(coins.T) - np.eye(40)
    assert np.abs(correlation).max() < 0.025
    shares = np.sort(_draws.uniform(words[:, 0]))
    assert (shares[0] >= 0) & (shares[-1] < 1)
    assert np.abs(shares - np.linspace(0, 1, len(shares))).max() < 1.63 / 200  # Kolmogorov, 1 %
    normal = np.sort(_draws.normal(words[:, 1]))
    expected = np.array([0.5 * (1 + math.erf(x / math.sqrt(2))) for x in normal])
    assert np.abs(expected - np.linspace(0, 1, len(normal))).max() < 1.63 / 200
    extreme = _draws.normal(jnp.array([0, 2**32 - 1], jnp.uint32))
    assert np.isfinite(extreme).all()
    np.testing.assert_allclose(extreme[0], -extreme[1], rtol=1e-6)


def test_once_and_put_change_no_number() -> None:
    """Fails if a place of an observation is off by a rounding."""
    np.testing.assert_array_equal(compiling.once(jnp.arange(4096)), np.arange(4096))
    assert compiling.put(jnp.zeros(3), jnp.float32(0.1), 1).tolist() == [0.0, np.float32(0.1), 0.0]


def test_catch_drops_balls_in_every_column_alike() -> None:
    state, _ = starts(Catch())
    share = np.bincount(state.ball_column, minlength=5) / N
    assert np.abs(share - 0.2).max() < 0.032
    assert (np.asarray(state.paddle) == 2).all()


def test_memory_chain_draws_bits_and_query() -> None:
    """Fails if bits come together or a bit is never asked for."""
    state, observation = starts(MemoryChain(num_bits=40))
    assert near_half(state.context.mean(0))
    asked = np.bincount(state.query, minlength=40) / N
    assert len(asked) == 40
    assert asked.min() > 0.5 / 40
    assert np.asarray(observation)[:, 2:].tolist() == (2.0 * state.context - 1).tolist()


def test_umbrella_chain_draws_all_of_its_coins() -> None:
    """Fails if two of what is drawn are the same coin."""
    env = UmbrellaChain(distractors=40)
    state, observation = starts(env)
    _, step = stepped(env, one(env), 1)
    start = np.asarray(observation)[:, [0, 1, *range(3, 43)]]
    later = np.column_stack([np.asarray(step.reward) > 0, np.asarray(step.observation)[:, 3:]])
    for coins in (start, later):
        assert near_half(coins.mean(0))
        assert np.abs(np.corrcoef(coins.T) - np.eye(coins.shape[1])).max() < 0.09
    assert (np.asarray(state.needed) == start[:, 0]).all()


def test_stochastic_deep_sea_slips_and_pays_noise_where_it_should() -> None:
    """Fails if a slip has another probability, or noise is paid outside of the corners."""
    env = DeepSeaStochastic(size=10)
    params = env.default_params()._replace(mapping=np.ones((10, 10), bool))
    for row, column, noisy in ((4, 4, False), (9, 0, True), (9, 9, True), (9, 5, False)):
        place = deep_sea.State(jnp.int32(row), jnp.int32(column))
        state, step = stepped(env, place, 1, params)
        moved = np.asarray(state.column) - column
        if column < 9:
            assert abs((moved == 0).mean() - 0.1) < 5 * math.sqrt(0.09 / N)
        reward = np.asarray(step.reward) + params.move_cost / 10 - (column == 9)
        assert abs(reward.std() - noisy) < 0.06
        assert abs(reward.mean()) < 0.08
    still = params._replace(slip=0.0, noise=0.0)
    state, step = stepped(env, deep_sea.State(jnp.int32(9), jnp.int32(0)), 1, still)
    assert np.ptp(step.reward) == 0
    assert (np.asarray(state.column) == 1).all()


def test_deep_sea_pays_the_dive_that_always_goes_right() -> None:
    """Fails if the mapping is not what decides which action goes right, task by task."""
    env, tasks = DeepSea(size=8), 256
    mappings = jax.random.bernoulli(KEY, 0.5, (tasks, 8, 8))
    default = env.default_params()
    params = jax.vmap(lambda mapping: default._replace(mapping=mapping))(mappings)

    def dive(params: Any) -> Any:
        def body(state: Any, _: None) -> tuple[Any, Step]:
            action = params.mapping[state.row, state.column].astype(jnp.int32)
            return env.step(KEY, state, action, params)

        return jax.lax.scan(body, env.reset(KEY, params)[0], None, length=8)[1]

    step = jax.jit(jax.vmap(dive))(params)
    np.testing.assert_allclose(step.reward.sum(1), 0.99, rtol=1e-6)
    assert np.asarray(step.terminated)[:, -1].all()
    assert not np.asarray(step.terminated)[:, :-1].any()
    assert not np.asarray(step.observation)[:, -1].any()


def test_every_chain_may_carry_the_bonus() -> None:
    env = DiscountingChain()
    params = jax.vmap(lambda chain: env.default_params()._replace(bonus_chain=chain))(jnp.arange(5))

    def total(params: Any, action: Any) -> Any:
        def body(state: Any, _: None) -> tuple[Any, Step]:
            return env.step(KEY, state, jnp.where(state.time == 0, action, 0), params)

        return jax.lax.scan(body, env.reset(KEY, params)[0], None, length=100)[1].reward.sum()

    each = jax.vmap(jax.vmap(total, (None, 0)), (0, None))
    returns = jax.jit(each)(params, jnp.arange(5))
    np.testing.assert_allclose(returns, 1 + 0.1 * np.eye(5), rtol=1e-6)


def test_bernoulli_arms_pay_with_their_probability() -> None:
    """Fails if arms are drawn from another range, or one pays as often as another."""
    env = BernoulliBandit(arms=3)
    means = np.array([0.1, 0.5, 0.9], np.float32)
    fixed = bandits.BernoulliParams(means, means)
    state, first = env.reset(KEY, fixed)
    np.testing.assert_allclose(state.means, [0.1, 0.5, 0.9], rtol=1e-6)
    assert first.tolist() == [0.0] * 5
    for arm, mean in enumerate((0.1, 0.5, 0.9)):
        _, step = stepped(env, state, arm, fixed)
        assert abs(step.reward.mean() - mean) < 0.04
        np.testing.assert_allclose(step.metrics["regret"], 0.9 - mean, atol=1e-6)
        seen = np.asarray(step.observation)
        assert (seen[:, 0] == step.reward).all()
        assert (seen[:, 1:4] == np.eye(3)[arm]).all()
        np.testing.assert_allclose(seen[:, 4], 0.01)
    drawn = np.stack(starts(env)[0].means)
    assert near_half(drawn.mean(1))
    assert np.abs(drawn.std(1) - math.sqrt(1 / 12)).max() < 0.02


def test_gaussian_arms_pay_their_mean_and_noise() -> None:
    """Lange and Sprekeler's task: an arm that pays 0, another N(mean, 0.1), mean from N(-1, 1)."""
    env = GaussianBandit()
    params = bandits.GaussianParams(
        np.array([0, -1], np.float32),
        np.array([0, 1], np.float32),
        noise=np.array([0, 0.1], np.float32),
    )
    states, _ = jax.vmap(env.reset, (0, None))(jax.random.split(KEY, N), params)
    assert not np.asarray(states.means[0]).any()
    means = np.asarray(states.means[1])
    assert abs(means.mean() + 1) < 0.08
    assert abs(means.std() - 1) < 0.06
    state = bandits.State((jnp.float32(0), jnp.float32(-2)), jnp.int32(99))
    for arm, (mean, noise) in enumerate(((0.0, 0.0), (-2.0, 0.1))):
        _, step = stepped(env, state, arm, params)
        assert abs(step.reward.mean() - mean) < 0.01
        assert abs(step.reward.std() - noise) < 0.006
        assert np.asarray(step.terminated).all()


def test_linear_arms_pay_the_product_of_weights_and_context() -> None:
    """Fails if the reward is for another context than the one that was shown."""
    env = LinearContextualBandit(arms=3, features=2)
    params = env.default_params()._replace(noise=0.0)

    @jax.jit
    def play(key: Any) -> tuple[Any, ...]:
        state, shown = env.reset(key, params)
        after, step = env.step(jax.random.fold_in(key, 7), state, jnp.int32(2), params)
        return state.weights, shown, step, after.context

    weights, shown, step, context = jax.vmap(play)(jax.random.split(KEY, N))
    weights = np.moveaxis(np.array(weights), -1, 0)  # [N, arms, features]
    means = np.einsum("naf,nf->na", weights, np.asarray(shown)[:, :2])
    np.testing.assert_allclose(step.reward, means[:, 2], rtol=1e-5, atol=1e-6)
    regret = means.max(1) - means[:, 2]
    np.testing.assert_allclose(step.metrics["regret"], regret, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(np.stack(context, 1), np.asarray(step.observation)[:, :2])
    assert np.abs(np.asarray(shown)[:, :2] - np.stack(context, 1)).min(1).max() > 0.01
    assert np.abs(weights.std(0) - 1).max() < 0.06
    assert np.abs(np.stack(context).std(1) - math.sqrt(1 / 3)).max() < 0.03


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Catch(rows=1), r"rows=1: needs an integer of at least 2"),
        (lambda: Catch(columns=0), r"columns=0"),
        (lambda: DeepSea(size=1), r"size=1: needs an integer of at least 2"),
        (lambda: MemoryChain(num_bits=0), r"num_bits=0"),
        (lambda: UmbrellaChain(distractors=-1), r"distractors=-1"),
        (lambda: BernoulliBandit(arms=0), r"arms=0"),
        (lambda: GaussianBandit(arms=2.5), r"arms=2\.5"),  # type: ignore[arg-type]
        (lambda: LinearContextualBandit(features=0), r"features=0"),
        (lambda: fastrl.registry.make("bsuite/DeepSea-v0", depth=3), "unknown option"),
    ],
)
def test_wrong_sizes_are_refused_with_their_value(make: Callable[[], Any], message: str) -> None:
    """Fails if a size that makes no sense is found out inside a compiled program only."""
    with pytest.raises(ValueError, match=message):
        make()


def test_params_of_a_wrong_shape_are_refused() -> None:
    """Fails if a mapping of another size is read as if it fitted."""
    sea = DeepSea(size=8)
    params = sea.default_params()._replace(mapping=np.ones((8, 7), bool))
    with pytest.raises(ValueError, match=r"params\.mapping has shape \(8, 7\): needs \(8, 8\)"):
        sea.step(KEY, one(DeepSea(size=8)), jnp.int32(1), params)
    named: list[tuple[Any, str]] = [
        (BernoulliBandit(), "low"),
        (GaussianBandit(), "mean"),
        (LinearContextualBandit(), "spread"),
    ]
    for env, name in named:
        with pytest.raises(ValueError, match=rf"params\.{name} has shape \(9,\)"):
            env.reset(KEY, env.default_params()._replace(**{name: np.ones(9, np.float32)}))


CHAIN = DelayedChain(longest=12, noisy=True, distractors=3)


@pytest.mark.parametrize("first", [0, 1])
def test_delayed_chain_pays_the_first_action_at_the_end(first: int) -> None:
    """Fails if a later action counts, a place is shown twice, or the end comes at another time."""
    params = CHAIN.default_params()._replace(chain_length=7, right=0)
    state, observation = CHAIN.reset(KEY, params)
    walk = jax.jit(CHAIN.walk)
    rng, places = np.random.default_rng(first), [np.asarray(observation)[:25]]
    for t in range(7):
        action = first if t == 0 else 1 - first
        coin, bits = bool(rng.integers(2)), rng.integers(2, size=3) == 1
        state, step = walk(state, jnp.int32(action), jnp.bool_(coin), jnp.asarray(bits), params)
        over = t == 6
        expected = (1.0 if first == 0 else -1.0) if over else 2.0 * coin - 1.0
        assert (float(step.reward), bool(step.terminated)) == (expected, over)
        assert np.asarray(step.observation)[25:].tolist() == bits.tolist()
        places.append(np.asarray(step.observation)[:25])
    assert [p.argmax() for p in places] == [0, *range(1 + 12 * first, 8 + 12 * first)]
    assert all(p.sum() == 1.0 for p in places)


def test_delayed_chain_draws_its_tasks_and_coins() -> None:
    """Fails if a length is never drawn, an action is favoured, or two coins are the same one."""
    keys = jax.random.split(KEY, N)
    tasks = jax.jit(jax.vmap(CHAIN.sample_level))(keys)
    share = np.bincount(tasks.chain_length, minlength=13) / N
    assert not share[:5].any()
    assert np.abs(share[5:] - 1 / 8).max() < 5 * math.sqrt(0.125 * 0.875 / N)
    assert near_half(np.mean(tasks.right))
    _, step = stepped(CHAIN, one(CHAIN), 1)
    coins = np.column_stack([np.asarray(step.reward) > 0, np.asarray(step.observation)[:, 25:]])
    assert near_half(coins.mean(0))
    assert np.abs(np.corrcoef(coins.T) - np.eye(4)).max() < 0.09


def test_delayed_chain_without_noise_pays_nothing_on_the_way() -> None:
    """Fails if the plain variant is a noisy one."""
    env = DelayedChain()
    _, step = stepped(env, one(env), 1)
    assert not np.asarray(step.reward).any()
    with pytest.raises(ValueError, match="longest=4"):
        DelayedChain(longest=4)
