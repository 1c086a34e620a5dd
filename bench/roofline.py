"""Where the time of a PPO iteration goes, against what this machine can do.

    python bench/roofline.py                     # 256x256, 1,024 environments
    python bench/roofline.py --hidden 64 64 --num-envs 2048

Parts are timed in alternating rounds in one process, with the peaks beside them: a copy of a
large array, a product of 1024x1024 matrices, and the products of this network alone, at the sizes
of its minibatches.  The update is what further epochs add to an iteration, shuffle and gather
included.  `ratio` is the share of the limit: of the network's own products for the update and the
iteration, of the copy's bandwidth for what only moves bytes.

FLOPs are those of matrix products: 2 B i o forward for a layer of i inputs and o outputs, as much
again for the gradient of its weights and, but for the first layer, of its inputs.  Bytes are
those that must move at least: each array read or written once.
"""

import itertools
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import options
import worker
from options import Options
from report import Report, Row

EPOCHS = (1, 5)  # the update is the difference
_COPY = 2**25  # float32 numbers
_FLOAT = 4  # bytes


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    parser = options.parser(__doc__)
    parser.add_argument("--hidden", nargs="+", type=int, default=(256, 256), metavar="H")
    parser.add_argument("--num-steps", type=int, default=32)
    parser.add_argument("--num-epochs", type=int, default=4)
    parser.add_argument("--num-minibatches", type=int, default=8)
    parser.add_argument("--cores", type=int, help="use only so many")
    parser.add_argument("--copy", type=int, default=_COPY, help="numbers in the copied array")
    parsed = parser.parse_args(arguments)
    chosen = options.options(parsed)
    if parsed.cores:
        worker.pin(parsed.cores)
    written = Report("Roofline of PPO CartPole", chosen)
    for num_envs in chosen.num_envs or (1024,):
        sizes = {
            "num_envs": num_envs, "num_steps": parsed.num_steps, "num_epochs": parsed.num_epochs,
            "num_minibatches": parsed.num_minibatches, "hidden_sizes": list(parsed.hidden),
            "activation": "tanh", "copy": parsed.copy,
        }  # fmt: skip
        written.add(*measure(sizes, chosen))
    written.close()
    return 0


def layers(inputs: int, hidden: list[int], outputs: int) -> list[tuple[int, int]]:
    """The layers of an actor and a critic, each with its own torso."""
    found = []
    for last in (outputs, 1):
        widths = [inputs, *hidden, last]
        found += itertools.pairwise(widths)
    return found


def flops(shape: list[tuple[int, int]], batch: int, inputs: int) -> tuple[float, float]:
    """FLOPs of the matrix products: forward, and forward with backward."""
    forward = sum(2.0 * batch * i * o for i, o in shape)
    to_inputs = sum(2.0 * batch * i * o for i, o in shape if i != inputs)
    return forward, 2 * forward + to_inputs


def measure(sizes: dict[str, Any], chosen: Options) -> list[Row]:
    """The rows of one size."""
    from roofline_parts import INPUTS, OUTPUTS, parts

    thunks = parts(sizes, EPOCHS)
    seconds = alternate(thunks, chosen.rounds, chosen.seconds / len(thunks))
    batch = sizes["num_envs"] * sizes["num_steps"]
    shape = layers(INPUTS, sizes["hidden_sizes"], OUTPUTS)
    forward, both = flops(shape, batch, INPUTS)
    epochs = sizes["num_epochs"]
    epoch = [
        (b - a) / (EPOCHS[1] - EPOCHS[0])
        for a, b in zip(seconds["few epochs"], seconds["more epochs"], strict=True)
    ]
    rest = [a - EPOCHS[0] * e for a, e in zip(seconds["few epochs"], epoch, strict=True)]
    whole = [r + epochs * e for r, e in zip(rest, epoch, strict=True)]
    bandwidth = [2 * _FLOAT * sizes["copy"] / s for s in seconds["copy"]]
    moved = batch * _FLOAT * (INPUTS + 6)  # observation, action, log-prob, value, reward, ends
    acting, learning = seconds["forward products"], seconds["products"]
    products = [f + epochs * p for f, p in zip(acting, learning, strict=True)]
    rows = [
        _row("iteration", whole, forward + epochs * both, _over(products, whole)),
        _row("update, an epoch", epoch, both, _over(learning, epoch)),
        _row("- shuffle", seconds["shuffle"], 0.0, None, _over(seconds["shuffle"], epoch)),
        _row("- gather", seconds["gather"], 0.0, _moves(2 * moved, seconds["gather"], bandwidth)),
        _row("all but updates", rest, forward, _over(acting, rest)),
        _row("- rollout", seconds["rollout"], forward, _over(acting, seconds["rollout"])),
        _row("- advantages", seconds["advantages"], 0.0,
             _moves(6 * _FLOAT * batch, seconds["advantages"], bandwidth)),
        _row("products of an epoch", learning, both, None),
        _row("products of a rollout", acting, forward, None),
        _row("product 1024x1024", seconds["peak product"], 2.0 * 1024**3, None),
        _row("copy", seconds["copy"], 0.0, None),
    ]  # fmt: skip
    name = f"{sizes['num_envs']} envs, {'x'.join(map(str, sizes['hidden_sizes']))}"
    _describe(name, rows, bandwidth)
    return [r | {"settings": sizes, "case": f"{name}: {r['case']}"} for r in rows]


def alternate(
    thunks: dict[str, Callable[[], Any]], rounds: int, seconds: float
) -> dict[str, list[float]]:
    """Seconds of a call of each, one of every thunk in turn, `rounds` times."""
    import jax

    calls = {}
    for name, call in thunks.items():
        jax.block_until_ready(call())
        begin = time.perf_counter()
        jax.block_until_ready(call())
        calls[name] = max(1, int(seconds / max(time.perf_counter() - begin, 1e-6)))
    spent: dict[str, list[float]] = {name: [] for name in thunks}
    for _ in range(rounds):
        for name, call in thunks.items():
            begin = time.perf_counter()
            for _ in range(calls[name]):
                result = call()
                jax.block_until_ready(result)
            spent[name].append((time.perf_counter() - begin) / calls[name])
    return spent


def _over(a: list[float], b: list[float]) -> list[float]:
    return [x / y for x, y in zip(a, b, strict=True)]


def _moves(count: float, seconds: list[float], bandwidth: list[float]) -> list[float]:
    """The share of the copy's bandwidth that moving `count` bytes takes."""
    return [count / s / b for s, b in zip(seconds, bandwidth, strict=True)]


def _row(
    case: str, seconds: list[float], work: float, shares: list[float] | None,
    of_epoch: list[float] | None = None,
) -> Row:  # fmt: skip
    """`ratio` is the share of the limit, None for the limits themselves."""
    median = statistics.median(seconds)
    return {
        "bench": "roofline", "case": case, "peer": None, "variant": "", "status": "ok",
        "note": "", "ratio": statistics.median(shares) if shares else None,
        "ratios": shares or [], "unit": "ms", "fastrl": 1e3 * median,
        "gflops_per_second": work / median / 1e9 if work else None,
        "share_of_epoch": statistics.median(of_epoch) if of_epoch else None,
    }  # fmt: skip


def _describe(name: str, rows: list[Row], bandwidth: list[float]) -> None:
    print(f"{name}: copies {statistics.median(bandwidth) / 1e9:.1f} GB/s")
    for r in rows:
        rate = r["gflops_per_second"]
        rate = "" if rate is None else f"{rate:8.1f} GFLOP/s"
        print(f"    {r['case']:24} {r['fastrl']:10.3f} ms {rate}")


if __name__ == "__main__":
    sys.exit(main())
