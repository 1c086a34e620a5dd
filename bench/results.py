"""What the learners reach: 10 seeds of every config, intervals, and published returns beside them.

    python bench/results.py                                  # all of configs/
    python bench/results.py ppo_cartpole dqn_acrobot         # these
    python bench/results.py --algorithm ppo --env CartPole-v1 Acrobot-v1
    python bench/results.py ppo_cartpole --steps 20_000 --json try.jsonl --markdown try.md --plot ""

Every seed is a JSON line as soon as it is there.  What stands in the file with the same config,
steps and episodes is not run again (`--again` does), so a run that was stopped goes on.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anchors
import options
import report
import results_page
from contest import Contestant, FailedError, Worker
from options import Options
from training import extra

from fastrl import config
from fastrl.config import RunConfig

ROOT = Path(__file__).resolve().parents[1]
INTERRUPTED = 130


@dataclasses.dataclass(frozen=True)
class Case:
    """A row of the table: a config, trained with several seeds."""

    name: str  # of the config, or ALGORITHM:ENV for defaults
    run_config: RunConfig
    seeds: int
    episodes: int
    command: str

    @property
    def algorithm(self) -> str:
        """What results like this are published as."""
        return anchors.known_as(self.name, self.run_config.algorithm)

    @property
    def all_seeds(self) -> list[int]:
        first = self.run_config.seed
        return list(range(first, first + self.seeds))

    @property
    def text(self) -> str:
        """The config in full, but for its seed."""
        return config.dumps(dataclasses.replace(self.run_config, seed=0), full=True)

    @property
    def hash(self) -> str:
        """What two runs must have in common for their seeds to be of one sample."""
        return hashlib.sha256(f"{self.text}\n{self.episodes}".encode()).hexdigest()[:12]


@dataclasses.dataclass(frozen=True)
class Broken:
    """A config that can't be read: it fails, and the others go on."""

    name: str
    note: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what is missing and writes the page; 1 if a case failed, 130 after Ctrl-C."""
    parsed = parser().parse_args(arguments)
    chosen = options.options(parsed)
    path = Path(parsed.json)
    try:
        wanted = cases(parsed, chosen)
    except (ValueError, FileNotFoundError) as error:
        print(f"results: {error}", file=sys.stderr)
        return 2
    code = 0
    try:
        for case in wanted:
            code |= run(case, path, parsed)
    except KeyboardInterrupt:
        print("interrupted: the same command goes on", file=sys.stderr)
        code = INTERRUPTED
    print(results_page.write(read(path), chosen))
    return code


def parser() -> argparse.ArgumentParser:
    """The shared options, with files of their own by default, and which cases to run."""
    make = options.parser(__doc__)
    add = make.add_argument
    add("configs", nargs="*", metavar="CONFIG", help="files or names; all of configs/ by default")
    add("--algorithm", nargs="+", metavar="NAME", help="only configs of these")
    add("--env", nargs="+", metavar="NAME", help="only configs of these environments")
    add("--seeds", type=int, default=10, help="of each, counted from the config's (%(default)s)")
    add("--episodes", type=int, default=100, help="of each evaluation (%(default)s)")
    add("--again", action="store_true", help="run also what stands in the file")
    add("--devices", type=int, help="CPU devices over which seeds spread; by default all cores")
    make.set_defaults(
        json=str(ROOT / "bench" / "results.jsonl"),
        markdown=str(ROOT / "docs" / "results.md"),
        plot=str(ROOT / "docs" / "images" / "results.png"),
        timeout=24 * 3600.0,
    )
    return make


def cases(parsed: argparse.Namespace, chosen: Options) -> list[Case | Broken]:
    """What the command line asks for. Raises ValueError if that is nothing, or a wrong name."""
    if parsed.seeds < 1 or parsed.episodes < 1:
        raise ValueError(f"--seeds {parsed.seeds} --episodes {parsed.episodes}: at least 1 of each")
    found: list[Case | Broken] = []
    for path in parsed.configs or sorted(map(str, (ROOT / "configs").glob("*.toml"))):
        try:
            found.append(_case(Path(path).stem, path, config.load(path), parsed, chosen))
        except (ValueError, FileNotFoundError) as error:
            if parsed.configs:
                raise
            found.append(Broken(Path(path).stem, str(error)))
    kept = [case for case in found if _is_asked(case, parsed)]
    there = {(c.run_config.algorithm, c.run_config.env) for c in kept if isinstance(c, Case)}
    for algorithm, env in itertools.product(parsed.algorithm or (), parsed.env or ()):
        if not parsed.configs and (algorithm, env) not in there:  # the algorithm's defaults
            kept.append(_case(f"{algorithm}:{env}", "", RunConfig(env, algorithm), parsed, chosen))
    if not kept:
        raise ValueError("no config is left: see --algorithm and --env")
    return kept


def _is_asked(case: Case | Broken, parsed: argparse.Namespace) -> bool:
    if isinstance(case, Broken):
        return parsed.algorithm is None and parsed.env is None
    algorithms = {case.algorithm, case.run_config.algorithm}
    return (parsed.algorithm is None or bool(algorithms & set(parsed.algorithm))) and (
        parsed.env is None or case.run_config.env in parsed.env
    )


def _case(
    name: str, path: str, run_config: RunConfig, parsed: argparse.Namespace, chosen: Options
) -> Case:
    """The case with what the options change, and the command that repeats it."""
    words = ["python", "bench/results.py"]
    if path:
        own = (ROOT / "configs" / f"{name}.toml").is_file()
        words.append(name if own else Path(path).name)
    else:
        words += ["--algorithm", run_config.algorithm, "--env", run_config.env]
    if chosen.steps:
        run_config = dataclasses.replace(run_config, steps=chosen.steps)
        words += ["--steps", str(chosen.steps)]
    if chosen.set:
        changed = dataclasses.replace(run_config.config, **extra(chosen))
        run_config = dataclasses.replace(run_config, config=changed)
        words += [word for pair in chosen.set for word in ("--set", "=".join(pair))]
    words += ["--seeds", str(parsed.seeds), "--episodes", str(parsed.episodes)]
    return Case(name, run_config, parsed.seeds, parsed.episodes, " ".join(words))


def run(case: Case | Broken, path: Path, parsed: argparse.Namespace) -> int:
    """Trains the seeds that are missing in the file at `path`; 1 if that failed, else 0."""
    if isinstance(case, Broken):
        return _fail({"case": case.name, "steps": None, "hash": ""}, case.note, path)
    there = {
        r["seed"]
        for r in read(path)
        if (r["case"], r["hash"]) == (case.name, case.hash) and r["status"] != results_page.FAILED
    }
    todo = [s for s in case.all_seeds if parsed.again or s not in there]
    print(f"{case.name}: {len(todo)} of {case.seeds} seeds to run", flush=True)
    if not todo:
        return 0
    settings = {
        "case": case.name, "config": case.text, "seeds": todo, "episodes": case.episodes,
        "devices": parsed.devices or report.machine()["cores"],
    }  # fmt: skip
    whole_gpu = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.75"}  # it has the machine to itself
    contestant = Contestant(case.name, sys.executable, "own_results", settings, whole_gpu)
    try:
        with contextlib.closing(Worker(contestant)) as worker:
            for _ in todo:
                _append(_line(case) | _seed(worker.listen(parsed.timeout)), path)
    except FailedError as failure:
        return _fail(_line(case), str(failure).partition(": ")[2], path)
    return 0


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a results file, none if there is no file; one cut short is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError):
            rows.append(json.loads(line))
    return rows


def _line(case: Case) -> dict[str, Any]:
    """What a seed's line says about its case."""
    return {
        "case": case.name, "algorithm": case.algorithm, "env": case.run_config.env,
        "steps": case.run_config.steps, "seeds": case.seeds, "episodes": case.episodes,
        "deterministic": True, "command": case.command, "hash": case.hash,
    }  # fmt: skip


def _seed(said: dict[str, Any]) -> dict[str, Any]:
    """What a worker says about a seed, with its status."""
    value = said["return"]
    shown = "diverged" if value is None else f"return {value:.5g}"
    print(f"  seed {said['seed']}: {shown}", flush=True)
    return said | {"status": results_page.OK if value is not None else results_page.DIVERGED}


def _fail(line: dict[str, Any], note: str, path: Path) -> int:
    print(f"{line['case']}: failed: {note}", flush=True)
    _append(line | {"seed": None, "status": results_page.FAILED, "note": note}, path)
    return 1


def _append(line: dict[str, Any], path: Path) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps({"bench": "results", **line, "machine": report.machine()}) + "\n")


if __name__ == "__main__":
    sys.exit(main())
