"""The options that all benchmarks share."""

import argparse
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True)
class Options:
    """What the command line asks for. None leaves the choice to the script."""

    json: str | None = None
    markdown: str | None = None
    plot: str | None = None
    peers: tuple[str, ...] | None = None  # None: all that the script knows
    peer_path: tuple[tuple[str, Path], ...] = ()
    venvs: Path = Path()
    num_envs: tuple[int, ...] | None = None
    rounds: int = 5
    seconds: float = 1.0
    steps: int | None = None
    timeout: float = 300.0
    processor_time: bool = False
    set: tuple[tuple[str, str], ...] = ()

    def paths(self, peer: str) -> list[Path]:
        """What `--peer-path` says of `peer`: checkouts, virtual environments."""
        return [path for name, path in self.peer_path if name == peer]


def venvs_folder() -> Path:
    """Where peers' virtual environments are by default: in the user's cache."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache")
    return Path(base).expanduser() / "fastrl" / "bench"


def parser(description: str | None, peers: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The shared options; a script may add its own and then calls `options`."""
    known = ", ".join(peers) or "none"
    make = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    add = make.add_argument
    add("--json", metavar="FILE", help="write results as JSON lines, each with a field 'ratio'")
    add("--markdown", metavar="FILE", help="write the table, which is printed anyway")
    add("--plot", metavar="FILE", help="draw the results (png, svg, pdf)")
    add("--peers", nargs="*", metavar="NAME", choices=list(peers),
        help=f"of {known}; all by default, none after a bare --peers")  # fmt: skip
    add("--peer-path", action="append", type=_named_path, default=[], metavar="NAME=PATH",
        help="a peer's checkout, or an environment that has it; may be repeated")  # fmt: skip
    add("--venvs", type=Path, default=venvs_folder(), metavar="DIR",
        help="where peers' virtual environments are made (%(default)s)")  # fmt: skip
    add("--num-envs", nargs="+", type=_positive, metavar="N", help="numbers of environments")
    add("--rounds", type=_positive, default=5, help="alternating rounds (%(default)s)")
    add("--seconds", type=float, default=1.0, help="of a round, where rounds go by time")
    add("--steps", type=_positive, help="environment steps of a round, where rounds go by steps")
    add("--timeout", type=float, default=300.0, help="seconds after which a program counts as hung")
    add("--processor-time", action="store_true",
        help="rates per second of processor time: for one core of a busy machine")  # fmt: skip
    add("--set", action="append", type=_assignment, default=[], metavar="FIELD=VALUE",
        help="a field of fastrl's Config, where fastrl trains; may be repeated")  # fmt: skip
    return make


def options(arguments: argparse.Namespace) -> Options:
    """The shared part of what was parsed."""
    fields = {f.name: getattr(arguments, f.name) for f in dataclasses.fields(Options)}
    values: dict[str, Any] = {k: tuple(v) if type(v) is list else v for k, v in fields.items()}
    return Options(**values)


def without_plot(chosen: Options) -> Options:
    """The same, for a script that draws a picture of its own."""
    return dataclasses.replace(chosen, plot=None)


def _positive(text: str) -> int:
    number = int(text.replace("_", ""))
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: needs at least 1")
    return number


def _named_path(text: str) -> tuple[str, Path]:
    name, separator, path = text.partition("=")
    if not (name and separator and path):
        raise argparse.ArgumentTypeError(f"{text!r}: needs NAME=PATH")
    found = Path(path).expanduser()
    if not found.exists():
        raise argparse.ArgumentTypeError(f"{text!r}: {found} does not exist")
    return name, found.absolute()


def _assignment(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not (name and separator):
        raise argparse.ArgumentTypeError(f"{text!r}: needs FIELD=VALUE")
    return name.replace("-", "_"), value
