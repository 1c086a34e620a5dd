"""`fastrl sweep`: settings times seeds, in as few programs as there are shapes.

Values of hparams and params, and seeds, are an axis of one compiled program; every value of a
`--config` flag, another environment or option shapes a program of its own.  A member's numbers
are those of `fastrl train` with its setting and seed.
"""

import dataclasses
import itertools
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastrl import config
from fastrl.cli import members
from fastrl.cli.errors import UsageError
from fastrl.cli.request import RunFlags, import_module, read_request, usage_errors, use_devices
from fastrl.cli.train import picture, run_folder
from fastrl.config import RunConfig
from fastrl.evaluate import t95
from fastrl.files import write_atomically
from fastrl.inputs import annealing


@dataclasses.dataclass(frozen=True)
class SweepFlags(RunFlags):
    """Trains every combination of settings, with several seeds each.

    Any flag of --hparams, --params, --config or --env-options takes several values with commas
    between them: --hparams.learning-rate 1e-3,3e-3 --config.num-envs 8,16. Values of hparams
    and params, and seeds, share one program; other values compile one each. Members spread
    over the devices (on CPU, all cores).
    """

    seeds: int = 5  # of each setting, counted from --seed
    episodes: int = 100  # of the evaluation at the end of each training


class Setting(NamedTuple):
    """One combination of values."""

    values: dict[str, str]  # what was varied, as it was typed
    run_config: RunConfig

    @property
    def label(self) -> str:
        return ", ".join(f"{k}={v}" for k, v in self.values.items()) or "defaults"


def sweep(argv: Sequence[str]) -> int:
    """Trains the members, and writes and shows what became of them."""
    settings, flags = read_settings(argv)
    first = settings[0].run_config
    programs = group(settings)
    use_devices(first.devices if first.devices > 1 else os.cpu_count() or 1)
    import_module(flags.import_)
    with usage_errors():
        built = [config.build(s.run_config) for s in settings]
    name = flags.name or ("" if flags.run_dir else f"sweep-{_plain(first.env)}-{first.algorithm}")
    folder = run_folder(first, flags.run_dir, name)
    count = len(settings) * flags.seeds
    _say(
        flags,
        f"{len(settings)} settings x {flags.seeds} seeds = {count} trainings of "
        f"{first.steps:,} steps; programs to compile: {len(programs)}",
    )
    for note in {annealing(s.run_config.hparams, s.run_config.steps): None for s in settings}:
        _say(flags, note)
    seeds = range(first.seed, first.seed + flags.seeds)
    returns: dict[int, np.ndarray] = {}
    for indices in programs:
        todo = [(built[i].hparams, built[i].task, seed) for i in indices for seed in seeds]
        done = members.train(built[indices[0]].algorithm, first.steps, todo, flags.episodes)
        for i in indices:
            outcomes = list(itertools.islice(done, flags.seeds))
            returns[i] = np.array([o.evaluation_return for o in outcomes])
            members.write(_setting_folder(folder, i, settings), settings[i].run_config, outcomes)
            _say(flags, f"[{len(returns)}/{len(settings)}] {_row(settings[i], returns[i])}")
    _finish(folder, settings, [returns[i] for i in range(len(settings))], seeds)
    return 0


def read_settings(argv: Sequence[str]) -> tuple[list[Setting], SweepFlags]:
    """The settings that a command line asks for, at least one. Raises UsageError."""
    settings: list[Setting] = []
    flags = SweepFlags()
    for values, words in combinations(argv):
        run_config, flags = read_request(words, "fastrl sweep", SweepFlags(), ("hparams", "config"))
        same = next((s for s in settings if s.run_config == run_config), None)
        if same is not None:
            raise UsageError(f"the setting {same.label!r} is there twice")
        settings.append(Setting(values, run_config))
    for name in ("seeds", "episodes"):
        if getattr(flags, name) < 1:
            raise UsageError(f"--{name} {getattr(flags, name)}: must be at least 1")
    return settings, flags


def combinations(argv: Sequence[str]) -> Iterator[tuple[dict[str, str], list[str]]]:
    """Every command line with one value for each flag that has several, and these values."""
    alternatives: list[list[tuple[str, str, str]]] = []  # of each word: (flag, value, word)
    flag = ""
    for word in argv:
        name, equals, text = word.partition("=") if word.startswith("--") else (flag, "", word)
        pieces = _split(text) if re.match(r"--(hparams|params|config|env-options)\.", name) else []
        if len(pieces) > 1:
            key = name.removeprefix("--").replace("-", "_")
            prefix = f"{name}=" if equals else ""
            alternatives.append([(key, piece, prefix + piece) for piece in pieces])
        else:
            alternatives.append([("", "", word)])
        flag = word if word.startswith("--") else flag
    for chosen in itertools.product(*alternatives):
        yield {key: value for key, value, _ in chosen if key}, [word for _, _, word in chosen]


def group(settings: Sequence[Setting]) -> list[list[int]]:
    """The settings, by index, that differ in traced numbers only: one program each."""
    programs: dict[str, list[int]] = {}
    for i, setting in enumerate(settings):
        static = dataclasses.replace(setting.run_config, hparams=None, params={})
        programs.setdefault(config.dumps(static), []).append(i)
    return list(programs.values())


def interval(returns: np.ndarray) -> tuple[float, float]:
    """The mean over seeds and half its 95 % interval (Student's t), NaN for a single seed."""
    spread = returns.std(ddof=1) if len(returns) > 1 else np.nan
    return float(returns.mean()), float(t95(len(returns) - 1) * spread / np.sqrt(len(returns)))


def _finish(
    folder: Path, settings: list[Setting], returns: list[np.ndarray], seeds: Sequence[int]
) -> None:
    """The table of results, in a file too, and a picture of the learning curves."""
    names = list(settings[0].values)
    lines = [",".join([*names, "seed", "evaluation_return"])]
    for setting, row in zip(settings, returns, strict=True):
        given = [f'"{v}"' if "," in v else v for v in setting.values.values()]
        lines += [",".join([*given, str(s), str(r)]) for s, r in zip(seeds, row, strict=True)]
    write_atomically(folder / "results.csv", "\n".join(lines) + "\n")
    best = sorted(
        zip(settings, returns, strict=True), key=lambda x: -np.nan_to_num(x[1].mean(), nan=-np.inf)
    )
    print(f"evaluation return, mean over {len(seeds)} seeds ± 95 % interval, best first")
    for setting, row in best:
        print(f"  {_row(setting, row)}")
    runs = [_setting_folder(folder, i, settings) for i in range(len(settings))]
    print(f"results     {folder / 'results.csv'}")
    print(f"picture     {picture(runs, folder / 'learning_curves.png', 'episode_return')}")


def _row(setting: Setting, returns: np.ndarray, width: int = 0) -> str:
    finite = returns[np.isfinite(returns)]
    lost = len(returns) - len(finite)
    mean, half = interval(finite) if len(finite) else (np.nan, np.nan)
    spread = "" if np.isnan(half) else f" ± {half:.3g}"
    diverged = f"  ({lost} of {len(returns)} diverged)" if lost else ""
    return f"{setting.label:{width}}  {mean:.5g}{spread}{diverged}"


def _split(text: str) -> list[str]:
    """`text` at its commas, but for those within brackets."""
    return re.split(r",(?![^\[]*\])", text)


def _setting_folder(folder: Path, index: int, settings: Sequence[Setting]) -> Path:
    return folder / "settings" / f"{index:0{len(str(len(settings) - 1))}d}"


def _plain(name: str) -> str:
    return re.sub(r"[^\w.+-]+", "-", name)


def _say(flags: SweepFlags, text: str) -> None:
    if text and not flags.quiet:
        print(text, file=sys.stderr, flush=True)
