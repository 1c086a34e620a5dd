"""Streams: their barrier, what each stabiliser is worth, and how fast thousands of them go.

    python bench/streaming.py                        # all parts; a run that was stopped goes on
    python bench/streaming.py --part barrier --env CartPole-v1 --seeds 30
    python bench/streaming.py --part speed --rounds 3
    python bench/streaming.py --draw                 # table and picture of what is there

A case, 30 seeds of a learner, is a JSON line as soon as it is there; what stands in the file with
the same settings is not run again.  Returns are those of training, exploration included.
"""

import argparse
import dataclasses
import hashlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import options
import report
import results
import streaming_cases as cases
import streaming_page as page
import streaming_speed as speed
from streaming_cases import Case

import fastrl

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("barrier", "ablations", "speed", "minatar")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what is missing, draws, and prints the tables; 130 after Ctrl-C."""
    parsed = parser().parse_args(arguments)
    chosen, path = options.options(parsed), Path(parsed.json)
    if parsed.devices and not parsed.draw:
        fastrl.use_cpu_devices(parsed.devices)
    code = 0
    try:
        for case in [] if parsed.draw else wanted(parsed):
            run(case, parsed.seeds, path)
        if "speed" in parsed.part and not parsed.draw:
            for line in speed.lines(chosen, parsed.quick, parsed.learner or ()):
                append(line, path)
    except KeyboardInterrupt:
        print("interrupted: the same command goes on", file=sys.stderr)
        code = results.INTERRUPTED
    rows = results.read(path)
    text = page.tables(rows)
    print(text)
    if chosen.markdown:
        Path(chosen.markdown).write_text(text, encoding="utf-8")
    if chosen.plot and any(r["part"] in ("barrier", "minatar") for r in rows):
        page.draw(rows, Path(chosen.plot))
    return code


def parser() -> argparse.ArgumentParser:
    """The shared options, and which cases to run."""
    make = options.parser(__doc__)
    add = make.add_argument
    add("--part", nargs="+", choices=PARTS, default=PARTS[:-1],
        help="of barrier, ablations, speed, and minatar, which takes hours")  # fmt: skip
    add("--env", nargs="+", choices=cases.NAMES, metavar="NAME", help="only on these")
    add("--learner", nargs="+", metavar="NAME", help="only cases whose name has one of these")
    add("--seeds", type=int, default=30, help="of each case (%(default)s)")
    add("--devices", type=int, help="CPU devices over which seeds spread")
    add("--quick", action="store_true", help="of speed: small sizes")
    add("--draw", action="store_true", help="run nothing")
    make.set_defaults(
        json=str(ROOT / "bench" / "streaming.jsonl"),
        plot=str(ROOT / "docs" / "images" / "stream_barrier.png"),
    )
    return make


def wanted(parsed: argparse.Namespace) -> Iterator[Case]:
    """The cases that the command line asks for."""
    made: list[Case] = [*cases.minatar(parsed.steps)] if "minatar" in parsed.part else []
    made = [case for case in made if not parsed.env or case.env in parsed.env]
    for env in parsed.env or cases.STEPS:  # those of MinAtar where they are named
        if "barrier" in parsed.part and env in cases.STEPS:
            made += cases.barrier(env, parsed.steps)
        if "ablations" in parsed.part and env in cases.ABLATED:
            made += cases.ablations(env, parsed.steps)
    for case in made:
        if not parsed.learner or any(word in case.label for word in parsed.learner):
            yield case


def run(case: Case, seeds: int, path: Path) -> None:
    """Trains the case and writes its line, unless the file has it."""
    line = {
        "bench": "streaming", "part": case.part, "env": case.env, "learner": case.label,
        "steps": case.steps, "seeds": seeds, "rates": list(case.rates), "hash": key_of(case, seeds),
    }  # fmt: skip
    if any(r.get("hash") == line["hash"] for r in results.read(path)):
        return
    begin, least = time.perf_counter(), cases.LEAST.get(case.env, 0.0)
    if len(case.rates) > 1:
        tried = page.chosen(*train(case, min(seeds, cases.TRIED)), least, case.rates)
        line |= {"tried": tried["of_rates"]}
        case = dataclasses.replace(case, rates=(tried["rate"],))
    line |= page.chosen(*train(case, seeds), least, case.rates)
    line |= {"seconds": time.perf_counter() - begin, "ratio": None}
    interval = page.interval(line["scores"])
    shown = f"{interval.estimate:.4g} [{interval.low:.4g}, {interval.high:.4g}]"
    print(f"{case.env} {case.label}: {shown}, {line['seconds']:.0f} s", flush=True)
    append(line, path)


def key_of(case: Case, seeds: int) -> str:
    """What two runs must have in common to be the same."""
    return hashlib.sha256(f"{case!r} {seeds}".encode()).hexdigest()[:12]


def train(case: Case, seeds: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns `[R, S, POINTS]` over rates, seeds and time, NaN where no episode ended.

    And whether each `[R, S]` has diverged.  All are members of one program.
    """
    algorithm = case.algorithm()
    rates, count = case.rates or (None,), len(case.rates or (None,)) * seeds
    hparams = case.hparams
    if case.rates:
        each = jnp.repeat(jnp.asarray(case.rates, jnp.float32), seeds)
        hparams = hparams._replace(**dict.fromkeys(case.fields, each))
    keys = jnp.tile(jax.random.split(jax.random.key(0), seeds), len(rates))
    program = jax.jit(fastrl.members(algorithm, case.steps, block=case.block(algorithm)))
    states, metrics = program(keys, hparams, algorithm.env.default_params())
    leaves = jax.tree.leaves(algorithm.parameters(states))
    finite = np.all([np.isfinite(x).reshape(count, -1).all(1) for x in leaves], axis=0)
    total, weight = (np.asarray(x, np.float64) for x in metrics["episode_return"])
    with np.errstate(invalid="ignore", divide="ignore"):
        curves = total / weight
    return curves.reshape(len(rates), seeds, -1), ~finite.reshape(len(rates), seeds)


def append(line: dict[str, Any], path: Path) -> None:
    """Writes a line of its own, also after one that was cut short."""
    cut = path.exists() and path.read_bytes()[-1:] not in (b"", b"\n")
    with open(path, "a", encoding="utf-8") as file:
        file.write("\n" * cut + json.dumps(line | {"machine": report.machine()}) + "\n")


if __name__ == "__main__":
    sys.exit(main())
