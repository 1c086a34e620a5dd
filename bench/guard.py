"""The regression guard: fastrl's PPO against a frozen program, as a ratio in one process.

    python bench/guard.py               # exit code 1 if the ratio fell by over 15 %
    python bench/guard.py --update      # writes what is expected: after a change that is meant

Both programs are compiled first and then run in turn, on one core, and what counts is the
processor time of the process, not the clock, so neighbours on the machine hardly matter.  The
expected ratio is in `guard.json`, with the tolerance and the kind of machine that it was measured
on: on another kind the ratio is shown, and a lower one fails nothing.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import worker

EXPECTED = Path(__file__).with_name("guard.json")
UPDATES = {16: 32}  # by number of environments


def main(arguments: list[str] | None = None) -> int:
    """Runs the guard; returns 1 if a ratio fell by more than the tolerance, else 0."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--updates", type=int, help="PPO iterations of a call")
    parser.add_argument("--num-envs", nargs="+", type=int, default=tuple(UPDATES))
    parser.add_argument("--expected", type=Path, default=EXPECTED)
    parser.add_argument("--update", action="store_true", help="write what is expected")
    parser.add_argument("--json", metavar="FILE", help="write the results as JSON lines")
    chosen = parser.parse_args(arguments)
    worker.pin(1)  # before JAX starts its threads
    found = {}
    for num_envs in chosen.num_envs:
        updates = chosen.updates or UPDATES.get(num_envs, 8)
        found[case(num_envs)] = compare(num_envs, updates, chosen.rounds)
    if chosen.json:
        rows = [{"bench": "guard", "case": name} | r for name, r in found.items()]
        Path(chosen.json).write_text("".join(json.dumps(r) + "\n" for r in rows))
    if chosen.update:
        tolerance = json.loads(chosen.expected.read_text())["tolerance"]
        ratios = {name: round(r["ratio"], 3) for name, r in found.items()}
        written = {"tolerance": tolerance, "machine": machine(), "ratios": ratios}
        chosen.expected.write_text(json.dumps(written, indent=2) + "\n")
        return 0
    expected = json.loads(chosen.expected.read_text())
    verdict = judge({name: r["ratio"] for name, r in found.items()}, expected)
    if verdict and expected["machine"] != machine():
        print(f"expected of {expected['machine']}, this is {machine()}: shown, not judged")
        return 0
    return verdict


def machine() -> dict[str, str]:
    """What a ratio belongs to: the kind of processor and the version of JAX."""
    import jax

    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {"processor": models[0] if models else platform.processor(), "jax": jax.__version__}


def case(num_envs: int) -> str:
    """The name of a case in `guard.json`."""
    return f"ppo_cartpole_{num_envs}_envs"


def judge(ratios: dict[str, float], expected: dict[str, Any]) -> int:
    """1 if one of the `ratios` is below what is expected by more than the tolerance, else 0.

    A case of which nothing is expected fails too: a guard that looks away guards nothing.
    """
    worst = 0
    for name, ratio in ratios.items():
        wanted = expected["ratios"].get(name)
        if wanted is None:
            print(f"{name}: x{ratio:.2f}, and nothing in the file of expected ratios: FAILED")
            worst = 1
            continue
        change = ratio / wanted - 1.0
        failed = change < -expected["tolerance"]
        verdict = "FAILED" if failed else "ok"
        print(f"{name}: x{ratio:.2f}, expected x{wanted:.2f} ({change:+.0%}) {verdict}")
        if change > expected["tolerance"]:
            print("    faster than expected: write that down with --update")
        worst |= failed
    return worst


def compare(num_envs: int, updates: int, rounds: int) -> dict[str, Any]:
    """The median over rounds of the baseline's processor time over fastrl's."""
    begin = time.perf_counter()
    own, base = own_program(num_envs, updates), base_program(num_envs, updates)
    for program in (own, base):
        program()
    compiling = time.perf_counter() - begin
    ratios = alternate(own, base, rounds)
    return {
        "ratio": statistics.median(ratios), "ratios": ratios,
        "seconds": time.perf_counter() - begin, "compile_seconds": compiling,
    }  # fmt: skip


def alternate(own: Callable[[], Any], base: Callable[[], Any], rounds: int) -> list[float]:
    """The processor time of `base` over that of `own`, which come first by turns."""
    ratios = []
    for turn in range(rounds):
        order = (own, base) if turn % 2 else (base, own)
        spent = {call: worker.timed(call)[1]["cpu_seconds"] for call in order}
        ratios.append(spent[base] / spent[own])
    return ratios


def own_program(num_envs: int, updates: int) -> Callable[[], Any]:
    """fastrl's PPO with the baseline's settings: a call trains `updates` iterations."""
    import jax
    from baseline_ppo import Settings

    import fastrl
    from fastrl import ppo

    s = Settings()
    env = fastrl.make("CartPole-v1")
    config = ppo.Config(
        num_envs=num_envs, num_steps=s.num_steps, num_epochs=s.num_epochs,
        num_minibatches=s.num_minibatches, hidden_sizes=(64, 64), activation="tanh",
    )  # fmt: skip
    hparams = ppo.HParams(
        learning_rate=s.learning_rate, gamma=s.gamma, gae_lambda=s.gae_lambda, clip=s.clip,
        value_clip=s.clip, entropy_coefficient=s.entropy_coefficient,
        value_coefficient=s.value_coefficient, max_grad_norm=s.max_grad_norm,
    )  # fmt: skip
    steps = updates * num_envs * s.num_steps
    program = jax.jit(fastrl.run(ppo.make(env, config), steps))
    task, key = env.default_params(), fastrl.key(0)
    return lambda: jax.block_until_ready(program(key, hparams, task))


def base_program(num_envs: int, updates: int) -> Callable[[], Any]:
    """The frozen program: a call trains `updates` iterations."""
    import jax
    from baseline_ppo import Settings, make_train

    train = jax.jit(make_train(Settings(num_envs=num_envs, updates=updates)))
    key = jax.random.key(0, impl="threefry2x32")
    return lambda: jax.block_until_ready(train(key))


if __name__ == "__main__":
    sys.exit(main())
