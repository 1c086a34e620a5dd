"""fastrl and its peers in one case: finds who is there, lets them compete, makes the rows."""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import peers
import report
from contest import Contestant, Result, best, compete
from options import Options

# Compiling is measured, so nothing compiled is kept between runs.
_UNCACHED = {"JAX_ENABLE_COMPILATION_CACHE": "false"}


@dataclasses.dataclass(frozen=True)
class Rival:
    """A peer's program. With several `cores` it runs once for each number, and the best counts.

    None stands for all cores.
    """

    peer: str
    program: str
    cores: tuple[int | None, ...] = (None,)
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def own(program: str, settings: Mapping[str, Any]) -> Contestant:
    """fastrl's side."""
    environment = _UNCACHED | {"FASTRL_CACHE_DIR": ""}
    return Contestant("fastrl", sys.executable, program, dict(settings), environment)


def meet(
    bench: str, case: str, settings: dict[str, Any], program: str, rivals: Sequence[Rival],
    chosen: Options,
) -> list[report.Row]:  # fmt: skip
    """A row for each rival that the options ask for; one of fastrl alone where there is none."""
    wanted = [r for r in rivals if chosen.peers is None or r.peer in chosen.peers]
    contestants, absent = [own(program, settings)], []
    for rival in wanted:
        try:
            contestants += enter(rival, settings, chosen)
        except peers.MissingError as error:
            absent.append(Result(rival.peer, status="missing", note=str(error)))
    results = compete(contestants, chosen.rounds, chosen.timeout)
    for result in results:
        result.clock = "cpu_seconds" if chosen.processor_time else "seconds"
    found = {r.name: r for r in best(results[1:])} | {r.name: r for r in absent}
    if not wanted:
        return [report.row(bench, case, settings, results[0], None)]
    return [report.row(bench, case, settings, results[0], found[r.peer]) for r in wanted]


def enter(rival: Rival, settings: Mapping[str, Any], chosen: Options) -> list[Contestant]:
    """The contestants of a rival, one for each number of cores.

    Raises `peers.MissingError`.
    """
    interpreter = peers.find(rival.peer, chosen)
    made = []
    for cores in rival.cores:
        own_settings = {**settings, **rival.extra, "cores": cores, "checkout": interpreter.checkout}
        variant = "" if len(rival.cores) == 1 else "all cores" if cores is None else f"{cores} core"
        made.append(Contestant(
            rival.peer, interpreter.python, rival.program, own_settings,
            _UNCACHED | interpreter.environment, variant,
        ))  # fmt: skip
    return made
