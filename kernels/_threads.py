"""Tasks of a numba handler on the threads that XLA has for its own operations.

There is one team in a process.  A handler that has tasks posts them and takes them one by one, and
so do helpers: functions that XLA's thread pool runs, and that stay for a moment after the last
task, as the next ones mostly come soon and waking a thread takes as long as a task.  The handler
waits only for tasks that have begun: where no helper comes it does all of them itself.

The team's `_STATE` holds all that must change at once: a bit for each task that nobody has begun,
and a count of postings, so that a helper can't take a task of one posting for one of another.  What
a task reads stays until all tasks of its posting are done.  A thread begins with the same tasks in
every posting, because what these write and read is then in its cache.
"""

# Intrinsics are written with a typing context in front and called without.
# pyright: reportCallIssue=false, reportPrivateImportUsage=false

import re
from pathlib import Path
from typing import Any

import jax
import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastrl.kernels._buffers import FRAME_API, FRAME_CONTEXT, apart
from fastrl.kernels._buffers import WORD as _WORD
from fastrl.kernels._numba_ffi import MOST_TASKS

# Words of the team, those that change on lines of the cache of their own.
_STATE, _DONE, _LOCK, _RUN, _INPUTS, _OUTPUTS, _INDEX = 0, 8, 16, 24, 25, 26, 27
_TASKS, _THREADS, _COUNT, _HELPERS = 28, 29, 30, 32  # _HELPERS: whether each thread is there
_POSTING = 1 << 32  # in _STATE, above the bits of tasks
_PATIENCE = 150  # times that a helper gives way to other threads before it leaves
_SPINS = 64  # looks at the team between these


def _functions() -> dict[str, int]:
    """In which word of XLA's table each function is, by the header of the jaxlib that is here."""
    header = Path(jax.ffi.include_dir(), "xla", "ffi", "api", "c_api.h").read_text(encoding="utf-8")
    table = header.partition("struct XLA_FFI_Api {")[2].partition("};")[0]
    names = re.findall(r"_XLA_FFI_API_STRUCT_FIELD\(XLA_FFI_(\w+)\)", table)
    return {name: 6 + i for i, name in enumerate(names)}  # after the size, version and the like


_WORDS = _functions()
_API_DESTROY_ERROR = _WORDS["Error_Destroy"]
_API_SCHEDULE, _API_NUM_THREADS = (
    _WORDS["ThreadPool_Schedule"], _WORDS["ThreadPool_NumThreads"]
)  # fmt: skip
_memory = np.zeros(64, np.int64)
TEAM: Any = _memory.ctypes.data

_give_way = types.ExternalFunction("sched_yield", types.int32())


def _pointer(builder, address, word):
    return builder.gep(builder.inttoptr(address, _WORD.as_pointer()), [word])


@intrinsic
def get(typingctx, address, word):
    """The word number `word` from `address`."""

    def codegen(context, builder, signature, args):
        return builder.load_atomic(_pointer(builder, *args), "acquire", 8)

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def _put(typingctx, address, word, value):
    def codegen(context, builder, signature, args):
        builder.store_atomic(args[2], _pointer(builder, *args[:2]), "release", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@intrinsic
def _add(typingctx, address, word, amount):
    """Adds to a word, all at once, and returns what it was before."""

    def codegen(context, builder, signature, args):
        return builder.atomic_rmw("add", _pointer(builder, *args[:2]), args[2], "seq_cst")

    return types.int64(types.int64, types.int64, types.int64), codegen


@intrinsic
def _swap(typingctx, address, word, old, new):
    """Writes `new` where the word is `old`, all at once, and says whether it was."""

    def codegen(context, builder, signature, args):
        place = _pointer(builder, *args[:2])
        pair = builder.cmpxchg(place, args[2], args[3], "seq_cst", "seq_cst")
        return builder.zext(builder.extract_value(pair, 1), _WORD)

    return types.int64(*[types.int64] * 4), codegen


@intrinsic
def _call_xla(typingctx, function, first, second, third):
    """Calls a function of XLA's interface with a struct of its size, no extension and three words;
    returns its error, or 0."""

    def codegen(context, builder, signature, args):
        words = [_WORD(40), _WORD(0), *args[1:]]
        place = cgutils.alloca_once(builder, _WORD, size=_WORD(5))
        for i, value in enumerate(words):
            builder.store(value, builder.gep(place, [_WORD(i)]))
        kind = ir.FunctionType(_WORD, [_WORD.as_pointer()])
        return builder.call(builder.inttoptr(args[0], kind.as_pointer()), [place])

    return types.int64(*[types.int64] * 4), codegen


@intrinsic
def _run(typingctx, function, inputs, outputs, index, task):
    """Calls the function at that address."""

    def codegen(context, builder, signature, args):
        kind = ir.FunctionType(ir.VoidType(), [_WORD] * 4)
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5), codegen


@numba.njit
def _asked(api, function, first, second, third):
    """Whether XLA did what it was asked; an error is thrown away."""
    error = _call_xla(get(api, function), first, second, third)
    if error != 0:
        _call_xla(get(api, _API_DESTROY_ERROR), error, 0, 0)
    return error == 0


@numba.njit
def _take_one(thread, tasks, threads):
    """Does a task that nobody has begun, of its own first, and says whether there was one."""
    state = get(TEAM, _STATE)
    pending = state % _POSTING
    if pending == 0:
        return False
    task = thread * tasks // threads % MOST_TASKS
    while (pending >> task) & 1 == 0:
        task = (task + 1) % MOST_TASKS
    if _swap(TEAM, _STATE, state, state - (1 << task)):
        function, inputs = get(TEAM, _RUN), get(TEAM, _INPUTS)
        _run(function, inputs, get(TEAM, _OUTPUTS), get(TEAM, _INDEX), task)
        _add(TEAM, _DONE, 1)
    return True


@numba.njit
def _num_threads(api, context):
    """Of XLA's pool; 1 where it does not say."""
    _put(TEAM, _COUNT, 1)
    if not _asked(api, _API_NUM_THREADS, context, TEAM + 8 * _COUNT, 0):
        _put(TEAM, _COUNT, 1)
    return get(TEAM, _COUNT)


@numba.cfunc(types.void(types.int64))
def _helper(thread):
    """What a thread of XLA's pool does; that of the handler has the number 0."""
    idle = 0
    while idle < _PATIENCE:
        for _ in range(_SPINS):
            if _take_one(thread, get(TEAM, _TASKS), get(TEAM, _THREADS)):
                idle = 0
        _give_way()
        idle += 1
    _put(TEAM, _HELPERS + thread, 0)


_HELP: Any = _helper.address


@apart
def share(frame, tasks, run, inputs, outputs, index, alone):
    """Calls the function at `run` with (inputs, outputs, index, task) for each task, beside
    helpers, unless `alone`; at most `MOST_TASKS` tasks."""
    if alone or not _swap(TEAM, _LOCK, 0, 1):  # or another program has the team
        for task in range(tasks):
            _run(run, inputs, outputs, index, task)
        return
    _put(TEAM, _RUN, run)
    _put(TEAM, _INPUTS, inputs)
    _put(TEAM, _OUTPUTS, outputs)
    _put(TEAM, _INDEX, index)
    _put(TEAM, _DONE, 0)
    posting = (get(TEAM, _STATE) // _POSTING + 1) % (1 << 30)
    api, context = get(frame, FRAME_API), get(frame, FRAME_CONTEXT)
    threads = min(_num_threads(api, context), tasks)
    _put(TEAM, _TASKS, tasks)
    _put(TEAM, _THREADS, threads)
    _put(TEAM, _STATE, posting * _POSTING + (1 << tasks) - 1)
    for thread in range(1, threads):
        away = _swap(TEAM, _HELPERS + thread, 0, 1)
        if away and not _asked(api, _API_SCHEDULE, context, _HELP, thread):
            _put(TEAM, _HELPERS + thread, 0)
    while _take_one(0, tasks, threads):
        pass
    spins = 0
    while get(TEAM, _DONE) < tasks:
        spins += 1
        if spins % _SPINS == 0:
            _give_way()
    _put(TEAM, _LOCK, 0)
