"""The bench of streams: which rate counts, runs that diverge, what is not run again, its page."""

# The benchmarks are scripts, found by `sys.path`.
# pyright: reportMissingImports=false

import json
import sys
from pathlib import Path

import numpy as np
import pytest

BENCH = Path(__file__).resolve().parents[1] / "bench"
sys.path.insert(0, str(BENCH))

import streaming  # noqa: E402
import streaming_cases as cases  # noqa: E402
import streaming_page as page  # noqa: E402
import streaming_speed as speed  # noqa: E402


def test_the_best_rate_counts_and_what_diverged_is_the_least():
    """The mean over all of the curve, a NaN that wins or spreads, or the worst rate."""
    curves = np.full((2, 3, 8), -400.0)
    curves[1, :, 6:] = -100.0, -50.0
    curves[1, 0, 7] = np.nan  # no episode ended: the point before counts
    curves[1, 2, 3:] = np.nan  # diverged
    diverged = np.array([[False] * 3, [False, False, True]])
    found = page.chosen(curves, diverged, -500.0, (1e-3, 1e-2))
    assert found["rate"] == 1e-2
    assert found["scores"] == [-100.0, -75.0, -500.0]
    np.testing.assert_allclose(found["of_rates"], [-400.0, -225.0])
    assert found["diverged"] == 1
    assert found["curves"][2] == [-400.0] * 8
    assert page.chosen(curves[:1], diverged[:1], -500.0, ())["rate"] is None


def test_the_picture_has_the_longest_runs_with_the_most_seeds():
    """Curves of several lengths in one panel, or a learner twice."""
    fields = "env", "learner", "steps", "seeds"
    rows = [("a", "x", 10, 9), ("a", "x", 20, 2), ("a", "x", 20, 5), ("a", "y", 20, 1)]
    rows += [("b", "x", 10, 3)]
    found = page.longest([dict(zip(fields, row, strict=True)) for row in rows])
    assert [tuple(r.values()) for r in found] == rows[2:]


@pytest.fixture
def faked(monkeypatch):
    """Trainings that need nothing, and the names of those that were asked for."""
    asked = []

    def train(case, seeds):
        asked.append(case.label)
        level = 100.0 if case.label in ("full", "Stream Q") else 60.0
        rates = len(case.rates or (None,))
        curves = level + np.zeros((rates, seeds, 4)) + np.arange(seeds)[None, :, None]
        return curves, np.zeros((rates, seeds), bool)

    monkeypatch.setattr(streaming, "train", train)
    return asked


def test_what_is_there_is_not_run_again_and_the_page_compares(tmp_path, faked, capsys):
    """Other seeds or steps that count as the same, a line cut short, a difference the wrong way."""
    path, table, picture = (str(tmp_path / f"s.{kind}") for kind in ("jsonl", "md", "png"))
    command = ["--env", "CartPole-v1", "--json", path, "--markdown", table, "--plot", picture]
    parts = ["--part", "barrier", "ablations", "--seeds", "3"]
    assert streaming.main([*command, *parts]) == 0
    everything = list(faked)
    assert [everything.count(x) for x in ("Stream Q", "DQN, batch 1")] == [1, 2]  # rates, seeds
    assert {"Stream Q", "DQN, batch 1", "full", "lambda = 0"} <= set(everything)
    assert streaming.main([*command, *parts]) == 0
    assert faked == everything
    lines = Path(path).read_text().splitlines()
    Path(path).write_text("\n".join([*lines[:-1], lines[-1][:40]]))
    assert streaming.main([*command, *parts]) == 0
    assert faked == [*everything, json.loads(lines[-1])["learner"]]
    text = Path(table).read_text()
    row = "| 200,000 | no LayerNorm |  | 61 [60, 62] | 61 | 60 | 0 of 3 | 40 [40, 40] |"
    assert row in text
    other = ["--part", "ablations", "--learner", "full", "--seeds", "2"]
    assert streaming.main([*command, *other]) == 0
    assert faked[-1] == "full"
    assert Path(picture).stat().st_size > 1000
    assert "interrupted" not in capsys.readouterr().err


def test_cases_can_be_built():
    """A config, or a number of hparams, that its learner refuses."""
    for env in ("Pendulum-v1", *cases.ABLATED):  # not brax, which takes seconds to import
        made = [*(cases.barrier(env, 4000) if env in cases.STEPS else cases.minatar(4000))]
        made += cases.ablations(env, 4000) if env in cases.ABLATED else []
        assert len({streaming.key_of(c, 3) for c in made}) == len(made)
        for case in made:
            algorithm = case.algorithm()
            assert 4000 % algorithm.steps_per_iteration == 0
            algorithm.check(case.hparams)
            assert all(hasattr(case.hparams, field) for field in case.fields if case.rates)


@pytest.mark.full
@pytest.mark.slow
def test_the_speed_of_streams_is_measured():
    """A part that does not run, or memory that is not counted."""
    options = streaming.options.options(streaming.parser().parse_args(["--rounds", "1"]))
    lines = list(speed.lines(options, quick=True))
    assert [line["rate"] > 0 for line in lines] == [True] * 5
    assert lines[-1]["marks"] == [40, 80]
