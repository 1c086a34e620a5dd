"""How fast streams go, one and 1,024 of them, and what memory a stream takes as steps go by."""

import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from options import Options

import fastrl
from fastrl import population, stream_ac, stream_q

STREAMS = 1024
PEAK = "Stream Q, CartPole-v1, peak memory of the process"
MINATAR: Any = {"torso": "conv", "hidden_sizes": (128,), "time_feature": False}


def lines(chosen: Options, quick: bool, words: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """A line for every case whose name has one of `words`; with `quick` at tiny sizes."""
    many = 8 if quick else STREAMS
    short, long = (20, 40) if quick else (500, 20_000)
    cartpole, breakout = fastrl.make("CartPole-v1"), fastrl.make("MinAtar/Breakout-v1")
    q = lambda n: stream_q.make(cartpole, stream_q.Config(num_steps=n))  # noqa: E731
    conv = stream_q.make(breakout, stream_q.Config(num_steps=2 * short, **MINATAR))
    ac = stream_ac.make(fastrl.make("Pendulum-v1"), stream_ac.Config(num_steps=long))
    for name, algorithm, count in (
        ("Stream Q, CartPole-v1, one stream", q(long), 1),
        (f"Stream Q, CartPole-v1, {many:,} streams", q(short), many),
        ("Stream AC, Pendulum-v1, one stream", ac, 1),
        ("Stream Q, MinAtar/Breakout-v1, one stream", conv, 1),
    ):
        if _asked(name, words):
            yield rate(name, algorithm, count, chosen.rounds)
    if _asked(PEAK, words):
        last = max((chosen.steps or 10_000_000) // long, 2)
        yield memory(q(long), (1, 2) if quick else tuple(sorted({1, last // 10 or 1, last})))


def _asked(name: str, words: Sequence[str]) -> bool:
    return not words or any(word in name for word in words)


def rate(name: str, algorithm: Any, count: int, rounds: int) -> dict[str, Any]:
    """Transitions per second of `count` streams: the median of so many iterations of them all."""
    advance, state = program(algorithm, count)
    begin = time.perf_counter()
    state = jax.block_until_ready(advance(state))
    state = jax.block_until_ready(advance(state))  # once more: it comes back laid out otherwise
    first, rates, cores = time.perf_counter() - begin, [], []
    for _ in range(rounds):
        begin, used = time.perf_counter(), time.process_time()
        state = jax.block_until_ready(advance(state))
        seconds = time.perf_counter() - begin
        rates.append(count * algorithm.steps_per_iteration / seconds)
        cores.append((time.process_time() - used) / seconds)
    size = sum(x.nbytes for x in jax.tree.leaves(state)) / count
    note = f"{min(rates):,.0f} to {max(rates):,.0f}, {size / 1024:.1f} KiB a stream, "
    note += f"{min(cores):.2f} to {max(cores):.2f} cores busy"
    line = _line(name, note)
    print(f"{line['case']}: {statistics.median(rates):,.0f}/s ({note})", flush=True)
    line |= {
        "rates": rates,
        "cores": cores,
        "rate": statistics.median(rates),
        "first_seconds": first,
    }
    line |= {"first_seconds": first, "bytes_per_stream": size}
    return line | {"devices": jax.device_count()}


def program(algorithm: Any, count: int) -> tuple[Callable[[Any], Any], Any]:
    """One iteration of `count` streams, as `fastrl.members` would batch them, and their start."""
    hparams, task = algorithm.default_hparams, algorithm.env.default_params()
    one = lambda state: algorithm.step(state, hparams, task)[0]  # noqa: E731
    keys = jax.random.split(jax.random.key(0), count)
    start = jax.jit(jax.vmap(lambda key: algorithm.init(key, hparams, task)))(keys)
    over = population.batched(one, count, block=algorithm.side_by_side)
    return jax.jit(over, donate_argnums=0), start


def memory(algorithm: Any, marks: tuple[int, ...]) -> dict[str, Any]:
    """The process's peak after so many iterations of one stream."""
    advance, state = program(algorithm, 1)
    peaks, done, begin = [], 0, time.perf_counter()
    for mark in marks:
        for _ in range(mark - done):
            state = advance(state)
        state, done = jax.block_until_ready(state), mark
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _UNITS)
    each = algorithm.steps_per_iteration
    note = ", ".join(
        f"{p:.1f} MiB after {m * each:,}" for p, m in zip(peaks, marks, strict=True)
    )  # fmt: skip
    print(f"peak memory of the process: {note}", flush=True)
    seconds = time.perf_counter() - begin
    return _line(PEAK, note) | {
        "rate": marks[-1] * each / seconds, "peaks": peaks, "marks": [m * each for m in marks],
    }  # fmt: skip


_UNITS = 2**20 if sys.platform == "darwin" else 2**10  # of ru_maxrss in a MiB


def _line(case: str, note: str) -> dict[str, Any]:
    return {"bench": "streaming", "part": "speed", "case": case, "note": note, "ratio": None}
