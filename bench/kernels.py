"""Each kernel against the obvious form of the same operation, alternating in one process.

    python bench/kernels.py --json kernels.jsonl --rounds 20

The ratio is the baseline's time over the kernel's, the median over rounds.  Every gain that
docs/concepts/kernels.md states is a row here.
"""

import functools
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import kernels_baselines as binary
import kernels_dense as dense
import numpy as np
import options
from report import Report, Row

import fastrl
from fastrl.kernels import categorical, sum_tree
from fastrl.kernels._numba_ffi import numba_call
from fastrl.kernels.permutation import permutation
from fastrl.kernels.trigonometry import sin_cos

Run = Callable[[], Any]  # one round's work, not waited for


class Case(NamedTuple):
    """`make()` returns the kernel's run and the baseline's; each does so many `operations`."""

    name: str
    baseline: str
    operations: int
    make: Callable[[], tuple[Run, Run]]


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    parser = options.parser(__doc__)
    parser.set_defaults(rounds=20)
    parser.add_argument("--only", default="", metavar="TEXT", help="cases whose name has TEXT")
    parsed = parser.parse_args(arguments)
    chosen = options.options(parsed)
    report = Report("Kernels", chosen)
    for case in cases():
        if parsed.only in case.name:
            report.add(measure(case, chosen.rounds))
    report.close()
    return 0


def cases() -> list[Case]:
    """Everything that docs/concepts/kernels.md gives a number for."""
    per_env = [
        Case(f"split and uniform per env, N={n}", "threefry", steps,
             functools.partial(keys, n, steps))
        for n, steps in ((64, 1024), (2048, 64))
    ]  # fmt: skip
    shuffles = [
        Case(f"permutation [{t}, {n}]", "jax.random.permutation", 1,
             functools.partial(shuffle, t, n))
        for t, n in ((128, 64), (128, 2048))
    ]  # fmt: skip
    trees = [
        Case(f"sum tree 2^{log}, {n} of {side}", against, steps,
             functools.partial(replay, 2**log, n, steps, side, against))
        for log, n, steps in ((16, 64, 400), (20, 256, 100))
        for side, against in (("jnp", "binary, no weights"), ("jnp", "binary"), ("numba", "jnp"))
    ]  # fmt: skip
    draws = [
        Case(f"categorical [{n}, {a}]", "jax.random.categorical", steps,
             functools.partial(draw, n, a, steps))
        for n, a, steps in ((64, 2, 30_000), (1024, 2, 2000), (1024, 18, 100), (64, 256, 100))
    ]  # fmt: skip
    turns = [
        Case(f"sine and cosine [{n}]", "jnp.sin, jnp.cos", steps, functools.partial(turn, n, steps))
        for n, steps in ((1024, 4000), (8192, 500))
    ]
    networks = [
        Case(f"gradient of two 64x64 networks, {rows} rows", "one operation a layer", steps,
             functools.partial(dense.layers, rows, steps))
        for rows, steps in ((128, 400), (256, 200), (4096, 20))
    ]  # fmt: skip
    networks += [
        Case("Adam of two 64x64 networks", "optax, one vector", 2000,
             functools.partial(dense.descent, 2000))
    ]  # fmt: skip
    call = Case("numba call in a loop, 4 floats", "jax.pure_callback", 200, calls)
    return [*per_env, *shuffles, *trees, *draws, *turns, *networks, call]


def measure(case: Case, rounds: int) -> Row:
    """Kernel and baseline in turn, after one round each that compiles and does not count."""
    kernel, baseline = case.make()
    taken: list[list[float]] = [[], []]
    for turn in range(rounds + 1):
        for run, seconds in zip((kernel, baseline), taken, strict=True):
            start = time.perf_counter()
            jax.block_until_ready(run())
            if turn:
                seconds.append((time.perf_counter() - start) / case.operations)
    ratios = [b / k for k, b in zip(*taken, strict=True)]
    ours, theirs = (1e6 * statistics.median(seconds) for seconds in taken)
    return {
        "bench": "kernels", "case": case.name, "settings": {"rounds": rounds},
        "peer": case.baseline, "variant": "", "status": "ok", "note": "",
        "ratio": statistics.median(ratios), "ratios": ratios,
        "unit": "us", "fastrl": ours, "peer_rate": theirs,
    }  # fmt: skip


def keys(n: int, steps: int) -> tuple[Run, Run]:
    """A step of a vectorised environment's randomness: a key and a uniform for each."""

    @jax.jit
    def rollout(key: jax.Array) -> jax.Array:
        def step(total: jax.Array, key: jax.Array) -> tuple[jax.Array, None]:
            return total + jax.vmap(jax.random.uniform)(jax.random.split(key, n)), None

        return jax.lax.scan(step, jnp.zeros(n), jax.random.split(key, steps))[0]

    threefry = jax.random.key(0, impl="threefry2x32")
    return functools.partial(rollout, fastrl.key(0)), functools.partial(rollout, threefry)


def shuffle(t: int, n: int) -> tuple[Run, Run]:
    """An epoch's order of samples; both from the engine's keys."""
    ours = jax.jit(lambda key: permutation(key, t, n))
    theirs = jax.jit(lambda key: jax.random.permutation(key, t * n))
    return functools.partial(ours, fastrl.key(0)), functools.partial(theirs, fastrl.key(0))


def replay(capacity: int, n: int, steps: int, side: str, against: str) -> tuple[Run, Run]:
    """Draw n leaves and give them new priorities, in a loop over a donated tree."""
    priorities = jax.random.uniform(fastrl.key(1), (capacity,))

    def run(which: str) -> Run:
        if which.startswith("binary"):
            weights = which == "binary"
            sample = binary.sample_with_priorities if weights else binary.sample_without
            sample = functools.partial(sample, n=n)
            return _loop(binary.init(priorities), sample, binary.update, n, steps)
        impl = {"jnp": "ref", "numba": "numba"}[which]
        fill = jax.jit(functools.partial(sum_tree.update, impl="ref"))
        tree = fill(sum_tree.init(capacity), jnp.arange(capacity), priorities)
        sample = functools.partial(sum_tree.sample, n=n, impl=impl)
        return _loop(tree, sample, functools.partial(sum_tree.update, impl=impl), n, steps)

    return run(side), run(against)


def _loop(
    tree: Any, sample: Callable[..., Any], update: Callable[..., Any], n: int, steps: int
) -> Run:
    def step(tree: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        drawing, giving = jax.random.split(key)
        leaves, weights = sample(tree, drawing)
        return update(tree, leaves, jax.random.uniform(giving, (n,))), leaves.sum() + weights.sum()

    loop = jax.jit(lambda tree, keys: jax.lax.scan(step, tree, keys), donate_argnums=0)
    state, keys = [tree], jax.random.split(fastrl.key(2), steps)

    def run() -> jax.Array:
        state[0], out = loop(state[0], keys)
        return out

    return run


def draw(n: int, a: int, steps: int) -> tuple[Run, Run]:
    """n draws from a classes, both with the engine's keys, logits that depend on the last draw."""
    logits = jax.random.normal(fastrl.key(3), (n, a))

    def loop(sample: Callable[..., jax.Array]) -> Run:
        def step(last: jax.Array, key: jax.Array) -> tuple[jax.Array, None]:
            return sample(key, logits + 1e-3 * last[:, None]).astype(jnp.float32), None

        run = jax.jit(lambda keys: jax.lax.scan(step, jnp.zeros(n), keys)[0])
        return functools.partial(run, jax.random.split(fastrl.key(4), steps))

    return loop(categorical.sample), loop(jax.random.categorical)


def turn(n: int, steps: int) -> tuple[Run, Run]:
    """Sines and cosines of n angles that depend on the last ones."""

    def loop(both: Callable[[jax.Array], tuple[jax.Array, jax.Array]]) -> Run:
        def step(x: jax.Array, _: None) -> tuple[jax.Array, None]:
            sin, cos = both(x)
            return 0.9 * x + sin + 0.3 * cos, None

        run = jax.jit(lambda x: jax.lax.scan(step, x, None, steps)[0])
        return functools.partial(run, jnp.linspace(-3.0, 3.0, n))

    return loop(sin_cos), loop(lambda x: (jnp.sin(x), jnp.cos(x)))


def add_one(x, out):
    """The kernel of `calls`."""
    for i in range(len(x)):
        out[i] = x[i] + 1


def calls() -> tuple[Run, Run]:
    """What it costs to leave XLA and come back."""

    def loop(f: Callable[[jax.Array], jax.Array]) -> Run:
        run = jax.jit(lambda x: jax.lax.fori_loop(0, 200, lambda _, x: f(x), x))
        return functools.partial(run, jnp.zeros(4))

    shape = jax.ShapeDtypeStruct((4,), jnp.float32)
    ours = loop(lambda x: numba_call(add_one, [shape], x)[0])
    return ours, loop(lambda x: jax.pure_callback(lambda x: np.asarray(x) + 1, shape, x))


if __name__ == "__main__":
    sys.exit(main())
