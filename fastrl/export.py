"""A training program as a file: traced and lowered ahead of time, run without its Python code.

`export` writes the two programs of the host driver, `init` and a chunk of iterations, as
StableHLO, for one or several platforms.  `load_program` reads them where only JAX and fastrl
are: nothing of the environment or the algorithm is imported, nothing is traced, and hyper-
parameters, task and seed are still arguments.  The numbers are those of `fastrl.train`.

The file is a zip of a JSON table and serialised StableHLO: reading one from a stranger can't
run Python code.
"""

import dataclasses
import json
import math
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from fastrl import chunks, door, registry
from fastrl.files import replacing
from fastrl.hparams import as_arrays, conform
from fastrl.kernels import _numba_ffi, prng
from fastrl.leaves import described, differences, named, with_keys, without_keys, words
from fastrl.metrics import Mean
from fastrl.types import Algorithm

FORMAT = 1
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
_FILES = ("init.stablehlo", "chunk.stablehlo")
_LARGEST = 2**30  # bytes of one program; more is no training program

Leaves = dict[str, Any]  # arrays by name, typed keys as their data


def export(
    algorithm: Algorithm,
    path: str | os.PathLike[str],
    hparams: Any = None,
    task: Any = None,
    *,
    platforms: Sequence[str] | None = None,
) -> Path:
    """Writes the training program of `algorithm` to `path`; returns it.

    `hparams` and `task` (by default the algorithm's own) become the program's defaults.
    `platforms` are those that the program is to run on, by default the one of this process.

    Raises ValueError for an unknown platform or what can't be traced, OSError, with the path,
    where it can't be written.
    """
    door.algorithm(algorithm)
    for name in platforms or ():
        door.choice("platforms", name, PLATFORMS)
    hparams = conform(hparams, algorithm.default_hparams)
    algorithm.check(hparams)
    if task is None and algorithm.env is not None:
        task = algorithm.env.default_params()
    task = as_arrays(task, "task")
    key = prng.key(0)
    state, metrics = chunks.check(algorithm, key, hparams, task)
    programs = _programs(algorithm, state, metrics, hparams, task)
    key_, state_, metrics_, hparams_, task_ = (
        jax.eval_shape(_leaves, x) for x in (key, state, metrics, hparams, task)
    )
    arguments = (key_, hparams_, task_), (state_, metrics_, hparams_, task_, jnp.int32(0))
    table = {
        "format": FORMAT,
        "jax": jax.__version__,
        "steps_per_iteration": algorithm.steps_per_iteration,
        "prng": prng.implementation(),
        "state": {name: words(x) for name, x in state_.items()},
        "metrics": sorted(metrics),
        "hparams": _table(hparams),
        "task": _table(task),
    }
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr("program.json", json.dumps(table, indent=1))
        for file, program, given in zip(_FILES, programs, arguments, strict=True):
            with _numba_ffi.portable():
                exported = jax.export.export(jax.jit(program), platforms=platforms)(*given)
            z.writestr(file, _serialized(exported))
    return Path(path)


def _serialized(exported: jax.export.Exported) -> bytes:
    try:
        return bytes(exported.serialize())
    except ImportError as error:
        raise ImportError("export needs flatbuffers: pip install 'fastrl[export]'") from error


def _programs(algorithm: Algorithm, state: Any, metrics: Any, hparams: Any, task: Any) -> Any:
    """`init` and a chunk as functions of leaves by name: plain arrays, no types of Python's."""

    def init(key: Leaves, h: Leaves, t: Leaves) -> Leaves:
        restored = (_restore(x, like) for x, like in ((key, prng.key(0)), (h, hparams), (t, task)))
        return _leaves(algorithm.init(*restored))

    chunk_of = chunks.chunk_program(algorithm)

    def chunk(s: Leaves, m: Leaves, h: Leaves, t: Leaves, n: Any) -> tuple[Leaves, Leaves, Any]:
        following, report = chunk_of(
            _restore(s, state), _restore(m, metrics), _restore(h, hparams), _restore(t, task), n
        )
        return _leaves(following), _leaves(report.metrics), report.ok

    return init, chunk


def _leaves(tree: Any) -> Leaves:
    return named(without_keys(tree))


def _restore(leaves: Leaves, like: Any) -> Any:
    in_order = [leaves[name] for name in named(like)]  # JAX sorts the names of a dict
    return with_keys(jax.tree.unflatten(jax.tree.structure(like), in_order), like)


def _table(tree: Any) -> dict[str, Any]:
    """Name -> [type, shape, values] of every leaf."""
    host = {name: np.asarray(x) for name, x in _leaves(tree).items()}
    return {k: [x.dtype.name, list(x.shape), x.ravel().tolist()] for k, x in host.items()}


@dataclasses.dataclass(frozen=True)
class Program:
    """A training program that was read from a file; see `load_program`."""

    steps_per_iteration: int
    hparams: Leaves  # defaults, by name
    task: Leaves
    platforms: tuple[str, ...]
    _table: Mapping[str, Any]
    _init: Any
    _chunk: Any

    def init(
        self,
        seed: int = 0,
        *,
        hparams: Mapping[str, Any] | None = None,
        task: Mapping[str, Any] | None = None,
    ) -> Leaves:
        """The state at the start, leaves by name; `hparams` and `task` over the defaults."""
        inputs = _over(self.hparams, hparams, "hparams"), _over(self.task, task, "task")
        return self._init({"value": jax.random.key_data(prng.key(seed))}, *inputs)

    def run(
        self,
        state: Leaves,
        steps: float,
        *,
        hparams: Mapping[str, Any] | None = None,
        task: Mapping[str, Any] | None = None,
    ) -> tuple[Leaves, dict[str, float]]:
        """At least `steps` environment steps on; the state and the means of the metrics.

        Raises FloatingPointError if something was not finite, ValueError for a state or
        setting that does not fit.
        """
        wrong = differences(described(dict(state)), dict(self._table["state"]))
        if wrong:
            name, was, wanted = wrong[0]
            raise ValueError(f"state[{name!r}] is {was}, the program needs {wanted}")
        iterations = math.ceil(door.number("steps", steps, 1) / self.steps_per_iteration)
        inputs = _over(self.hparams, hparams, "hparams"), _over(self.task, task, "task")
        zeros = {
            f"{name}.{part}": jnp.zeros((), jnp.float32)
            for name in self._table["metrics"] for part in Mean._fields
        }  # fmt: skip
        state, metrics, ok = self._chunk(state, zeros, *inputs, jnp.int32(iterations))
        if not ok:
            raise FloatingPointError("a metric or parameter is not finite")
        return state, {
            name: float(metrics[f"{name}.total"] / metrics[f"{name}.weight"])
            for name in self._table["metrics"]
        }


def _over(defaults: Leaves, given: Mapping[str, Any] | None, what: str) -> Leaves:
    """`defaults` with the values in `given`. Raises ValueError for an unknown or unfit one."""
    given = given or {}
    for name, value in given.items():
        if name not in defaults:
            raise ValueError(registry.unknown(f"{what} value", name, defaults))
        array = np.asarray(value)
        if array.shape != defaults[name].shape or array.dtype.kind not in "biuf":
            raise ValueError(
                f"{what}[{name!r}]={value!r}: needs numbers of shape {defaults[name].shape}"
            )
    return {
        name: jnp.asarray(given[name], x.dtype) if name in given else x
        for name, x in defaults.items()
    }


def load_program(path: str | os.PathLike[str]) -> Program:
    """Reads what `export` wrote.

        program = fastrl.load_program("ppo.zip")
        state = program.init(seed=3)
        state, metrics = program.run(state, steps=100_000, hparams={"learning_rate": 1e-3})

    Raises ValueError, naming the file, if it is no such program, is damaged, or is for other
    platforms than this process has.
    """
    try:
        with zipfile.ZipFile(path) as z:
            if any(info.file_size > _LARGEST for info in z.infolist()):
                raise ValueError("it is too large")
            table = json.loads(z.read("program.json"))
            if table["format"] != FORMAT:
                raise ValueError(f"it has format {table['format']}, this fastrl reads {FORMAT}")
            init, chunk = (jax.export.deserialize(bytearray(z.read(file))) for file in _FILES)
        hparams, task = (_arrays(table[name]) for name in ("hparams", "task"))
        platforms, steps = init.platforms, int(table["steps_per_iteration"])
        _ = table["state"], table["metrics"]
    except ImportError as error:
        raise ImportError("load_program needs flatbuffers: pip install 'fastrl[export]'") from error
    except FileNotFoundError:
        raise ValueError(f"no training program at {path}") from None
    except (OSError, zipfile.BadZipFile, KeyError, TypeError, ValueError, IndexError) as error:
        raise ValueError(f"{path} is no training program of fastrl.export: {error}") from error
    if table["prng"] != prng.implementation():
        raise ValueError(f"{path} uses {table['prng']} keys: set FASTRL_PRNG={table['prng']}")
    here = {"gpu": "cuda"}.get(jax.default_backend(), jax.default_backend())
    if here not in platforms:
        raise ValueError(f"{path} is for {', '.join(platforms)}, not for {here}: export it anew")
    return Program(
        steps, hparams, task, tuple(platforms), table, jax.jit(init.call), jax.jit(chunk.call)
    )


def _arrays(table: Mapping[str, Any]) -> Leaves:
    return {
        name: jnp.asarray(np.asarray(values, dtype).reshape(shape))
        for name, (dtype, shape, values) in table.items()
    }
