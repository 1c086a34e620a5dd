"""Learning-rate schedules: the paper's formula, optax's interface, learners, and what they gain."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from scipy import ndimage

import fastrl
from fastrl import metrics as fm
from fastrl import ppo, schedules

STEPS = 300
RANDOM = np.random.default_rng(0)
NORMS = {
    "steady": np.full(60, 3.0),
    "falling": 1.0 + 9.0 * np.exp(-np.arange(200) / 20.0),
    "rising": np.linspace(1.0, 6.0, 101),
    "noisy": RANDOM.gamma(3.0, size=157),
    "two": np.array([1.0, 2.0]),
}


def by_the_paper(norms, power, smoothing=0.1):
    """Algorithm 1 with loops, and SciPy's median with the edges of the authors' code."""
    width = 2 * (int(smoothing * len(norms)) // 2) + 1
    pad = 2 * width
    padded = np.pad(norms, (0, pad), mode="reflect")
    smooth = ndimage.median_filter(padded, size=width, mode="nearest")[:-pad]
    weights = smooth**power
    eta = np.array([w * sum(weights[t + 1 :]) for t, w in enumerate(weights)])
    return eta / eta.max()


class TestRefine:
    @pytest.mark.parametrize("name", NORMS)
    @pytest.mark.parametrize(("norm", "power"), [("l1", -1.0), ("l2", -2.0)])
    def test_equals_the_papers_formula(self, name, norm, power):
        """Another power, another edge of the median or a sum that starts early is another rate."""
        made = schedules.refine(NORMS[name], norm=norm)
        np.testing.assert_allclose(made, by_the_paper(NORMS[name], power), rtol=1e-12, atol=1e-15)
        wide = schedules.refine(NORMS[name], norm=norm, smoothing=0.4)
        np.testing.assert_allclose(wide, by_the_paper(NORMS[name], power, 0.4), atol=1e-12)

    def test_equal_norms_give_linear_decay(self):
        """The formula's special case: where nothing is known it must not invent a shape."""
        made = schedules.refine(NORMS["steady"])
        np.testing.assert_allclose(made, 1.0 - np.arange(60) / 59, atol=1e-12)

    def test_it_finds_warm_up_and_fast_annealing(self):
        """Large gradients at the start ask for small steps there, and likewise at the end."""
        falling = schedules.refine(NORMS["falling"], norm="l2")
        assert 30 < falling.argmax() < 100
        assert falling[0] < 0.1
        rising = schedules.refine(NORMS["rising"], norm="l2")
        assert rising.argmax() == 0
        assert rising[50] < 0.2 < 0.5 == pytest.approx(schedules.refine(np.ones(101))[50])

    def test_scale_does_not_matter(self):
        """Tiny norms must not overflow as weights."""
        made = schedules.refine(NORMS["noisy"] * 1e-200, norm="l2")
        np.testing.assert_allclose(made, schedules.refine(NORMS["noisy"], norm="l2"), rtol=1e-9)

    @pytest.mark.parametrize(
        ("norms", "options", "message"),
        [
            ([1.0], {}, "at least two"),
            ([1.0, float("nan"), 1.0], {}, "hold nan"),
            ([1.0, -1.0], {}, "hold -1.0"),
            ([1.0, 0.0, 0.0, 0.0], {}, "is 0 around update 1"),
            ([1.0, 1.0], {"norm": "L1"}, "l1"),
            ([1.0, 1.0], {"smoothing": 10}, "smoothing=10"),
        ],
    )
    def test_what_is_no_record_is_refused(self, norms, options, message):
        """A zero would get all the weight there is."""
        with pytest.raises(ValueError, match=message):
            schedules.refine(norms, **options)


class TestAsOptaxSchedules:
    def test_linear_decay(self):
        """As optax has it; with warm-up the peak comes after it, and the end stays."""
        t = jnp.arange(12)
        ours = schedules.linear_decay(0.5, 10)(t)
        np.testing.assert_allclose(ours, optax.linear_schedule(0.5, 0.0, 10)(t), atol=1e-7)
        warm = schedules.linear_decay(1.0, 8, warmup_steps=4, final=0.2)(t)
        expected = [0.2, 0.4, 0.6, 0.8, 1.0, 0.8, 0.6, 0.4, 0.2, 0.2, 0.2, 0.2]
        np.testing.assert_allclose(warm, expected, atol=1e-6)

    def test_refined_is_refine_at_every_update(self):
        """And the same shape over more updates, nothing after the end."""
        factors = schedules.refine(NORMS["noisy"])
        t = jnp.arange(len(factors))
        made = schedules.refined(NORMS["noisy"], 0.25)
        np.testing.assert_allclose(made(t), 0.25 * factors, atol=1e-6)
        longer = schedules.refined(NORMS["noisy"], 0.25, steps=3 * 156 + 1)
        np.testing.assert_allclose(longer(3 * t), 0.25 * factors, atol=1e-5)
        assert np.asarray(made(1000)) == 0.0

    def test_another_peak_compiles_nothing(self):
        """The rate is a traced number of a sweep; the shape is a constant."""
        traces = []

        @jax.jit
        def updated(peak, gradient):
            traces.append(1)
            optimizer = optax.adam(schedules.refined(NORMS["falling"], peak))
            state = optimizer.init(gradient)
            return optimizer.update(gradient, state)[0]

        small, large = updated(0.1, jnp.ones(3)), updated(0.2, jnp.ones(3))
        assert len(traces) == 1
        np.testing.assert_allclose(2 * small, large, rtol=1e-5)
        many = jax.vmap(updated, (0, None))(jnp.array([0.1, 0.2]), jnp.ones(3))
        np.testing.assert_allclose(many, jnp.stack([small, large]), rtol=1e-6)

    def test_the_recorder_sees_gradients_before_they_are_changed(self):
        """Norms after Adam would be those of its steps, and refining them would do nothing."""
        optimizer = optax.chain(schedules.norm_recorder(3), optax.adam(0.1))
        params = {"a": jnp.ones(2), "b": jnp.zeros(())}
        state: Any = optimizer.init(params)
        for scale in (1.0, 2.0, 3.0, 4.0):
            gradient = {"a": jnp.array([3.0, -4.0]) * scale, "b": jnp.float32(0.0)}
            _, state = optimizer.update(gradient, state, params)
        assert state[0].l1.tolist() == pytest.approx([7.0, 14.0, 21.0])
        assert state[0].l2.tolist() == pytest.approx([5.0, 10.0, 15.0])
        assert int(state[0].updates) == 4


class Fit(NamedTuple):
    """The state of a learner with Adam."""

    weights: Any
    optimizer: Any
    count: Any


class Rate(NamedTuple):
    learning_rate: float = 0.1


def fitting(updates):
    """A learner whose iteration is `updates` updates by gradients that are known."""

    def gradient(count):
        return {"x": jnp.array([1.0, -2.0]) * (1.0 + count), "y": jnp.float32(3.0)}

    def init(key, hparams, task):
        weights = jax.tree.map(jnp.zeros_like, gradient(0))
        return Fit(weights, optax.adam(hparams.learning_rate).init(weights), jnp.int32(0))

    def step(state, hparams, task):
        for _ in range(updates):
            made, optimizer = optax.adam(hparams.learning_rate).update(
                gradient(state.count), state.optimizer, state.weights
            )
            weights = optax.apply_updates(state.weights, made)
            state = Fit(weights, optimizer, state.count + 1)
        return state, {"loss": fm.mean(jnp.float32(0.0))}

    act = lambda state, carry, observation, key: (observation, carry)  # noqa: E731
    return fastrl.Algorithm(init, step, act, 1, Rate(), parameters=lambda state: state.weights)


class TestOnLearners:
    @pytest.mark.parametrize("updates", [1, 3])
    def test_recorded_norms_are_those_of_the_gradients(self, updates):
        """Adam's second moments tell them exactly, whatever came before."""
        run = jax.jit(fastrl.run(schedules.recorded(fitting(updates)), 4))
        _, metrics = run(fastrl.key(0), Rate(), ())
        told = fm.compute(metrics)
        for i in range(4):
            counts = np.arange(i * updates, (i + 1) * updates)
            weights = 0.999 ** (updates - 1.0 - np.arange(updates))
            squares = np.stack(
                [np.array([1.0, 4.0, 9.0 / (1 + c) ** 2]) * (1 + c) ** 2 for c in counts]
            )
            mean = (weights[:, None] * squares).sum(0) / weights.sum()
            assert told["gradient_norm_l2"][i] == pytest.approx(np.sqrt(mean.sum()), rel=1e-3)
            assert told["gradient_norm_l1"][i] == pytest.approx(np.sqrt(mean).sum(), rel=1e-3)

    def test_without_adam_there_is_nothing_to_record(self):
        """Silence would be a column of zeros."""
        with pytest.raises(ValueError, match="no state of Adam"):
            fastrl.run(schedules.recorded(tiny.make()), 10)(
                fastrl.key(0), tiny.HParams(), tiny.Params()
            )

    def test_a_schedule_multiplies_the_rate(self):
        """Iteration by iteration, from the first one on, and the rest of hparams stays."""
        factors = [1.0, 0.5, 0.0]
        scheduled = schedules.scheduled(fitting(1), lambda i: jnp.array(factors)[i])
        state, metrics = jax.jit(fastrl.run(scheduled, 3))(fastrl.key(0), Rate(0.2), ())
        assert fm.compute(metrics)["learning_rate"].tolist() == pytest.approx([0.2, 0.1, 0.0])
        expected = fitting(1).init(fastrl.key(0), Rate(), ())
        for rate in (0.2, 0.1):
            expected, _ = fitting(1).step(expected, Rate(rate), ())
        np.testing.assert_allclose(state.learner.weights["x"], expected.weights["x"], rtol=1e-5)

    def test_the_driver_takes_it_as_any_algorithm(self, tmp_path):
        """Train, resume and evaluate: the count is part of the state."""
        schedule = schedules.linear_decay(1.0, 10)
        algorithm = schedules.scheduled(tiny.make(), schedule)
        quiet = {"progress": False, "eval_every": 0}
        whole = fastrl.train(algorithm, steps=100, run_dir=tmp_path / "whole", **quiet)
        fastrl.train(algorithm, steps=50, run_dir=tmp_path / "parts", **quiet)
        parts = fastrl.train(algorithm, steps=100, run_dir=tmp_path / "parts", resume=True, **quiet)
        assert int(whole.iteration) == 10
        for a, b in zip(jax.tree.leaves(whole.learner.weights),
                        jax.tree.leaves(parts.learner.weights), strict=True):  # fmt: skip
            assert (a == b).all()
        assert fastrl.evaluate(algorithm, whole, episodes=3).episodes == 3
        loaded = fastrl.load(tmp_path / "whole", algorithm=algorithm)
        assert int(loaded.state.iteration) == 10

    def test_an_unknown_field_is_refused(self):
        """A misspelt one would leave the rate constant."""
        with pytest.raises(ValueError, match="learning_rate"):
            schedules.scheduled(fitting(1), lambda i: 1.0, ("learning_rat",))

    @pytest.mark.slow
    def test_on_ppo_linear_decay_is_its_own_annealing(self):
        """The same numbers by either way, and PPO's gradients are recorded."""
        config = ppo.Config(num_envs=4, num_steps=16, num_minibatches=2, hidden_sizes=(8,))
        algorithm = ppo.make(fastrl.make("CartPole-v1"), config)
        task = fastrl.make("CartPole-v1").default_params()
        steps = 4 * algorithm.steps_per_iteration
        other = schedules.scheduled(schedules.recorded(algorithm), schedules.linear_decay(1.0, 4))
        own, _ = jax.jit(fastrl.run(algorithm, steps))(
            fastrl.key(0), ppo.HParams(anneal_steps=steps), task
        )
        ours, metrics = jax.jit(fastrl.run(other, steps))(fastrl.key(0), ppo.HParams(), task)
        for a, b in zip(
            jax.tree.leaves(own.params), jax.tree.leaves(ours.learner.params), strict=True
        ):
            np.testing.assert_allclose(a, b, atol=1e-5)
        norms = fm.compute(metrics)
        assert np.all(norms["gradient_norm_l2"] <= 0.5 * 1.001)  # clipped at max_grad_norm
        assert np.all(norms["gradient_norm_l1"] > norms["gradient_norm_l2"])


class Problem(NamedTuple):
    """Absolute errors of a linear model: convex, bounded gradients, and no smooth bottom."""

    inputs: Any  # [n, d]
    targets: Any  # [n]
    least: Any


def problem(key):
    input_key, weight_key, noise_key = jax.random.split(key, 3)
    inputs = jax.random.normal(input_key, (256, 10)) * jnp.logspace(0, -1, 10)[None]
    weights = jax.random.normal(weight_key, (10,))
    errors = 0.5 * jax.random.t(noise_key, 3.0, (256,))
    return Problem(inputs, inputs @ weights + errors, jnp.abs(errors).mean())


@jax.jit
@functools.partial(jax.vmap, in_axes=(0, None, None, None))  # seeds
@functools.partial(jax.vmap, in_axes=(None, None, 0, None))  # peaks
def last_gap(key, factors, peak, noise):
    """How far the last iterate of SGD is from the true weights' loss, and the gradient norms.

    `factors` `[T]` are the schedule, `noise` `[T]` what is added to the gradients.
    """
    problem_key, run_key = jax.random.split(key)
    given = problem(problem_key)
    loss = lambda w, i: jnp.abs(given.inputs[i] @ w - given.targets[i]).mean()  # noqa: E731
    optimizer = optax.chain(schedules.norm_recorder(STEPS), optax.sgd(lambda t: peak * factors[t]))

    def update(carry, inputs):
        weights, state = carry
        key, deviation = inputs
        batch_key, noise_key = jax.random.split(key)
        gradient = jax.grad(loss)(weights, jax.random.randint(batch_key, (4,), 0, 256))
        gradient += deviation * jax.random.normal(noise_key, weights.shape)
        step, state = optimizer.update(gradient, state)
        return (weights + step, state), None

    start = jnp.full(10, 2.0)
    keys = jax.random.split(run_key, STEPS)
    first: Any = optimizer.init(start)
    (weights, state), _ = jax.lax.scan(update, (start, first), (keys, noise))
    return loss(weights, jnp.arange(256)) - given.least, state[0].l2


PEAKS = jnp.array([0.03, 0.1, 0.3, 1.0, 3.0])


@pytest.fixture(scope="module")
def gaps():
    """Of constant, linear and refined rates, each at its best peak: the mean over 16 seeds.

    Norms come from other seeds than those that count.
    """
    keys = jax.random.split(jax.random.key(0), 16)
    others = jax.random.split(jax.random.key(1), 16)
    linear = jnp.asarray(schedules.linear_decay(1.0, STEPS)(jnp.arange(STEPS)))
    half = jnp.arange(STEPS) < STEPS // 2

    def best(factors, noise):
        return float(last_gap(keys, factors, PEAKS, noise)[0].mean(0).min())

    told = {}
    for name, noise in (("steady", jnp.zeros(STEPS)), ("rising", jnp.where(half, 0.1, 1.0))):
        found, norms = last_gap(others, linear, PEAKS, noise)
        recorded = norms[:, int(found.mean(0).argmin())].mean(0)
        refined = schedules.refined(np.asarray(recorded), norm="l2")(jnp.arange(STEPS))
        rates = {"constant": jnp.ones(STEPS), "linear": linear, "refined": refined}
        told[name] = {kind: best(factors, noise) for kind, factors in rates.items()}
    print(told)  # the table in docs/concepts/schedules.md
    return told


class TestWhatTheyGain:
    @pytest.mark.slow
    def test_linear_decay_beats_a_constant_rate(self, gaps):
        """At the last iterate, each with its best rate: the paper's first claim."""
        assert gaps["steady"]["linear"] < 0.6 * gaps["steady"]["constant"]
        assert gaps["rising"]["linear"] < gaps["rising"]["constant"]

    def test_refined_is_no_worse_and_better_where_norms_change(self, gaps):
        """Steady norms refine to linear decay; noise that grows must lower the rate before it."""
        assert gaps["steady"]["refined"] < 1.1 * gaps["steady"]["linear"]
        assert gaps["rising"]["refined"] < 0.6 * gaps["rising"]["linear"]
