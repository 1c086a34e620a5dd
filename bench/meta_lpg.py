"""Meta-training of LPG by gradients: agents' environment steps per second, and memory.

python bench/meta_lpg.py --keep activations

The default task family of the published GROOVE code (random grid worlds, `all_shortlife`): 8
agents, 64 workers, 20 steps, 5 updates of each agent and one more rollout per meta-update.  All of
these environment steps count.  Memory is what XLA sets aside for one meta-update, results
included, divided by the agents, and the growth of the process' peak while it runs.
"""

import argparse
import os
import resource
import sys
import time
from typing import Any

import jax

import fastrl
from fastrl.envs.grid_world import GridWorld
from fastrl.hparams import as_arrays
from fastrl.meta import lpg, lpg_agent, meta_gradient
from fastrl.types import Algorithm


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--mode", default="all_shortlife", help="of the grid world (%(default)s)")
    parser.add_argument("--agents", type=int, default=8, help="%(default)s")
    parser.add_argument("--chunk", type=int, default=0, help="agents side by side (automatic)")
    parser.add_argument("--devices", type=int, default=0, help="as many as cores by default")
    parser.add_argument("--workers", type=int, default=64, help="%(default)s")
    parser.add_argument("--steps", type=int, default=20, help="of a rollout (%(default)s)")
    parser.add_argument("--window", type=int, default=5, help="updates (%(default)s)")
    parser.add_argument("--hidden-size", type=int, default=256, help="of the rule (%(default)s)")
    parser.add_argument("--keep", default="activations", help="for the gradient (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="%(default)s")
    chosen = parser.parse_args(arguments)
    chosen.devices = chosen.devices or len(os.sched_getaffinity(0))
    jax.config.update("jax_num_cpu_devices", chosen.devices)
    outer = build(chosen)
    program, state, hparams, task = compiled(outer)
    size = memory(program) * chosen.devices / chosen.agents / 1e6
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(chosen.rounds + 1):
        began = time.perf_counter()
        state, _ = jax.block_until_ready(program(state, hparams, task))
        seconds.append(time.perf_counter() - began)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rates = sorted(outer.steps_per_iteration / s for s in seconds[1:])
    print(
        f"{chosen.mode}, {chosen.agents} agents, {chosen.workers} workers, {chosen.steps} steps, "
        f"window {chosen.window}, keep {chosen.keep}, {chosen.devices} devices: "
        f"{rates[len(rates) // 2]:,.0f} steps/s (median of {chosen.rounds}; "
        f"best {rates[-1]:,.0f}), "
        f"{size:.1f} MB an agent by XLA's account, "
        f"{(after - before) / 1e3 / chosen.agents:.1f} MB by the process' peak"
    )
    return 0


def build(chosen: Any) -> Algorithm:
    """The meta-learner."""
    rule = lpg.LPG(hidden_size=chosen.hidden_size)
    inner = lpg_agent.make(
        GridWorld(chosen.mode),
        lpg_agent.Config(num_envs=chosen.workers, num_steps=chosen.steps), objective=rule,
    )  # fmt: skip
    config = meta_gradient.Config(
        num_lives=chosen.agents, chunk=chosen.chunk, window=chosen.window, keep=chosen.keep,
        devices=chosen.devices,
    )  # fmt: skip
    return meta_gradient.make(inner, rule.init, config)


def compiled(outer: Algorithm) -> tuple[Any, Any, Any, Any]:
    """The program of one meta-update, and its first arguments."""
    hparams = as_arrays(outer.default_hparams)
    task = ()
    state = jax.jit(outer.init)(fastrl.key(0), hparams, task)
    began = time.perf_counter()
    program = jax.jit(outer.step).lower(state, hparams, task).compile()
    print(f"compiled in {time.perf_counter() - began:.1f} s", file=sys.stderr)
    return program, state, hparams, task


def memory(program: Any) -> float:
    """Bytes that the program needs beside its code."""
    analysis = program.memory_analysis()
    return analysis.temp_size_in_bytes + analysis.output_size_in_bytes


if __name__ == "__main__":
    sys.exit(main())
