"""DQN: its update against float64, its switches, probes, and CartPole."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle_dqn
import pytest

import fastrl
from fastrl import noisy
from fastrl import value_distributions as distributions
from fastrl.algorithms import dqn, dqn_parts
from fastrl.algorithms.replay import Batch

ACTIONS = 3
HPARAMS = dqn.HParams(
    learning_rate=0.05, target_period=2, tau=0.5, value_min=-2.0, value_max=3.0, kappa=0.7, eta=0.3,
    temperature=0.5,
)  # fmt: skip
CASES = [
    ({}, {"huber": 0.5}),
    ({"double": True, "dueling": True}, {}),
    ({"munchausen": True}, {}),
    ({"distribution": "categorical", "double": True}, {}),
    ({"distribution": "quantile", "dueling": True}, {}),
    ({"distribution": "quantile", "munchausen": True}, {}),
    ({"optimism": "value", "double": True}, {}),
    ({"optimism": "gap"}, {}),
]


def a_batch(seed, size=12):
    rng = np.random.default_rng(seed)
    return {
        "observation": rng.normal(size=(size, 4)),
        "action": rng.integers(0, ACTIONS, size),
        "reward": rng.normal(size=size),
        "discount": 0.9 * (rng.random(size) < 0.7),
        "next_observation": rng.normal(size=(size, 4)),
        "weight": rng.random(size) + 0.5,
    }


def of_config(switches, hidden_sizes=()):
    """The parts of DQN for observations of 4 numbers and 3 actions."""
    config = dqn.Config(hidden_sizes=hidden_sizes, num_atoms=7, **switches)
    seen, actions = fastrl.spaces.Box(-1.0, 1.0, (4,)), fastrl.spaces.Discrete(ACTIONS)
    return dqn_parts.parts(seen, actions, config)


def updated(parts, learned, batches, hparams, key=None):
    """After an update on each batch, and the errors."""
    key, errors = jax.random.key(0) if key is None else key, []
    update = jax.jit(functools.partial(dqn._update, parts))
    for batch in batches:
        arrays = {
            k: jnp.asarray(v, "int32" if k == "action" else "float32") for k, v in batch.items()
        }
        learned, _, error = update(learned, Batch(**arrays), key, hparams, jnp.int32(0))
        errors.append(np.asarray(error))
    return learned, errors


@pytest.mark.parametrize(("switches", "numbers"), CASES)
def test_three_updates_equal_float64(switches, numbers):
    """A switch that does something else than its paper says, a weight or a copy left out."""
    parts, hparams = of_config(switches), HPARAMS._replace(**numbers)
    learned = dqn._init(parts, jax.random.key(1), hparams)
    start = jax.tree.map(lambda x: np.asarray(x, np.float64), learned.networks.params["params"])
    batches = [a_batch(seed) for seed in range(3)]
    learned, errors = updated(parts, learned, batches, hparams)
    result = oracle_dqn.run(start, batches, switches, hparams._asdict(), ACTIONS)
    got = learned.networks.params["params"], learned.networks.target["params"], errors
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(result), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)
    plain = oracle_dqn.run(
        start, batches, {k: v for k, v in switches.items() if k in ("distribution", "dueling")},
        HPARAMS._asdict(), ACTIONS,
    )  # fmt: skip
    if set(switches) - {"distribution", "dueling"} or numbers:  # else the switch had done nothing
        moved = np.abs(
            plain[0]["head"]["advantage"]["kernel"] - result[0]["head"]["advantage"]["kernel"]
        )
        assert moved.max() > 1e-3


def test_projection_keeps_mass_and_mean():
    """Atoms that fall on atoms, between them and beyond: mass lost, or the mean moved."""
    bounds = jnp.array([-1.0, 1.0])
    p = np.random.default_rng(0).dirichlet(np.ones(5), 4)
    atoms = np.linspace(-1.0, 1.0, 5)
    places = np.stack([atoms, 0.5 * atoms + 0.25, 0.37 * atoms + 0.111, 3.0 * atoms])
    got = distributions.project(jnp.asarray(p, "float32"), jnp.asarray(places, "float32"), bounds)
    np.testing.assert_allclose(got.sum(-1), 1.0, atol=1e-6)
    np.testing.assert_allclose(got[0], p[0], atol=1e-6)  # every place is an atom
    np.testing.assert_allclose(got[1:3] @ atoms, (p * places)[1:3].sum(-1), atol=1e-6)
    for i in range(4):
        np.testing.assert_allclose(
            got[i], oracle_dqn.projected(p[i], places[i], -1.0, 1.0), atol=1e-6
        )


def test_quantile_loss_finds_the_quantiles():
    """A loss with levels upside down or errors of the wrong sign finds others."""
    distribution = distributions.quantile(4)
    sample = jnp.sort(jax.random.exponential(jax.random.key(0), (2_000,)))
    wide = jnp.broadcast_to(sample[None], (1, 2_000))

    @jax.jit
    def descend(outputs):
        step = jax.grad(lambda x: distribution.loss(x, wide, 0.01)[0].sum())
        return jax.lax.fori_loop(0, 2_000, lambda _, x: x - 0.03 * step(x), outputs)

    found = descend(jnp.zeros((1, 4)))[0]
    np.testing.assert_allclose(found, jnp.quantile(sample, jnp.array([1, 3, 5, 7]) / 8), atol=0.02)


def test_noise_is_factorised_and_learned():
    """Noise of the wrong scale or rank, the same in every draw, or a deviation that stays."""
    parts = of_config({"noisy": True, "dueling": True}, (6,))
    learned = dqn._init(parts, jax.random.key(1), HPARAMS)
    params = learned.networks.params
    keys = jax.random.split(jax.random.key(2), 2_000)
    draws = jax.vmap(lambda k: noisy.sample(params, k))(keys)["params"]["head"]["advantage"]
    mean = params.mean["params"]["head"]["advantage"]
    sigma = 0.5 / np.sqrt(6)
    noise = (np.asarray(draws["kernel"]) - np.asarray(mean["kernel"])) / sigma
    assert np.linalg.matrix_rank(noise[0], tol=1e-4) == 1
    np.testing.assert_allclose(noise.mean(0), 0.0, atol=0.08)
    np.testing.assert_allclose((noise**2).mean(0), 2 / np.pi, atol=0.08)  # (E|e|)^2
    outer = (np.asarray(draws["bias"]) - np.asarray(mean["bias"])) / sigma
    np.testing.assert_allclose((outer**2).mean(0), np.sqrt(2 / np.pi), atol=0.08)
    after, _ = updated(parts, learned, [a_batch(0)], HPARAMS)
    for a, b in zip(
        jax.tree.leaves(after.networks.params.deviation),
        jax.tree.leaves(params.deviation),
        strict=True,
    ):
        assert (np.asarray(a) != np.asarray(b)).any()


@pytest.mark.parametrize("optimism", ["value", pytest.param("gap", marks=pytest.mark.slow)])
def test_optimism_of_weight_0_is_none_at_all(optimism):
    """Bit for bit; and another weight changes the update."""
    batches, ends = [a_batch(0), a_batch(1)], []
    for switches, eta in (({}, 0.0), ({"optimism": optimism}, 0.0), ({"optimism": optimism}, 0.1)):
        parts, hparams = of_config(switches, (8,)), HPARAMS._replace(eta=eta)
        learned = dqn._init(parts, jax.random.key(1), hparams)
        ends.append(jax.tree.leaves(updated(parts, learned, batches, hparams)[0]))
    assert all((np.asarray(a) == np.asarray(b)).all() for a, b in zip(*ends[:2], strict=True))
    assert any((np.asarray(a) != np.asarray(b)).any() for a, b in zip(*ends[1:], strict=True))


SMALL = dqn.Config(
    num_envs=8, num_steps=2, batch_size=32, buffer_size=2_048, learning_starts=256, num_rounds=32,
    hidden_sizes=(32,),
)  # fmt: skip
QUICK = dqn.HParams(
    learning_rate=3e-3, gamma=0.9, exploration_steps=4_000, target_period=20, anneal_steps=24_000
)


def learned(name, config=SMALL, hparams=QUICK, steps=24_000):
    env = fastrl.make(name)
    algorithm = dqn.make(env, config)
    program = jax.jit(fastrl.run(algorithm, steps))
    state, _ = program(jax.random.key(0), hparams, env.default_params())
    return algorithm, state


def values(algorithm, state, *observations):
    return np.asarray(algorithm.value(state, jnp.array(observations, jnp.float32)[:, None]))


def test_discount():
    """A discount that is not applied or applied twice, or a value after a termination."""
    algorithm, state = learned("probe/Discount")
    np.testing.assert_allclose(values(algorithm, state, 0.0, 1.0), [0.9, 1.0], atol=0.03)


def test_time_limit_is_no_end():
    """Reward 1 for ever, cut off every few steps: worth 1/(1-gamma), not the truncated sum."""
    hparams = QUICK._replace(gamma=0.8, learning_rate=2e-2)
    algorithm, state = learned("probe/TimeLimit", hparams=hparams)
    np.testing.assert_allclose(values(algorithm, state, 0.0), [5.0], rtol=0.05)


RAINBOW = {
    "double": True, "dueling": True, "prioritised": True, "noisy": True, "n_step": 3,
    "distribution": "categorical",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    "switches", [{"distribution": "quantile", "munchausen": True}, RAINBOW],
    ids=["quantile", "rainbow"],
)  # fmt: skip
def test_policy(switches):
    """Observations and actions out of step, or a switch that breaks the whole."""
    config = dqn.Config(**{f: getattr(SMALL, f) for f in vars(SMALL)} | switches)
    algorithm, state = learned(
        "probe/PolicyFromObservation", config, QUICK._replace(value_min=-1.0, value_max=2.0)
    )
    assert fastrl.evaluate(algorithm, state, episodes=50).mean_return == 1.0


@pytest.mark.slow
def test_optimism_finds_the_treasure_of_the_deep_sea():
    """A dive of 12 steps, each to the right by a hidden map: by chance once in 4,096 dives.

    With optimism of soft values the last episodes reach it; with weight 0, epsilon-greedy, none.
    """
    env = fastrl.make("bsuite/DeepSea-v0", size=12)
    config = dqn.Config(
        num_envs=4, num_steps=5, num_updates=2, num_rounds=60, batch_size=64, buffer_size=20_000,
        learning_starts=200, hidden_sizes=(), optimism="value",
    )  # fmt: skip
    algorithm = dqn.make(env, config)
    hparams = dqn.HParams(
        learning_rate=1e-2, exploration_steps=2_000, final_epsilon=0.02, target_period=20
    )
    training = fastrl.run(algorithm, 30_000)

    def late_return(member):
        key, eta = member
        _, metrics = training(key, hparams._replace(eta=eta), env.default_params())
        total, weight = metrics["episode_return"]
        return total[-5:].sum() / weight[-5:].sum()

    keys = jax.random.split(fastrl.key(0), 6)
    etas = jnp.array([0.0, 0.0, 0.0, 3e-3, 3e-3, 3e-3])
    reached = jax.jit(lambda *members: jax.lax.map(late_return, members))(keys, etas)
    assert (reached[:3] < 0.05).all()
    assert (reached[3:] > 0.6).all()


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"n_step": 0}, "n_step=0"),
        ({"num_envs": -1}, "num_envs=-1"),
        ({"num_atoms": 1}, "num_atoms=1"),
        ({"distribution": "c51"}, "unknown distribution 'c51'"),
        ({"munchausen": True, "n_step": 3}, "n_step=1 .has 3"),
        ({"munchausen": True, "distribution": "categorical"}, "'categorical'"),
        ({"buffer_size": 20, "num_envs": 8, "num_steps": 2, "n_step": 9}, "needs at least 80"),
    ],
)
def test_bad_configs_name_the_value(kwargs, words):
    with pytest.raises(ValueError, match=words):
        dqn.Config(**kwargs)


def test_what_does_not_fit_is_refused():
    """Actions that have no list of values, bounds the wrong way round, numbers out of range."""
    with pytest.raises(ValueError, match="need Discrete"):
        dqn.make(fastrl.make("Pendulum-v1"))
    algorithm = dqn.make(fastrl.make("CartPole-v1"))
    with pytest.raises(ValueError, match="value_min=2"):
        algorithm.check(dqn.HParams(value_min=2.0, value_max=1.0))
    with pytest.raises(ValueError, match="gamma"):
        algorithm.check(dqn.HParams(gamma=1.5))
    assert dqn.make(fastrl.make("CartPole-v1")) is algorithm
