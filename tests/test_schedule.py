"""When things are due: as often as asked, always at the end, and nothing else."""

import pytest
import tiny

from fastrl.schedule import Schedule, schedule

ALGORITHM = tiny.make(steps_per_iteration=10)


@pytest.mark.parametrize("iterations", [1, 7, 10, 99, 100, 101, 977, 1001, 12345])
def test_defaults_are_a_hundred_rows_and_ten_of_the_others(iterations):
    plan = schedule(ALGORITHM, iterations * 10)
    due = [i for i in range(1, iterations + 1) if plan.logs(i)]
    evaluated = [i for i in range(1, iterations + 1) if plan.evaluates(i)]
    assert plan.iterations == iterations
    assert len(due) <= 100
    assert len(due) > min(iterations, 100) / 2
    assert len(evaluated) <= 10
    assert len(evaluated) > min(iterations, 10) / 2
    assert set(evaluated) <= set(due)
    assert due[-1] == evaluated[-1] == iterations
    assert plan.saves(iterations)


def test_intervals_round_up_to_iterations_and_nought_is_never():
    plan = schedule(ALGORITHM, 1001, log_every=11, eval_every=0, checkpoint_every=0)
    assert plan == Schedule(101, 2, 0, 0)
    assert not any(plan.evaluates(i) for i in range(1, 102))
    assert [i for i in range(1, 102) if plan.saves(i)] == [101]


def test_stops_are_where_something_is_due():
    """A chunk that ran across one would log or save too late."""
    plan = schedule(ALGORITHM, 200, log_every=40, eval_every=70, checkpoint_every=90)
    stops, at = [], 0
    while at < plan.iterations:
        at = plan.next_stop(at)
        stops.append(at)
    due = [i for i in range(1, 21) if plan.logs(i) or plan.evaluates(i) or plan.saves(i)]
    assert stops == due == [4, 7, 8, 9, 12, 14, 16, 18, 20]


def test_evaluation_without_an_environment_is_refused():
    algorithm = tiny.make(env=None)
    assert schedule(algorithm, 100).evaluate == 0
    with pytest.raises(ValueError, match="eval_every=5: the algorithm has no environment"):
        schedule(algorithm, 100, eval_every=5)
