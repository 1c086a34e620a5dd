"""Seconds from the start of a process to the end of the first iteration of PPO CartPole.

    python bench/compile.py --peer-path purejaxrl=../purejaxrl

Cold: nothing was compiled before.  Warm: the compilation cache has seen the same program.  The
ratio is the peer's time over fastrl's.
"""

import contextlib
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import arena
import options
import peers
from contest import Contestant, FailedError, Worker
from options import Options
from report import Report, Row
from training import CARTPOLE, CARTPOLE_HPARAMS

_KEEP_ALL = {
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
COLD, WARM, TRAIN_COLD, TRAIN_WARM = "cold", "warm", "fastrl.train, cold", "fastrl.train, warm"


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    parser = options.parser(__doc__, ("purejaxrl",))
    chosen = options.options(parser.parse_args(arguments))
    report = Report("Process start to the end of the first iteration", chosen)
    num_envs = chosen.num_envs[0] if chosen.num_envs else CARTPOLE["num_envs"]
    settings = CARTPOLE | {"num_envs": num_envs, "hparams": CARTPOLE_HPARAMS, "first": True}
    settings["steps"] = num_envs * settings["num_steps"]
    with tempfile.TemporaryDirectory() as folder:
        report.add(*measure(settings, Path(folder), chosen))
    report.close()
    return 0


def measure(settings: dict[str, Any], folder: Path, chosen: Options) -> list[Row]:
    """fastrl cold and warm, and the peer cold and warm, in alternating rounds."""
    entrants = {
        ("fastrl", COLD): _own(settings, folder / "none", "parts"),
        ("fastrl", WARM): _own(settings, folder / "parts", "parts"),
        ("fastrl", TRAIN_COLD): _own(settings, folder / "none", "train"),
        ("fastrl", TRAIN_WARM): _own(settings, folder / "train", "train"),
    }
    missing = ""
    if chosen.peers is None or chosen.peers:
        try:
            peer = arena.enter(arena.Rival("purejaxrl", "peer_purejaxrl"), settings, chosen)[0]
            entrants["purejaxrl", COLD] = _cached(peer, None)
            entrants["purejaxrl", WARM] = _cached(peer, folder / "peer")
        except peers.MissingError as error:
            missing = str(error)
    seconds: dict[tuple[str, str], list[float]] = {name: [] for name in entrants}
    phases: dict[tuple[str, str], list[dict[str, float]]] = {name: [] for name in entrants}
    for turn in range(chosen.rounds + 1):  # the first fills the caches and does not count
        for name, contestant in entrants.items():
            if "warm" not in name[1] and turn == 0:
                continue
            with contextlib.suppress(FailedError):
                took, said = _start(contestant, chosen.timeout)
                if turn:
                    seconds[name].append(took)
                    phases[name].append(said)
    return _rows(settings, seconds, phases, missing)


def _own(settings: dict[str, Any], cache: Path, through: str) -> Contestant:
    """fastrl with its cache in `cache`, which stays empty when it is called "none"."""
    cold = cache.name == "none"
    environment = {"FASTRL_CACHE_DIR": "" if cold else str(cache)}
    return Contestant(
        "fastrl", sys.executable, "own_first", settings | {"through": through}, environment
    )


def _cached(peer: Contestant, cache: Path | None) -> Contestant:
    enabled = "false" if cache is None else "true"
    folder = {} if cache is None else {"JAX_COMPILATION_CACHE_DIR": str(cache)}
    environment = peer.environment | _KEEP_ALL | {"JAX_ENABLE_COMPILATION_CACHE": enabled} | folder
    return Contestant(peer.name, peer.python, peer.program, peer.settings, environment)


def _start(contestant: Contestant, timeout: float) -> tuple[float, dict[str, float]]:
    """The seconds from the start of the process to its message, and the phases that it names."""
    begin = time.perf_counter()
    with contextlib.closing(Worker(contestant)) as worker:
        said = worker.listen(timeout)
        return time.perf_counter() - begin, said["phases"]


def _rows(
    settings: dict[str, Any], seconds: dict[tuple[str, str], list[float]],
    phases: dict[tuple[str, str], list[dict[str, float]]], missing: str,
) -> list[Row]:  # fmt: skip
    """fastrl's phases, then its times against the peer's."""
    rows = []
    pairs = [
        (COLD, COLD), (WARM, COLD), (WARM, WARM), (TRAIN_COLD, COLD), (TRAIN_WARM, COLD)
    ]  # fmt: skip
    for own, other in pairs:
        mine, theirs = seconds["fastrl", own], seconds.get(("purejaxrl", other), [])
        per_round = [b / a for a, b in zip(mine, theirs, strict=False)]
        said = phases["fastrl", own]
        parts = {k: statistics.median(p[k] for p in said) for k in (said[0] if said else ())}
        status = "missing" if missing else "ok" if mine and (theirs or not seconds) else "failed"
        alone = ("purejaxrl", other) not in seconds and not missing
        rows.append({
            "bench": "compile", "case": f"first iteration, {own}", "settings": settings,
            "peer": None if alone else "purejaxrl", "variant": other,
            "status": ("ok" if mine else "failed") if alone else status, "note": missing,
            "ratio": statistics.median(per_round) if per_round else None, "ratios": per_round,
            "unit": "s", "fastrl": statistics.median(mine) if mine else None, "phases": parts,
            "peer_rate": statistics.median(theirs) if theirs else None,
        })  # fmt: skip
        print("    " + ", ".join(f"{name} {t:.2f} s" for name, t in parts.items()), flush=True)
    return rows


if __name__ == "__main__":
    sys.exit(main())
