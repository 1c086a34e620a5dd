"""The command line: `fastrl train`, `evaluate`, `list` ... `main` is the program `fastrl`.

Exit codes: 0 done, 1 a run failed, 2 the command line or a config is wrong, 130 Ctrl-C,
143 SIGTERM.  Errors are one line; FASTRL_DEBUG=1 shows where they come from.
"""

import importlib
import sys
from collections.abc import Sequence

# verb: (its function, what it does). Modules are imported when their verb is used.
VERBS = {
    "train": ("fastrl.cli.train:train", "train an agent from a config"),
    "resume": ("fastrl.cli.train:resume", "go on with a run that was stopped, bit for bit"),
    "evaluate": ("fastrl.cli.use:evaluate", "play episodes with a trained agent, report returns"),
    "render": ("fastrl.cli.use:render", "write a GIF, MP4 or HTML page of a trained agent"),
    "plot": ("fastrl.cli.use:plot", "draw learning curves of one or several runs"),
    "sweep": ("fastrl.cli.sweep:sweep", "train many settings and seeds in one program"),
    "meta-train": ("fastrl.cli.meta:meta_train", "learn an objective from many inner trainings"),
    "meta-test": ("fastrl.cli.meta:meta_test", "train agents with a learned objective, compare"),
    "compile": ("fastrl.cli.program:compile_", "show what compiling a training program costs"),
    "export": ("fastrl.cli.program:export", "write a training program as StableHLO to a file"),
    "list": ("fastrl.cli.show:show", "show environments, algorithms, transforms and configs"),
    "check-env": ("fastrl.cli.show:check_env", "check that an environment keeps its contract"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command in `argv`, by default the program's own, and gives its exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if argv else 2
    if argv[0] in ("-V", "--version"):
        import fastrl

        print(f"fastrl {fastrl.__version__}")
        return 0
    from fastrl.cli.errors import guarded

    return guarded(lambda: _run(argv[0], argv[1:]))


def usage() -> str:
    """The help of the program itself."""
    verbs = "\n".join(f"  {name:10} {what}" for name, (_, what) in VERBS.items())
    return (
        "usage: fastrl COMMAND ...\n\n"
        "Trains reinforcement learning agents.\n\n"
        f"commands:\n{verbs}\n\n"
        "  fastrl COMMAND --help   what a command takes, with defaults\n"
        "  fastrl --version\n\n"
        "begin with:\n"
        "  fastrl train ppo_cartpole"
    )


def _run(verb: str, argv: list[str]) -> int:
    if verb not in VERBS:
        from fastrl.cli.errors import UsageError
        from fastrl.registry import unknown

        raise UsageError(f"{unknown('command', verb, VERBS)} (see fastrl --help)")
    module, _, function = VERBS[verb][0].partition(":")
    return getattr(importlib.import_module(module), function)(argv) or 0
