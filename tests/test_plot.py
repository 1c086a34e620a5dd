"""`plot_run`: what is read from run folders, how runs are grouped, what is drawn."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from PIL import Image

from fastrl.curves import Curve, Run, curves_of, group, read_run, summarise
from fastrl.plot import EVALUATION, TRAINING, figure, plot_run, short, title


def row(i: int, training: Any = None, evaluation: Any = None) -> dict[str, Any]:
    got = {"iteration": i, "steps": 1000 * i, TRAINING: training, "loss": 0.5 * i}
    return got | ({EVALUATION: evaluation} if evaluation is not None else {})


def write_run(folder: Path, rows: list[Any], config: str = "") -> Path:
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    if config:
        (folder / "config.toml").write_text(config)
    return folder


def config(seed: int, learning_rate: float = 1e-3, steps: int = 100, more: str = "") -> str:
    return (
        f'env = "CartPole-v1"\nalgorithm = "ppo"\nsteps = {steps}\nseed = {seed}\n'
        f"[hparams]\nlearning_rate = {learning_rate}\n{more}"
    )


ROWS = [row(1), row(2, 20.0), row(3, 30.0, 33.0), row(4, 40.0, 44.0)]


def lines(groups: Any, metrics: Any = (EVALUATION, TRAINING)) -> list[Any]:
    """The curves of a picture, without the samples of the legend."""
    return [x for x in figure(groups, metrics).axes[0].lines if len(x.get_xdata())]


def test_one_run_shows_both_returns(tmp_path: Path):
    groups = group([read_run(write_run(tmp_path / "a", ROWS))])
    thin, strong = lines(groups)
    assert strong.get_xdata().tolist() == [3000, 4000]
    assert strong.get_ydata().tolist() == [33, 44]
    assert thin.get_xdata().tolist() == [2000, 3000, 4000]  # no episode had ended before
    assert thin.get_linewidth() < strong.get_linewidth()
    legend = figure(groups, (EVALUATION, TRAINING)).axes[0].get_legend()
    assert [t.get_text() for t in legend.get_texts()] == ["evaluation return", "training return"]


def test_no_legend_without_need(tmp_path: Path):
    rows = [row(i, float(i)) for i in range(1, 5)]
    groups = group([read_run(write_run(tmp_path / "a", rows))])
    axes = figure(groups, (EVALUATION, TRAINING)).axes[0]
    assert axes.get_legend() is None
    assert axes.get_ylabel() == "training return"
    assert axes.get_xlabel() == "environment steps"


def test_half_a_line_and_rubbish_are_skipped(tmp_path: Path):
    folder = write_run(tmp_path / "a", ROWS)
    with open(folder / "metrics.jsonl", "ab") as log:
        log.write(b'[1]\nnull\n{"iteration": 5, "steps": "six"}\n\xff\xfe\n')
        log.write(json.dumps(row(5, "much")).encode() + b"\n")
        log.write(json.dumps(row(6, [1.0, [2.0]])).encode() + b"\n")
        log.write(b'{"iteration": 7, "ste')
    assert curves_of([read_run(folder)], TRAINING)[0].values.tolist() == [20, 30, 40]
    assert plot_run(folder, tmp_path / "out.png").stat().st_size > 5000


def test_seeds_are_one_group_and_settings_are_not(tmp_path: Path):
    """The seed and the budget do not part runs; a learning rate or another option does."""
    runs = [
        Run("a", {"env": "E", "seed": 0, "hparams.learning_rate": 0.1}, []),
        Run("b", {"env": "E", "seed": 1, "steps": 9, "hparams.learning_rate": 0.1}, []),
        Run("c", {"env": "E", "seed": 0, "hparams.learning_rate": 0.0123456789}, []),
        Run("d", {"env": "E", "seed": 0, "train.keep": 3}, []),
        Run("e", {}, []),
        Run("f", {}, []),
    ]
    named = {label: [r.name for r in members] for label, members in group(runs).items()}
    assert named == {
        "learning rate 0.1": ["a", "b"],
        "learning rate 0.0123456789": ["c"],
        "defaults": ["d"],
        "e": ["e"],
        "f": ["f"],
    }


def test_labels_tell_same_names_apart():
    """Two settings whose last word and value agree must not be merged."""
    base = {"env": "E", "params.rate": 1, "hparams.rate": 1}
    runs = [Run("a", base | {"params.rate": 2}, []), Run("b", base | {"hparams.rate": 2}, [])]
    assert len(group(runs)) == 2
    assert "params.rate 2" in next(iter(group(runs)))


def test_band_and_mean_over_seeds(tmp_path: Path):
    """The mean is that of the runs, at common steps; the band holds it and grows with spread."""
    folders = []
    for seed in range(4):
        rows = [row(i, 10.0 * seed + i, 100.0 * seed * i) for i in range(1, 31)]
        folders.append(write_run(tmp_path / str(seed), rows, config(seed)))
    groups = group([read_run(f) for f in folders])
    assert list(map(len, groups.values())) == [4]
    axes = figure(groups, (EVALUATION, TRAINING)).axes[0]
    strong = [x for x in axes.lines if len(x.get_xdata())][-1]
    np.testing.assert_allclose(strong.get_ydata(), 150.0 * np.arange(1, 31))
    (band,) = axes.collections
    heights = np.ptp(band.get_paths()[0].vertices[:, 1])
    assert heights > 100
    assert "mean of 4 runs" in axes.get_title(loc="right")
    assert axes.get_title(loc="left") == "PPO on CartPole-v1"


def test_words_of_a_picture_do_not_overlap(tmp_path: Path):
    """A legend of many long labels once squeezed the axes until title and subtitle collided."""
    folders = []
    for setting in range(8):
        more = f"entropy_coefficient = {setting}\n[params]\nsome_long_name = {setting / 8}\n"
        for seed in range(2):
            rows = [row(i, 1.0 * i + setting, 2.0 * i + setting) for i in range(1, 5)]
            folder = tmp_path / f"{setting}-{seed}"
            folders.append(write_run(folder, rows, config(seed, more=more)))
    picture = figure(group([read_run(f) for f in folders]), (EVALUATION, TRAINING))
    FigureCanvasAgg(picture).draw()
    words = [t for t in picture.findobj(Text) if len(t.get_text()) > 5]  # ticks are shorter
    assert any("some long name" in t.get_text() for t in words)
    boxes = [(t.get_text(), t.get_window_extent()) for t in words]
    for i, (text, box) in enumerate(boxes):
        assert not [other for other, b in boxes[:i] if box.overlaps(b)], text
        assert picture.bbox.containsx(box.x0), f"{text} is cut off"
        assert picture.bbox.containsx(box.x1), f"{text} is cut off"
    assert picture.axes[0].get_window_extent().width > 0.8 * picture.bbox.width
    styles = [(x.get_color(), x.get_linestyle()) for x in picture.axes[0].lines[::3]]
    assert len(set(styles[:8])) == 8, "two settings look alike"


def test_summary_against_bootstrap_by_hand():
    """Other step grids are interpolated, ends are those that all reach, and the interval is a
    bootstrap's: for normal values within 15 % of the textbook's for 30 runs."""
    a = Curve(np.array([0.0, 10.0, 20.0]), np.array([0.0, 10.0, 20.0]))
    b = Curve(np.array([5.0, 15.0]), np.array([5.0, 15.0]))
    s = summarise([a, b])
    assert s.steps.tolist() == [5, 10, 15]
    assert s.mean.tolist() == [5, 10, 15]
    assert s.low.tolist() == s.high.tolist() == [5, 10, 15]
    values = np.random.default_rng(1).normal(size=(30, 200))
    many = summarise([Curve(np.arange(200.0), v) for v in values])
    width = (many.high - many.low).mean()
    assert width == pytest.approx(2 * 1.96 / np.sqrt(30), rel=0.15)


def test_population_rows_are_several_runs(tmp_path: Path):
    rows = [row(i, [1.0 * i, 3.0 * i, None], [2.0 * i, 4.0 * i, 6.0 * i]) for i in range(1, 4)]
    run = read_run(write_run(tmp_path / "a", rows))
    assert [c.values.tolist() for c in curves_of([run], EVALUATION)] == [
        [2, 4, 6], [4, 8, 12], [6, 12, 18],
    ]  # fmt: skip
    assert len(curves_of([run], TRAINING)) == 2


def test_another_metric(tmp_path: Path):
    groups = group([read_run(write_run(tmp_path / "a", ROWS))])
    (line,) = lines(groups, ["loss"])
    assert line.get_ydata().tolist() == [0.5, 1.0, 1.5, 2.0]
    assert figure(groups, ["loss"]).axes[0].get_ylabel() == "loss"


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_formats(suffix: str, tmp_path: Path):
    """Each format by its suffix, a picture of decent size, nothing else left in the folder."""
    folders = [write_run(tmp_path / str(rate), ROWS, config(0, rate)) for rate in (0.1, 0.2, 0.3)]
    path = plot_run(folders, tmp_path / "out" / f"curve.{suffix}")
    starts = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
    assert path.read_bytes().startswith(starts[suffix])
    assert os.listdir(path.parent) == [path.name]
    if suffix == "png":
        with Image.open(path) as image:
            assert image.size[0] > 900
            assert len(image.convert("RGB").getcolors(1 << 20) or []) > 50


def test_pyplot_is_left_alone(tmp_path: Path):
    """A picture must neither open windows nor add to a user's own figures."""
    from matplotlib import pyplot

    before = pyplot.get_fignums()
    plot_run(write_run(tmp_path / "a", ROWS), tmp_path / "out.png")
    assert pyplot.get_fignums() == before


def test_nothing_to_plot(tmp_path: Path):
    empty = write_run(tmp_path / "empty", [])
    started = write_run(tmp_path / "started", [row(1), row(2)])
    for runs, metric, message in (
        ([], None, "no run folders"),
        (tmp_path / "nowhere", None, r"nowhere: there is no such run folder"),
        (tmp_path, None, r"is not a run folder \(it has no metrics.jsonl\)"),
        (empty, None, r"nothing to plot in .*empty: the log has no rows yet"),
        ([empty, started], None, r"no episode has ended yet; metrics: loss"),
        (started, "los", r"unknown metric 'los': did you mean 'loss'\?"),
    ):
        with pytest.raises(ValueError, match=message):
            plot_run(runs, tmp_path / "out.png", metric=metric)
    assert not (tmp_path / "out.png").exists()


def test_bad_paths(tmp_path: Path):
    folder = write_run(tmp_path / "a", ROWS)
    with pytest.raises(ValueError, match=r"must end in .png, .svg, .pdf"):
        plot_run(folder, tmp_path / "out.jpeg")
    with pytest.raises(OSError, match=r"can't write .*metrics.jsonl/out.png"):
        plot_run(folder, folder / "metrics.jsonl" / "out.png")


def test_broken_config_is_no_obstacle(tmp_path: Path):
    folder = write_run(tmp_path / "a", ROWS, "env = [")
    assert title(group([read_run(folder)])) == ""
    assert plot_run([folder], tmp_path / "out.png").exists()


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (999, "999"), (1500, "1.5k"), (2e6, "2M"), (1.25e6, "1.25M"), (3e9, "3G")],
)
def test_short_numbers(number: float, text: str):
    assert short(number) == text
