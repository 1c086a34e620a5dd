"""`fastrl export` and `fastrl compile`: the training program of a config, ahead of time."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated

from fastrl import config
from fastrl.cli.errors import UsageError
from fastrl.cli.flags import Argument
from fastrl.cli.request import import_module, read_request, usage_errors


@dataclasses.dataclass(frozen=True)
class CompileFlags:
    """Shows what compiling a config's training program costs, and what is static in it."""

    file: Annotated[str, Argument("CONFIG")] = ""  # a TOML file, or a name: `fastrl list configs`
    env: str = ""  # the environment: `fastrl list envs`
    algorithm: str = "ppo"  # what learns: `fastrl list algorithms`
    import_: str = ""  # a module of yours that registers environments, imported first


def compile_(argv: Sequence[str]) -> int:
    """Prints the compile report of a config."""
    algorithm, hparams, task, _ = _built(argv, "fastrl compile", CompileFlags())
    from fastrl.compile_report import compile_report

    print(compile_report(algorithm, hparams, task))
    return 0


@dataclasses.dataclass(frozen=True)
class ExportFlags(CompileFlags):
    """Writes a config's training program as StableHLO, to be run by fastrl.load_program.

    Hyper-parameters, params of the task and the seed stay arguments of the program.
    """

    out: str = ""  # the file, such as ppo.zip
    platforms: str = ""  # cpu, cuda, rocm, tpu, with commas between; by default this machine's


def export(argv: Sequence[str]) -> int:
    """Writes the program of a config to a file."""
    algorithm, hparams, task, flags = _built(argv, "fastrl export", ExportFlags())
    if not flags.out:
        raise UsageError("export to where? Name a file: fastrl export CONFIG --out ppo.zip")
    from fastrl.export import export as export_program

    with usage_errors():
        platforms = [name.strip() for name in flags.platforms.split(",") if name.strip()]
        path = export_program(algorithm, flags.out, hparams, task, platforms=platforms or None)
    print(path)
    return 0


def _built(argv: Sequence[str], prog: str, flags: CompileFlags) -> tuple:
    """Algorithm, hparams, task and flags of what `argv` asks for."""
    run_config, flags = read_request(argv, prog, flags, ("hparams", "config"))
    import_module(flags.import_)
    with usage_errors():
        built = config.build(run_config)
    return built.algorithm, built.hparams, built.task, flags
