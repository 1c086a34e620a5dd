"""Peers: what they are made of, and the interpreter that runs them.

Each has a virtual environment of its own, made on first use from package names, or is used from
a checkout or an environment that the user has (`--peer-path NAME=PATH`).  A peer that can't be
had is reported as missing; it never stops a benchmark.
"""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
import venv
from importlib import metadata
from pathlib import Path

from options import Options

_TIMEOUT = 1200  # seconds for an installation


@dataclasses.dataclass(frozen=True)
class Peer:
    """How to have a peer."""

    packages: tuple[str, ...]  # "jax" stands for fastrl's own version of it
    module: str  # whose import shows that it is there
    checkout: bool = False  # it is no package: needs `--peer-path`
    install: bool = False  # its checkout is installed, not only put on the path
    own: bool = False  # fastrl's own environment has it


_JAX = ("jax", "flax", "optax")
PEERS = {
    # fastrl itself, with other settings
    **{n: Peer((), "fastrl", own=True) for n in ("shared", "threefry", "pool", "cached", "none")},
    "gymnax": Peer(("gymnax==1.0.1", "six", *_JAX), "gymnax"),
    "gymnasium": Peer(("gymnasium==1.4.0", "numpy"), "gymnasium"),
    "navix": Peer(("navix==0.7.4", *_JAX), "navix"),
    "xminigrid": Peer(("xminigrid==0.9.3", *_JAX), "xminigrid"),
    # Both want gymnax 0.0.9: later ones return six values from `step`.
    "purejaxrl": Peer(("gymnax==0.0.9", "six", "distrax", *_JAX), "gymnax", checkout=True),
    "purejaxql": Peer(("gymnax==0.0.9", "six", "chex", *_JAX), "gymnax", checkout=True),
    "rejax": Peer(("rejax", "gymnax==0.0.9", "six", *_JAX), "rejax"),
    "groove": Peer(("gymnax==0.0.9", "six", "chex", *_JAX), "gymnax", checkout=True),
    "brax": Peer((), "brax.training.agents.ppo", own=True),
    "sbx": Peer(("sbx-rl", "gymnasium"), "sbx"),
    "torch": Peer(("torch==2.13.0", "gymnasium==1.4.0", "numpy"), "torch"),
    "stoix": Peer((), "stoix", checkout=True, install=True),
    "pufferlib": Peer(("torch==2.13.0",), "pufferlib", checkout=True, install=True),
}


@dataclasses.dataclass(frozen=True)
class Interpreter:
    """What runs a peer's program: a Python, and where the checkout is, if there is one."""

    python: str
    checkout: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """Variables of the peer's processes: nothing of fastrl's, the checkout on the path."""
        return {"PYTHONPATH": self.checkout, "PYTHONNOUSERSITE": "1"}


class MissingError(RuntimeError):
    """A peer that can't be had; the message says why."""


def find(name: str, options: Options) -> Interpreter:
    """The interpreter for the peer `name`, made where there is none yet.

    Raises `MissingError` if it can't be had.
    """
    peer = PEERS[name]
    given = options.paths(name)
    pythons = [p for p in map(_python_of, given) if p is not None]
    checkouts = [p for p in given if _python_of(p) is None]
    if peer.checkout and not checkouts and not pythons:
        raise MissingError(f"no package: pass its checkout, --peer-path {name}=PATH")
    checkout = str(checkouts[0]) if checkouts else ""
    if pythons:
        found = Interpreter(str(pythons[0]), checkout)
    elif peer.own:
        found = Interpreter(sys.executable, checkout)
    else:
        packages = [_requirement(p) for p in peer.packages]
        if peer.install:
            packages.append(checkout)
        found = Interpreter(str(_make(options.venvs / name, packages)), checkout)
    _try(found, peer.module)
    return found


def _python_of(path: Path) -> Path | None:
    """The interpreter of a virtual environment, None for another folder."""
    for candidate in (path / "bin" / "python", path / "Scripts" / "python.exe"):
        if candidate.exists():
            return candidate
    return None


def _requirement(package: str) -> str:
    """`package` for pip: JAX as fastrl has it here, with its plugin for GPUs if there is one."""
    if package != "jax":
        return package
    extras = [e for e in ("cuda12", "cuda13") if importlib.util.find_spec(f"jax_{e}_plugin")]
    return f"jax{extras[:1] or ''}=={metadata.version('jax')}".replace("'", "")


def _make(folder: Path, packages: list[str]) -> Path:
    """A virtual environment in `folder` with `packages`; one that has them stays as it is."""
    note = folder / "packages.json"
    python = _python_of(folder)
    if python is not None and note.exists() and json.loads(note.read_text()) == packages:
        return python
    print(f"installing into {folder}: {' '.join(packages)}", file=sys.stderr, flush=True)
    try:
        venv.create(folder, with_pip=True, clear=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise MissingError(f"no virtual environment in {folder}: {error}") from error
    python = _python_of(folder)
    assert python is not None
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    _run([*pip, "--retries", "1", "--timeout", "30", *packages], "pip install")
    note.write_text(json.dumps(packages))
    return python


def _try(interpreter: Interpreter, module: str) -> None:
    """Imports `module` as the peer's program will."""
    _run([interpreter.python, "-c", f"import {module}"], f"import {module}", interpreter)


def _run(command: list[str], what: str, interpreter: Interpreter | None = None) -> None:
    environment = os.environ | (interpreter.environment if interpreter else {})
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT, env=environment
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MissingError(f"{what}: {error}") from error
    if done.returncode:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise MissingError(f"{what}: {said[-1] if said else f'code {done.returncode}'}")
