"""Statistics of few runs: golden values, SciPy where definitions agree, coverage, seeds."""

import functools
import math
import time
from typing import Any

import jax
import numpy as np
import pytest
from scipy import stats

from fastrl import statistics
from fastrl.statistics.intervals import t_quantile

FIVE = np.stack([np.zeros(5), [1, 2, 4, 8, 16]], axis=1)
RAGGED = {"a": [0.1, 0.4, 0.5], "b": [0.2, 0.9, 0.3, 0.7, 0.6]}


def scores(runs=10, tasks=57, seed=0):
    random = np.random.default_rng(seed)
    return random.gamma(2.0, size=(runs, tasks)) * random.uniform(0.5, 1.5, tasks)


class TestAggregates:
    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            (np.arange(8).reshape(4, 2), 3.5),
            (np.arange(10).reshape(5, 2), 4.5),
            ([[0], [0], [9]], 3.0),
            (FIVE, 7 / 6),
            ([0.0, 0.0, 9.0], 3.0),
        ],
    )
    def test_iqm_drops_whole_scores(self, given, expected):
        """With fractional weights the second would be another number, and so would the third."""
        assert statistics.iqm(given) == pytest.approx(expected, abs=1e-12)

    def test_optimality_gap(self):
        """Scores beyond the target must not pay for those below it."""
        assert statistics.optimality_gap([[0.2, 1.5], [0.6, 0.9]]) == pytest.approx(0.325)
        assert statistics.optimality_gap([[3.0]], target=2.0) == 0.0

    def test_mean_and_median_are_over_tasks(self):
        """Pooled, a task with more runs would count more, and the median would be of runs."""
        assert statistics.mean(RAGGED) == pytest.approx((1.0 / 3 + 0.54) / 2)
        three = {"a": [0.0], "b": [1.0, 3.0], "c": [10.0]}
        assert statistics.median(three) == 2.0
        assert statistics.median(FIVE) == pytest.approx(3.1)

    def test_probability_of_improvement_counts_ties_half(self):
        """Its golden value, Mann and Whitney's U, and one half for equal columns."""
        assert statistics.probability_of_improvement([1, 2, 3], [2, 2, 0]) == pytest.approx(2 / 3)
        x, y = scores(7, 3).round(), scores(9, 3, seed=1).round()
        expected = [stats.mannwhitneyu(a, b).statistic / 63 for a, b in zip(x.T, y.T, strict=True)]
        assert statistics.probability_of_improvement(x, y) == pytest.approx(np.mean(expected))
        assert statistics.probability_of_improvement(x, x) == pytest.approx(0.5)
        named = [{task: s[:, task] for task in (2, 0, 1)} for s in (x, y)]
        assert statistics.probability_of_improvement(*named) == pytest.approx(np.mean(expected))

    def test_profiles_are_strict(self):
        """A score at the threshold is not above it."""
        given = [[0.0, 1.0], [1.0, 1.0]]
        assert statistics.profile(given, [-0.1, 0.0, 1.0]).tolist() == [1.0, 0.75, 0.0]
        assert statistics.average_profile(given, [0.0, 0.5, 0.9]).tolist() == [1.0, 0.5, 0.5]

    @pytest.mark.parametrize(
        "statistic",
        [
            statistics.mean,
            statistics.median,
            statistics.iqm,
            statistics.optimality_gap,
            functools.partial(statistics.profile, thresholds=[0.5, 1.0]),
            functools.partial(statistics.average_profile, thresholds=[0.5, 1.0]),
            lambda x: statistics.probability_of_improvement(x, x[..., ::-1, :] * 1.1),
        ],
    )
    def test_axes_in_front_stay(self, statistic):
        """The bootstrap would otherwise mix replicates."""
        stacked = np.stack([scores(5, 3, seed) for seed in range(4)])
        together = statistic(stacked)
        for one, expected in zip(stacked, together, strict=True):
            np.testing.assert_allclose(statistic(one), expected, rtol=1e-12)

    def test_normalize_uses_given_anchors(self):
        """Anchors of a task belong to its column."""
        made = statistics.normalize([[1.0, 20.0], [3.0, 30.0]], [1.0, 10.0], [5.0, 30.0])
        assert made.tolist() == [[0.0, 0.5], [0.5, 1.0]]
        named = statistics.normalize({"a": [1.0, 3.0]}, {"a": 1.0}, {"a": 5.0})
        assert named["a"].tolist() == [0.0, 0.5]
        with pytest.raises(ValueError, match="anchors must differ"):
            statistics.normalize([1.0], 2.0, 2.0)

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (lambda: statistics.iqm([1.0, math.nan]), "diverged"),
            (lambda: statistics.mean({"a": [math.nan]}), r"scores\['a'\] holds NaN"),
            (lambda: statistics.mean([]), "at least one run"),
            (lambda: statistics.iqm({}), "at least one task"),
            (lambda: statistics.profile([1.0], 0.5), "thresholds"),
            (lambda: statistics.probability_of_improvement([[1, 2]], [1]), "needs the same"),
            (lambda: statistics.probability_of_improvement(RAGGED, [1.0]), "two of a kind"),
        ],
    )
    def test_what_has_no_meaning_is_refused(self, call, message):
        """NaN would go through a sort and come out as a number."""
        with pytest.raises(ValueError, match=message):
            call()


def column_means(*columns, axis=-1):
    """The mean over tasks, as SciPy calls it: a sample for each task."""
    return np.mean([c.mean(axis=axis) for c in columns], axis=0)


class TestBootstrap:
    @pytest.mark.parametrize("method", ["percentile", "basic", "bca"])
    def test_equals_scipy(self, method):
        """SciPy's bootstrap of several samples draws each by itself: that is stratified by task."""
        given = scores(9, 4)
        ours = statistics.bootstrap(statistics.mean, given, method=method, replicates=40_000)
        theirs = stats.bootstrap(
            tuple(given.T), column_means, method=method, n_resamples=20_000, vectorized=True,
            rng=np.random.default_rng(1),
        ).confidence_interval  # fmt: skip
        width = theirs.high - theirs.low
        assert ours.estimate == pytest.approx(given.mean())
        assert ours.low == pytest.approx(theirs.low, abs=0.03 * width)
        assert ours.high == pytest.approx(theirs.high, abs=0.03 * width)

    def test_bca_of_a_skewed_sample_equals_scipy(self):
        """One task, and a statistic for which bias and acceleration matter."""
        given = np.random.default_rng(3).exponential(size=25)
        spread = lambda x, axis=-1: x.std(axis=axis)  # noqa: E731
        ours = {
            method: statistics.bootstrap(lambda x: x.std((-2, -1)), given, method=method, seed=2)
            for method in ("percentile", "bc", "bca")
        }
        theirs = stats.bootstrap(
            (given,), spread, method="BCa", n_resamples=30_000, rng=np.random.default_rng(1)
        ).confidence_interval
        assert ours["bca"].low == pytest.approx(theirs.low, rel=0.03)
        assert ours["bca"].high == pytest.approx(theirs.high, rel=0.03)
        assert ours["percentile"].high < ours["bc"].high < ours["bca"].high

    def test_the_seed_is_all_that_counts(self):
        """In rliable the seed had no effect, and NumPy's global generator all of it."""
        given = scores(5, 3)
        interval = functools.partial(statistics.bootstrap, statistics.iqm, given, replicates=500)
        np.random.seed(0)
        first = interval(seed=7)
        np.random.seed(1)
        assert interval(seed=7) == first
        assert interval(seed=8) != first
        key = jax.random.key(7)
        assert interval(seed=key) == interval(seed=key) != interval(seed=jax.random.key(8))
        state: Any = np.random.get_state()
        interval(seed=7)
        now: Any = np.random.get_state()
        assert (now[1] == state[1]).all()

    def test_runs_stay_on_their_task(self):
        """Unstratified, runs of an easy task would appear on a hard one: the interval is wide."""
        given = np.array([[0.0, 100.0], [1.0, 101.0], [2.0, 102.0], [3.0, 103.0]])
        interval = statistics.bootstrap(statistics.mean, given)
        assert interval.high - interval.low < 2.0
        constant = np.array([[1.0, 5.0]] * 3)
        assert statistics.bootstrap(statistics.mean, constant) == (3.0, 3.0, 3.0)
        named = statistics.bootstrap(statistics.mean, {"a": given[:, 0], "b": given[:3, 1]})
        assert named.high - named.low < 2.5

    def test_resampled_tasks_say_more(self):
        """Other tasks might have been chosen: much wider where tasks differ."""
        given = scores(8, 10) + np.arange(10) * 5.0
        seeds = statistics.bootstrap(statistics.mean, given)
        suites = statistics.bootstrap(statistics.mean, given, resample_tasks=True)
        assert suites.high - suites.low > 5 * (seeds.high - seeds.low)

    def test_pairs_stay_together(self):
        """What both have in common, such as a hard seed, cancels only in pairs."""
        common = np.random.default_rng(0).normal(size=(10, 2)) * 10
        x, y = common + 1.0, common
        difference = lambda a, b: statistics.mean(a) - statistics.mean(b)  # noqa: E731
        paired = statistics.bootstrap(difference, x, y, paired=True, replicates=2000)
        apart = statistics.bootstrap(difference, x, y, replicates=2000)
        assert paired.low == pytest.approx(1.0)
        assert paired.high == pytest.approx(1.0)
        assert apart.high - apart.low > 3
        names = [{"a": s[:, 0], "b": s[:, 1]} for s in (x, y)]
        by_name = statistics.bootstrap(difference, *names, paired=True, replicates=100)
        assert by_name.high == pytest.approx(1.0)

    def test_it_covers(self):
        """An interval of 10 runs on 5 tasks must hold the true IQM about as often as it says."""
        random = np.random.default_rng(0)
        truth = statistics.iqm(random.normal(size=(200_000, 1)))
        held = 0
        for seed in range(200):
            given = random.normal(size=(10, 5))
            low, high = statistics.bootstrap(statistics.iqm, given, replicates=500, seed=seed)[1:]
            held += low <= truth <= high
        assert 0.88 <= held / 200 <= 0.99

    def test_two_samples_and_curves(self):
        """Probability of improvement draws both; a profile has an interval for each threshold."""
        x, y = scores(10, 5), scores(10, 5, seed=1) * 0.5
        better = statistics.bootstrap(
            statistics.probability_of_improvement, x, y, replicates=2000, method="bca"
        )
        assert 0.5 < better.low < better.estimate < better.high <= 1.0
        curve = statistics.bootstrap(
            functools.partial(statistics.profile, thresholds=np.linspace(0, 4, 9)), x
        )
        assert curve.low.shape == (9,)
        assert np.all((curve.low <= curve.estimate) & (curve.estimate <= curve.high))

    def test_statistics_that_keep_no_axes(self):
        """A plain function of one matrix is called one by one, and is told so if it is not."""
        given = scores(6, 2)
        plain = lambda x: float(np.mean(x))  # noqa: E731
        with pytest.raises(ValueError, match="batched=False"):
            statistics.bootstrap(plain, given, replicates=10)
        one = statistics.bootstrap(plain, given, replicates=300, batched=False)
        assert one == pytest.approx(statistics.bootstrap(statistics.mean, given, replicates=300))

    def test_sample_efficiency_is_the_bootstrap_at_every_point(self):
        """A replicate draws whole curves: at each point the interval is that of its scores."""
        curves = scores(8, 6).reshape(8, 2, 3)
        made = statistics.sample_efficiency(curves, replicates=5000)
        assert made.estimate == pytest.approx([statistics.iqm(curves[..., p]) for p in range(3)])
        alone = statistics.bootstrap(statistics.iqm, curves[..., 1], replicates=5000, seed=3)
        assert made.low[1] == pytest.approx(alone.low, rel=0.05)
        alone = statistics.sample_efficiency(curves[:, 0], replicates=10, method="bca")
        assert alone.low.shape == (3,)
        with pytest.raises(ValueError, match="single task"):
            statistics.sample_efficiency(curves, method="bca")

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"method": "percentil"}, "percentile"),
            ({"confidence": 95}, "between 0 and 1"),
            ({"replicates": 0}, "replicates=0"),
            ({"seed": -1}, "seed=-1"),
            ({"resample_tasks": True, "method": "bca"}, "choose 'bc'"),
        ],
    )
    def test_options_are_checked(self, options, message):
        """A confidence of 95 would give quantiles outside of 0 to 1."""
        with pytest.raises(ValueError, match=message):
            statistics.bootstrap(statistics.mean, scores(3, 2), **options)

    def test_samples_are_checked(self):
        """Pairs of different lengths have no partner."""
        difference = lambda a, b: statistics.mean(a) - statistics.mean(b)  # noqa: E731
        with pytest.raises(ValueError, match="paired"):
            statistics.bootstrap(difference, scores(3, 2), scores(4, 2), paired=True)
        with pytest.raises(ValueError, match="at least one sample"):
            statistics.bootstrap(statistics.mean)

    @pytest.mark.slow
    def test_fifty_thousand_replicates_take_a_second(self):
        """10 runs on 57 tasks; generous, for machines that do other work too."""
        given = scores()
        begin = time.process_time()
        statistics.bootstrap(statistics.iqm, given)
        assert time.process_time() - begin < 4.0


class TestIntervals:
    @pytest.mark.parametrize("degrees", [1, 2, 3, 4, 5, 9, 30, 101, 1000])
    def test_quantiles_of_students_t(self, degrees):
        """A wrong one makes every interval of a mean too narrow or too wide."""
        for share in (0.01, 0.5, 0.9, 0.975, 0.9995):
            expected = stats.t.ppf(share, degrees)
            assert t_quantile(share, degrees) == pytest.approx(expected, rel=1e-9, abs=1e-9)

    def test_t_interval(self):
        """As SciPy has it, for numbers and for curves."""
        given = scores(6, 4)
        for column, low, high in zip(given.T, *statistics.t_interval(given, 0.9)[1:], strict=True):
            theirs = stats.ttest_1samp(column, 0.0).confidence_interval(0.9)
            assert (low, high) == pytest.approx(theirs)
        with pytest.raises(ValueError, match="at least 2 runs"):
            statistics.t_interval([1.0])

    def test_paired_difference(self):
        """SciPy's test of pairs; over tasks a seed has one difference."""
        x, y = scores(7, 3), scores(7, 3, seed=1)
        ours = statistics.paired_difference(x[:, 0], y[:, 0])
        theirs = stats.ttest_rel(x[:, 0], y[:, 0]).confidence_interval()
        assert ours[1:] == pytest.approx(theirs)
        both = stats.ttest_rel(x.mean(1), y.mean(1)).confidence_interval()
        assert statistics.paired_difference(x, y)[1:] == pytest.approx(both)
        with pytest.raises(ValueError, match="needs pairs"):
            statistics.paired_difference([1.0, 2.0], [1.0])

    def test_the_band_of_runs_is_not_that_of_their_mean(self):
        """It must not shrink with more runs."""
        many = np.random.default_rng(0).normal(size=(4000, 2))
        band = statistics.percentile_band(many)
        assert band.low == pytest.approx([-1.645, -1.645], abs=0.15)
        assert band.high == pytest.approx([1.645, 1.645], abs=0.15)
        assert statistics.worst([3.0, 1.0, 2.0], 2).tolist() == [1.0, 2.0]
        with pytest.raises(ValueError, match="count=4"):
            statistics.worst([3.0, 1.0, 2.0], 4)


class TestCurves:
    def test_area_is_the_mean_height(self):
        """Uneven steps weigh by their width."""
        steps = [0, 10, 40]
        curves = [[0.0, 1.0, 1.0], [2.0, 2.0, 2.0]]
        assert statistics.area_under_curve(steps, curves) == pytest.approx([35 / 40, 2.0])
        assert statistics.area_under_curve(steps, curves[1]) == 2.0

    def test_runs_that_never_get_there_are_censored(self):
        """Left out, the one success in three would look like an algorithm that needs 10 steps."""
        curves = [[0.0, 9.0, 9.0, 9.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 9.0]]
        told = statistics.time_to_threshold([5, 10, 15, 20], curves, 9.0)
        assert told.times.tolist() == [10, 20, 20]
        assert told.reached.tolist() == [True, False, True]
        assert told.share == pytest.approx(2 / 3)
        assert told.median == 20
        assert told.restricted_mean == pytest.approx(50 / 3)
        seldom = statistics.time_to_threshold([5, 10, 15, 20], curves[:2] + curves[1:2], 9.0)
        assert seldom.median == math.inf

    def test_curves_that_end_early(self):
        """Kaplan and Meier: whoever has left is at risk no more. By hand: 1, 3/4, 3/8, 3/8."""
        nan = math.nan
        curves = [[1, 1, 1, 1], [0, nan, nan, nan], [0, 1, 1, 1], [0, 0, 0, 0]]
        told = statistics.time_to_threshold([1, 2, 3, 4], curves, 1.0)
        assert told.reached.tolist() == [True, False, True, False]
        assert told.times.tolist() == [1, 1, 2, 4]
        assert told.median == 2
        assert told.restricted_mean == pytest.approx(1 + 0.75 + 2 * 0.375)

    def test_a_threshold_may_have_to_hold(self):
        """One lucky evaluation is not yet success."""
        curves = [[0.0, 5.0, 0.0, 5.0, 5.0]]
        steps = [1, 2, 3, 4, 5]
        assert statistics.time_to_threshold(steps, curves, 5.0).times.tolist() == [2]
        assert statistics.time_to_threshold(steps, curves, 5.0, holds=2).times.tolist() == [4]

    @pytest.mark.parametrize(
        ("steps", "curves", "message"),
        [
            ([1, 2], [[1.0]], "needs"),
            ([2, 1], [[1.0, 2.0]], "must increase"),
            ([1, 2], [[math.nan, math.nan]], "NaN"),
        ],
    )
    def test_curves_are_checked(self, steps, curves, message):
        """Steps in another order would give negative areas."""
        for function in (
            statistics.area_under_curve,
            lambda x, y: statistics.time_to_threshold(x, y, 1.0),
        ):
            with pytest.raises(ValueError, match=message):
                function(steps, curves)
