"""Statistics of few runs: aggregates over runs and tasks, and intervals that say how sure they are.

    from fastrl import statistics

    interval = statistics.bootstrap(statistics.iqm, scores)    # scores [N, M]: runs by tasks

The definitions are those of Agarwal et al. 2021 (arXiv:2108.13264) and its library rliable,
written anew; `docs/concepts/statistics.md` has them in one table.  All is NumPy in float64.
"""

from fastrl.statistics.aggregates import average_profile as average_profile
from fastrl.statistics.aggregates import iqm as iqm
from fastrl.statistics.aggregates import mean as mean
from fastrl.statistics.aggregates import median as median
from fastrl.statistics.aggregates import normalize as normalize
from fastrl.statistics.aggregates import optimality_gap as optimality_gap
from fastrl.statistics.aggregates import probability_of_improvement as probability_of_improvement
from fastrl.statistics.aggregates import profile as profile
from fastrl.statistics.bootstrap import bootstrap as bootstrap
from fastrl.statistics.bootstrap import sample_efficiency as sample_efficiency
from fastrl.statistics.curves import TimeToThreshold as TimeToThreshold
from fastrl.statistics.curves import area_under_curve as area_under_curve
from fastrl.statistics.curves import time_to_threshold as time_to_threshold
from fastrl.statistics.intervals import Interval as Interval
from fastrl.statistics.intervals import paired_difference as paired_difference
from fastrl.statistics.intervals import percentile_band as percentile_band
from fastrl.statistics.intervals import t_interval as t_interval
from fastrl.statistics.intervals import worst as worst
