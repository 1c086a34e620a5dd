"""`meta_evolution` over inner algorithms whose lifetimes are easy to follow."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fastrl
from fastrl import metrics as fm
from fastrl.meta import evolution
from fastrl.meta.evolution_search import gradient
from fastrl.meta.evolution_shaping import SHAPINGS
from fastrl.types import Algorithm

AIM = np.array([1.0, -2.0, 0.5], np.float32)


class HParams(NamedTuple):
    objective: Any = ()
    decay: float = 0.5
    fails_below: float = -1e9  # an eta whose first entry is below makes NaN


class State(NamedTuple):
    key: Any
    x: Any
    iteration: Any


def toy(kind: str) -> Algorithm[HParams, State]:
    """Inner "training": x follows eta, or is worth as much as eta is near to `AIM`."""

    def init(key, hparams, task):
        return State(key, jnp.float32(task), jnp.int32(0))

    def step(state, hparams, task):
        key, draw = jax.random.split(state.key)
        eta = jnp.ravel(hparams.objective)
        if kind == "quadratic":
            x = -((eta - AIM) ** 2).sum()
        elif kind == "linear":
            x = hparams.decay * state.x + eta[0]
        else:
            x = jax.random.normal(draw)
        x = jnp.where(eta[0] < hparams.fails_below, jnp.nan, x)
        state = State(key, x, state.iteration + 1)
        return state, {"x": fm.mean(x), "iteration": fm.mean(state.iteration)}

    def act(state, carry, observation, key):
        raise NotImplementedError

    return Algorithm(init, step, act, 10, HParams(), parameters=lambda s: s.x)


def fitness(inner):
    return lambda key, state, metrics, task: state.x


@functools.cache
def built(kind: str, optimizer: Any = optax.sgd, size: int = 3, **config: Any) -> Any:
    defaults = {"pairs": 4, "lifetimes": (1,), "shaping": "raw", "chunk": 2} | config
    return evolution.make(
        toy(kind), lambda key: jnp.zeros(size), evolution.Config(**defaults),
        fitness=fitness, optimizer=optimizer,
    )  # fmt: skip


def hparams(**changes: Any) -> evolution.HParams:
    inner = HParams(**{k: changes.pop(k) for k in ("decay", "fails_below") if k in changes})
    return evolution.HParams(**{"learning_rate": 1.0, "inner": inner} | changes)


def generations(outer: Any, number: int) -> Any:
    """The function `(key, hparams) -> (etas [G, ...], metrics [G])`."""

    def body(state, numbers):
        state, metrics = outer.step(state, numbers, jnp.float32(0))
        return state, (outer.parameters(state), metrics)

    def program(key, numbers):
        state = outer.init(key, numbers, jnp.float32(0))
        return jax.lax.scan(lambda s, _: body(s, numbers), state, None, number)[1]

    return jax.jit(program)


def test_the_gradient_of_a_quadratic_is_exact_at_any_width():
    """E g = 2 (x - a): a wrong factor, or a sum over members instead of pairs."""
    eps = np.random.default_rng(0).normal(size=(4_096, 3)).astype(np.float32)
    ok, wanted = jnp.ones(4_096, bool), -2.0 * (0.0 - AIM)
    for sigma in (0.1, 3.0):
        plus, minus = (-((s * sigma * eps - AIM) ** 2).sum(1) for s in (1, -1))
        estimate = gradient(jnp.asarray(eps), jnp.stack([plus, minus], 1), ok, sigma)
        np.testing.assert_allclose(estimate, wanted, rtol=0.1, atol=0.1)
    exact = 2.0 * (eps.T @ eps / len(eps)) @ AIM  # the same, of these draws
    np.testing.assert_allclose(estimate, exact, rtol=1e-3)


def test_it_climbs_a_quadratic():
    """200 generations of Adam end within 0.05 of the best eta: sign, pairing, optimiser."""
    outer = built("quadratic", optax.adam, pairs=16, chunk=32)
    etas, metrics = generations(outer, 200)(fastrl.key(0), hparams(learning_rate=0.05))
    assert float(jnp.linalg.norm(etas[-1] - AIM)) < 0.05
    curve = np.asarray(metrics["fitness"].total / metrics["fitness"].weight)
    assert curve[-1] > curve[0] + 4.0


def test_pairwise_ranks_need_no_common_scale():
    """Constants per pair and monotone maps change nothing; ties and left-out pairs weigh 0."""
    rng, ok = np.random.default_rng(1), jnp.ones(64, bool)
    plain = jnp.float32(rng.normal(size=(64, 2)))
    shaped = SHAPINGS["pairwise"](plain, ok)
    moved = 8.0 * plain + jnp.float32(rng.normal(size=(64, 1)) * 100)
    np.testing.assert_array_equal(SHAPINGS["pairwise"](moved, ok), shaped)
    np.testing.assert_array_equal(SHAPINGS["pairwise"](plain**3, ok), shaped)
    np.testing.assert_array_equal(np.sort(shaped, 1), np.tile([0.0, 1.0], (64, 1)))
    eps = jnp.float32(rng.normal(size=(64, 5)))
    tied = SHAPINGS["pairwise"](jnp.repeat(plain[:, :1], 2, 1), ok)
    np.testing.assert_array_equal(gradient(eps, tied, ok, 0.1), 0.0)


def test_ranks_and_scores_over_the_population():
    """NumPy: ranks from -1/2 to 1/2 with shared ties, standard scores; NaN has no part in them."""
    values = np.array([[3.0, -1.0], [3.0, 10.0], [np.nan, 99.0]], np.float32)
    ok = jnp.array([True, True, False])
    centred = SHAPINGS["centred"](jnp.asarray(values), ok)[:2]
    np.testing.assert_allclose(centred, np.array([[1.5, 0.0], [1.5, 3.0]]) / 3 - 0.5)
    known = values[:2]
    standard = SHAPINGS["standard"](jnp.asarray(values), ok)[:2]
    np.testing.assert_allclose(standard, (known - known.mean()) / known.std(), rtol=1e-5)


def test_a_lifetime_that_diverges_is_counted_and_left_out():
    """NaN of one agent in the outer update, or its partner's number without it."""
    outer = built("quadratic", pairs=8, chunk=2)
    run = generations(outer, 1)
    key = fastrl.key(3)
    etas, sound = run(key, hparams(sigma=1.0))
    left, some = run(key, hparams(sigma=1.0, fails_below=-0.3))
    share = float(some["diverged"].total[0] / some["diverged"].weight[0])
    assert float(sound["diverged"].total[0]) == 0.0
    assert 0.0 < share < 1.0
    assert bool(jnp.isfinite(left).all())
    assert bool((left != etas).any())
    assert float(some["fitness"].weight[0]) == 16 - 2 * 16 * share
    assert all(bool(jnp.isfinite(m.total).all()) for m in some.values())
    none, _ = run(key, hparams(sigma=1.0, fails_below=1e9))
    np.testing.assert_array_equal(none, 0.0)  # nobody is left: eta stays where it is


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["persistent", "reuse", "truncated"])
def test_only_truncation_is_biased(estimator):
    """x <- x / 2 + eta, worth x after each of 4 windows: d x_t / d eta = 1, 1.5, 1.75, 1.875.

    Truncated ES sees only the last window, 1; persistent and noise-reuse ES the whole path.
    The mean over 16 x 8,192 particles lies within 3 standard errors.
    """
    outer = built("linear", size=1, pairs=8_192, lifetimes=(4,), estimator=estimator, window=1,
                  chunk=16_384)  # fmt: skip
    keys = jax.random.split(fastrl.key(0), 16)
    etas, _ = jax.vmap(generations(outer, 8), (0, None))(keys, hparams(sigma=0.5))
    slopes = np.asarray(etas[:, -1] - etas[:, -2], np.float64).ravel()  # after the first lives
    error = slopes.std(ddof=1) / np.sqrt(len(slopes))
    whole = np.mean([1.0, 1.5, 1.75, 1.875])
    biased = abs(slopes.mean() - whole) > 3 * error
    assert biased == (estimator == "truncated")
    assert abs(slopes.mean() - (1.0 if biased else whole)) < 3 * error + 1e-3


def test_lifetimes_are_bucketed_and_not_padded():
    """Agents of every length take exactly their iterations; steps are counted so."""
    outer = built("linear", size=1, pairs=4, lifetimes=(3, 8), chunk=1)
    assert outer.steps_per_iteration == 2 * 2 * (3 + 8) * 10
    _, metrics = generations(outer, 1)(fastrl.key(0), hparams())
    assert float(metrics["inner_iteration"].weight[0]) == 2 * 2 * (3 + 8)
    assert float(metrics["inner_iteration"].total[0]) == 2 * 2 * (6 + 36)
    last = built("linear", size=1, pairs=4, lifetimes=(3, 8), chunk=1, measured=1)
    _, metrics = generations(last, 1)(fastrl.key(0), hparams())
    assert float(metrics["inner_iteration"].total[0]) == 2 * 2 * (3 + 8)


def test_the_inner_learner_is_told_its_lifetime():
    """Without it n/N is 0 for ever: TA-LPO would be LPO, and learning rates would not fall."""
    from fastrl import ppo
    from fastrl.meta.evolution_lives import install

    told = install(ppo.HParams(gamma=0.9), "eta", jnp.float32(640))
    assert (told.objective, float(told.anneal_steps), told.gamma) == ("eta", 640.0, 0.9)
    assert install(HParams(), "eta", jnp.float32(640)) == HParams(objective="eta")


@pytest.mark.parametrize("config", [{}, {"estimator": "persistent", "window": 2}])
def test_the_members_of_a_pair_share_their_luck(config):
    """Fitness that is nothing but luck must be equal within a pair, and differ between pairs."""
    outer = built("random", lifetimes=(4,), **config)
    etas, metrics = generations(outer, 5)(fastrl.key(0), hparams())
    np.testing.assert_array_equal(metrics["fitness_gap"].total, 0.0)
    np.testing.assert_array_equal(etas, 0.0)
    assert len(np.unique(np.asarray(metrics["fitness"].total))) == 5


@pytest.mark.slow
def test_chunks_and_devices_change_no_number():
    """One member at a time, all at once, on four devices: the same eta after three generations."""
    config = {"pairs": 8, "lifetimes": (1, 2), "shaping": "centred"}
    found = [
        generations(built("quadratic", optax.adam, **config, **how), 3)(fastrl.key(0), hparams())
        for how in ({"chunk": 1}, {"chunk": 8}, {"chunk": 1, "devices": 4})
    ]
    for etas, metrics in found[1:]:
        np.testing.assert_allclose(etas, found[0][0], rtol=1e-5)
        np.testing.assert_allclose(
            metrics["inner_iteration"].total, found[0][1]["inner_iteration"].total
        )


@pytest.mark.slow
@pytest.mark.parametrize("config", [{}, {"estimator": "persistent", "window": 2}])
def test_a_resumed_run_is_the_whole(config, tmp_path):
    """Lives under way, sums of perturbations or moments of Adam that are not saved."""
    outer = built("linear", optax.adam, size=1, lifetimes=(4,), **config)
    numbers, steps = hparams(learning_rate=0.1, fails_below=-0.2), outer.steps_per_iteration
    options = {"progress": False, "log_every": steps}
    whole = fastrl.train(outer, numbers, jnp.float32(0), steps=6 * steps, **options)
    fastrl.train(outer, numbers, jnp.float32(0), steps=2 * steps, run_dir=tmp_path, **options)
    again = fastrl.train(outer, steps=6 * steps, run_dir=tmp_path, resume=True,
                         task=jnp.float32(0), progress=False)  # fmt: skip
    words = lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x  # noqa: E731
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(words(a), words(b))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"pairs": 3, "lifetimes": (1, 2)}, "pairs=3 is not divisible by the 2 lifetimes"),
        ({"estimator": "persistent", "lifetimes": (5,), "window": 2}, "window=2 does not divide"),
        ({"estimator": "reuse"}, "window=0 does not divide"),
        ({"window": 4}, "estimator='full'"),
        ({"shaping": "rank"}, "shaping"),
        ({"pairs": 3, "chunk": 4}, "chunk=4 does not divide the 6"),
        ({"devices": 5}, "devices=5 does not divide"),
        ({"estimator": "reuse", "window": 1, "lifetimes": (1,), "strategy": "snes"}, "openai"),
        ({"lifetimes": (0,)}, "lifetimes=0"),
    ],
)
def test_bad_configs_name_the_value(config, words):
    """What can't be right is said before anything is compiled."""
    with pytest.raises(ValueError, match=words):
        evolution.Config(**config)


def test_bad_numbers_and_missing_environments_are_named():
    """A width of 0 divides by 0; the default fitness plays an environment."""
    with pytest.raises(ValueError, match="sigma"):
        built("quadratic").check(hparams(sigma=0.0))
    with pytest.raises(ValueError, match="fitness"):
        evolution.make(toy("linear"), lambda key: jnp.zeros(1))


def test_an_inner_learner_without_an_objective_is_named():
    """`_replace() got unexpected field names` would be all there is to read."""
    from fastrl import a2c

    inner = a2c.make(fastrl.make("CartPole-v1"))
    with pytest.raises(ValueError, match=r"a2c\.HParams has no objective"):
        evolution.make(inner, lambda key: jnp.zeros(1))


@pytest.mark.slow
def test_rules_that_make_targets_are_learned_too():
    """Any inner algorithm: LPG's agent on levels, lifetimes of two lengths; nothing is compiled."""
    from fastrl.meta import lpg, lpg_agent

    rule = lpg.LPG()
    config = lpg_agent.Config(num_envs=2, num_steps=3)
    inner = lpg_agent.make(fastrl.make("grid/Debug-v0"), config, objective=rule)
    outer = evolution.make(inner, rule.init, evolution.Config(pairs=2, lifetimes=(2, 3)))
    task = inner.env.default_params()
    state, metrics = jax.eval_shape(
        fastrl.run(outer, outer.steps_per_iteration), fastrl.key(0),
        evolution.HParams(inner=inner.default_hparams), task,
    )  # fmt: skip
    assert jax.tree.structure(state.eta) == jax.tree.structure(rule.init(jax.random.key(0)))
    assert metrics["fitness"].total.shape == (1,)


def test_log_uniform_lifetimes():
    """Quantiles of the distribution that lifetimes are usually drawn from, in windows."""
    lengths = evolution.log_uniform(10, 250, 4, multiple=5)
    assert lengths == (15, 35, 75, 165)
    assert evolution.log_uniform(7, 7, 2) == (7, 7)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["snes", "xnes", "cma_es"])
def test_strategies_of_evosax(strategy):
    """They climb too, and without the package the error says what to install."""
    evosax = pytest.importorskip("evosax")
    assert evosax
    outer = built("quadratic", pairs=16, chunk=32, strategy=strategy, shared=True)
    etas, metrics = generations(outer, 120)(fastrl.key(0), hparams(sigma=0.5, fails_below=-3.0))
    assert float(jnp.linalg.norm(etas[-1] - AIM)) < 0.1
    assert all(bool(jnp.isfinite(m.total).all()) for m in metrics.values())


def test_without_evosax_the_error_says_what_to_do(monkeypatch):
    """A bare ModuleNotFoundError would not say that the extra is optional."""
    monkeypatch.setitem(__import__("sys").modules, "evosax.algorithms", None)
    with pytest.raises(ImportError, match="pip install 'fastrl\\[evosax\\]'"):
        built.__wrapped__("quadratic", strategy="snes")


def test_the_page_lists_all_settings_with_their_defaults():
    """A field that was added, renamed or given another default."""
    import dataclasses
    import re
    from pathlib import Path

    text = (Path(__file__).parents[1] / "docs/algorithms/meta_evolution.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+?) \|", text, re.MULTILINE))
    listed = {name: value.strip('"') for name, value in rows.items()}
    defaults = dataclasses.asdict(evolution.Config()) | evolution.HParams()._asdict()
    assert listed == {name: str(value) for name, value in defaults.items()}
