"""Every benchmark, one after the other, and one summary; ten minutes on a machine with a GPU.

    python bench/all.py --out results --peer-path purejaxrl=../purejaxrl
    python bench/all.py --out results --quick --peers       # a minute or two, fastrl alone

Each writes NAME.jsonl, NAME.md and NAME.png into the folder; `summary.md` has all the tables.
What fails is named, and the rest goes on.  Rounds are few: for figures to publish run each alone.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Name, what it is given, and what it is given instead for a quick look.
PLAN: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("environments", ("--rounds", "3", "--seconds", "0.5"), (
        "--rounds", "1", "--seconds", "0.05", "--steps", "8", "--num-envs", "64",
        "--env", "CartPole-v1")),
    ("training", ("--rounds", "3", "--case", "cartpole", "members"), (
        "--rounds", "1", "--steps", "2048", "--num-envs", "4", "--case", "cartpole")),
    ("compile", ("--rounds", "2"), ("--rounds", "1")),
    ("roofline", ("--rounds", "5"), (
        "--rounds", "1", "--seconds", "0.1", "--num-envs", "16", "--num-steps", "8",
        "--hidden", "16", "--copy", "65536")),
    ("scaling", ("--rounds", "3"), (
        "--rounds", "1", "--steps", "2048", "--axis", "envs", "--num-envs", "4", "8")),
    ("fused_rollout", (), ("--rounds", "1", "--num-envs", "64", "--num-steps", "8")),
    ("kernels", (), ("--rounds", "2", "--only", "permutation")),
)  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Runs all benchmarks; returns 1 if one of them failed, else 0."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("bench-results"), metavar="DIR")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does everything run?")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these benchmarks")
    parser.add_argument("--peers", nargs="*", metavar="NAME", help="none after a bare --peers")
    parser.add_argument("--peer-path", action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--venvs", metavar="DIR")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds for each benchmark")
    chosen = parser.parse_args(arguments)
    chosen.out.mkdir(parents=True, exist_ok=True)
    failed = []
    for name, usual, quick in PLAN:
        program = HERE / f"{name}.py"
        if not program.exists() or (chosen.only and name not in chosen.only):
            continue
        print(f"== {name}", flush=True)
        own = quick if chosen.quick else usual
        begin = time.perf_counter()
        if not _run(program, [*own, *_files(chosen.out / name), *_common(name, chosen)], chosen):
            failed.append(name)
        print(f"   {time.perf_counter() - begin:.0f} s", flush=True)
    _summarise(chosen.out, failed)
    return 1 if failed else 0


def _files(stem: Path) -> list[str]:
    kinds = (("--json", "jsonl"), ("--markdown", "md"), ("--plot", "png"))
    return [text for flag, suffix in kinds for text in (flag, f"{stem}.{suffix}")]


def _common(name: str, chosen: argparse.Namespace) -> list[str]:
    """The options on peers, in so far as the benchmark `name` has such a peer."""
    known = {
        "environments": ("gymnax", "gymnasium"),
        "training": ("purejaxrl", "rejax", "brax", "sbx", "torch", "stoix", "pufferlib"),
        "compile": ("purejaxrl",),
    }.get(name, ())
    given: list[str] = []
    if chosen.peers is not None:
        given += ["--peers", *(p for p in chosen.peers if p in known)]
    for pair in chosen.peer_path:
        given += ["--peer-path", pair]
    if chosen.venvs:
        given += ["--venvs", chosen.venvs]
    return given


def _run(program: Path, arguments: list[str], chosen: argparse.Namespace) -> bool:
    try:
        command = [sys.executable, str(program), *arguments]
        return subprocess.run(command, timeout=chosen.limit).returncode == 0
    except subprocess.TimeoutExpired:
        print(f"   stopped after {chosen.limit:.0f} s", flush=True)
        return False


def _summarise(folder: Path, failed: list[str]) -> None:
    """All tables in one file."""
    parts = ["# Benchmarks\n"]
    for name, _, _ in PLAN:
        page = folder / f"{name}.md"
        if name in failed:
            parts.append(f"## {name}\n\nFailed.\n")
        elif page.exists():
            parts.append(page.read_text(encoding="utf-8"))
    (folder / "summary.md").write_text("\n".join(parts), encoding="utf-8")
    print(f"\n{folder / 'summary.md'}")


if __name__ == "__main__":
    sys.exit(main())
