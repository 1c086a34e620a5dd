"""What compiling a training program costs, and what is static in it."""

import dataclasses
import textwrap
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastrl import chunks, door
from fastrl import metrics as fm
from fastrl.hparams import as_arrays, conform
from fastrl.kernels import prng
from fastrl.leaves import named, number_of_bytes
from fastrl.types import Algorithm


class Phases(NamedTuple):
    """One program: seconds until it can run, and its size."""

    trace: float  # Python code to jaxpr
    lower: float  # to StableHLO
    compile: float  # to machine code, or out of the persistent cache
    equations: int  # of the jaxpr, inner ones included
    instructions: int  # of the optimised HLO
    temporary_bytes: int  # memory while it runs, besides its arguments and results


@dataclasses.dataclass(frozen=True)
class CompileReport:
    """See `compile_report`; `str()` is a table."""

    programs: dict[str, Phases]
    state_bytes: int
    static: dict[str, Any]  # what shapes the program: another value compiles anew
    traced: dict[str, Any]  # hparams and task: another value compiles nothing

    def __str__(self) -> str:
        rows = [("program", *(name.replace("_", " ") for name in Phases._fields))]
        for name, phases in self.programs.items():
            seconds = (f"{x:.2f} s" for x in phases[:3])
            rows.append((name, *seconds, *(f"{x:,}" for x in phases[3:])))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(x.rjust(w) for x, w in zip(r, widths, strict=True)) for r in rows]
        for name in ("static", "traced"):
            values = ", ".join(f"{k}={v}" for k, v in getattr(self, name).items())
            wrap = textwrap.TextWrapper(100, f"{name}  ", " " * 8, break_on_hyphens=False)
            lines += wrap.wrap(values)
        return "\n".join((*lines, f"state   {self.state_bytes:,} bytes"))


def compile_report(algorithm: Algorithm, hparams: Any = None, task: Any = None) -> CompileReport:
    """Traces, lowers and compiles the two programs of `fastrl.train`, and says what it took.

    With a warm persistent cache `compile` is the time to find the program there; set
    `FASTRL_CACHE_DIR=` (empty) before the process starts to see the compiler's own.

    Raises ValueError for what can't be traced, TypeError if `algorithm` is none.
    """
    door.algorithm(algorithm)
    hparams = conform(hparams, algorithm.default_hparams)
    algorithm.check(hparams)
    if task is None and algorithm.env is not None:
        task = algorithm.env.default_params()
    task = as_arrays(task, "task")
    key = prng.key(0)
    state, metrics = chunks.check(algorithm, key, hparams, task)
    zeros = fm.zeros_like(metrics)
    programs = {
        "init": _phases(lambda *args: algorithm.init(*args), key, hparams, task),
        "chunk": _phases(
            lambda *args: chunks.chunk_program(algorithm)(*args),
            state, zeros, hparams, task, jnp.int32(1),
        ),
    }  # fmt: skip
    recipe = algorithm.recipe
    static = {} if recipe is None else {"env": recipe.env, **_fields(recipe.config)}
    traced = {name: _short(x) for tree in (hparams, task) for name, x in named(tree).items()}
    return CompileReport(programs, number_of_bytes(state), static, traced)


def _phases(function: Callable[..., Any], *arguments: Any) -> Phases:
    """Fresh functions are given, so that nothing is in memory from an earlier trace."""
    began = time.perf_counter()
    traced = jax.jit(function).trace(*arguments)
    after_trace = time.perf_counter()
    lowered = traced.lower()
    after_lower = time.perf_counter()
    compiled = lowered.compile()
    end = time.perf_counter()
    memory = compiled.memory_analysis()
    return Phases(
        after_trace - began,
        after_lower - after_trace,
        end - after_lower,
        _equations(traced.jaxpr.jaxpr),
        (compiled.as_text() or "").count(" = "),
        int(getattr(memory, "temp_size_in_bytes", 0)),
    )


def _equations(jaxpr: Any) -> int:
    inner = (
        getattr(sub, "jaxpr", sub)
        for equation in jaxpr.eqns
        for value in equation.params.values()
        for sub in (value if isinstance(value, (tuple, list)) else (value,))
    )
    return len(jaxpr.eqns) + sum(_equations(sub) for sub in inner if hasattr(sub, "eqns"))


def _fields(config: Any) -> dict[str, Any]:
    return {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}


def _short(x: Any) -> str:
    return f"{np.asarray(x):g}" if x.ndim == 0 else f"[{','.join(map(str, x.shape))}]"
