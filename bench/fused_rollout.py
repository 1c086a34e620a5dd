"""The fused rollout against the same rollout as an XLA scan, on a GPU, alternating in one process.

    python bench/fused_rollout.py --json fused.jsonl
    python bench/fused_rollout.py --num-envs 16384 --blocks 32 64 --warps 4 8 --env Pendulum-v1

Without a GPU there is nothing to compare: the rows say `missing`.  The ratio is the median over
rounds; the fused rollout is that of the fastest launch, found before in a round of each.
"""

import functools
import itertools
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import options
from report import Report, Row

import fastrl
from fastrl import networks
from fastrl.kernels.fused_rollout import Kept, Launch, fused_rollout, reference_rollout, supports
from fastrl.kernels.fused_rollout.kernel import PRODUCTS

Run = Callable[[], Any]


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    parser = options.parser(__doc__)
    parser.set_defaults(rounds=10)
    parser.add_argument("--env", nargs="+", default=("CartPole-v1",), metavar="NAME")
    parser.add_argument("--hidden", nargs="+", type=int, default=(64, 64), metavar="H")
    parser.add_argument("--num-steps", type=int, default=128)
    parser.add_argument("--blocks", nargs="+", type=int, default=(16, 32, 64), metavar="B")
    parser.add_argument("--warps", nargs="+", type=int, default=(2, 4, 8, 16), metavar="W")
    parser.add_argument(
        "--products",
        nargs="+",
        default=("tf32x3",),
        choices=tuple(PRODUCTS),
        help="of hidden layers",
    )
    parsed = parser.parse_args(arguments)
    chosen = options.options(parsed)
    report = Report("Fused rollout", chosen)
    launches = [
        Launch(block=b, num_warps=w, products=p)
        for b, w, p in itertools.product(parsed.blocks, parsed.warps, parsed.products)
    ]
    for env, num_envs in itertools.product(parsed.env, chosen.num_envs or (4096, 16384, 65536)):
        sizes = {"hidden": list(parsed.hidden), "num_steps": parsed.num_steps}
        report.add(compare(env, num_envs, sizes, launches, chosen.rounds))
    report.close()
    return 0


def compare(
    name: str, num_envs: int, sizes: dict[str, Any], launches: list[Launch], rounds: int
) -> Row:
    """One row: the kernel with its best launch against the scan."""
    env, spec = fastrl.make(name), networks.NetworkConfig(tuple(sizes["hidden"]))
    row: Row = {
        "bench": "fused_rollout", "case": f"{name}, {num_envs} envs, {sizes['hidden']}",
        "settings": sizes | {"num_envs": num_envs, "rounds": rounds}, "peer": "XLA scan",
        "variant": "", "status": "missing", "note": "", "ratio": None, "ratios": [],
        "unit": "steps/s", "fastrl": None,
    }  # fmt: skip
    if jax.default_backend() != "gpu":
        return row | {"note": f"no GPU: the backend is {jax.default_backend()}"}
    if reason := supports(env, spec):
        return row | {"note": reason}
    start = _start(env, spec, num_envs)
    steps = sizes["num_steps"]
    scan = _program(reference_rollout(env, spec, kept=Kept()), start, env, steps)
    timed = {launch: _best(env, spec, start, steps, launch) for launch in launches}
    launch = min(timed, key=lambda k: timed[k][0])
    kernel = timed[launch][1]
    _seconds(scan)  # compiles
    times = [(_seconds(kernel), _seconds(scan)) for _ in range(rounds)]
    ratios = [theirs / ours for ours, theirs in times]
    ours, theirs = (steps * num_envs / statistics.median(t) for t in zip(*times, strict=True))
    seconds = {f"{k.block}, {k.num_warps}, {k.products}": t for k, (t, _) in timed.items()}
    return row | {
        "status": "ok", "ratio": statistics.median(ratios), "ratios": ratios, "fastrl": ours,
        "peer_rate": theirs,
        "variant": f"block {launch.block}, {launch.num_warps} warps, {launch.products}",
        "launches": seconds,
    }  # fmt: skip


def _start(env: Any, spec: Any, num_envs: int) -> tuple[Any, Any]:
    """Weights and environments at their start."""
    task = env.default_params()
    network = networks.actor_critic(env.observation_space(task), env.action_space(task), spec)
    vec_env = fastrl.VecEnv(env, num_envs, fastrl.reset.fresh(env))
    return jax.jit(network.init)(fastrl.key(0)), jax.jit(vec_env.init)(fastrl.key(1), task)


def _program(rollout: Any, start: Any, env: Any, steps: int) -> Run:
    params, state = start
    program = jax.jit(functools.partial(rollout, num_steps=steps))
    return functools.partial(program, params, fastrl.key(2), state, env.default_params())


def _best(env: Any, spec: Any, start: Any, steps: int, launch: Launch) -> tuple[float, Run]:
    """Seconds of one rollout with this launch, infinite where it can't be compiled."""
    run = _program(fused_rollout(env, spec, kept=Kept(), launch=launch), start, env, steps)
    try:
        _seconds(run)
    except Exception as error:  # a launch that asks for more than the GPU has
        print(f"{launch}: {str(error).splitlines()[0][:120]}", file=sys.stderr)
        return float("inf"), run
    return min(_seconds(run) for _ in range(3)), run


def _seconds(run: Run) -> float:
    begin = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - begin


if __name__ == "__main__":
    sys.exit(main())
