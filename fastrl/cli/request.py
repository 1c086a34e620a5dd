"""What a command line asks to train: a config with flags over it."""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from fastrl import registry
from fastrl.cli.errors import UsageError
from fastrl.cli.flags import Argument, Switch, parse
from fastrl.config import RunConfig, files, values
from fastrl.config.read import flat, from_tables, merge
from fastrl.config.read import parse as parse_toml
from fastrl.config.source import Source

_OPEN_SECTIONS = ("params", "env_options")  # whose names depend on the environment


@dataclasses.dataclass(frozen=True)
class RunFlags:
    """Trains an agent: a config's settings, with flags over them.

    --params.NAME VALUE and --env-options.NAME VALUE change the environment's numbers and
    fields (`fastrl list ENV` shows them).
    """

    file: Annotated[str, Argument("CONFIG")] = ""  # a TOML file, or a name: `fastrl list configs`
    env: str = ""  # the environment: `fastrl list envs`
    algorithm: str = "ppo"  # what learns: `fastrl list algorithms`
    steps: int = 500_000  # environment steps
    seed: int = 0  # of everything random
    devices: int = 1  # over which the environments are spread; on CPU, cores
    run_dir: str = ""  # the run's folder; by default a new one, runs/ENV-ALGORITHM-SEED
    name: str = ""  # of the run's folder, in runs/
    import_: str = ""  # a module of yours that registers environments, imported first
    quiet: Annotated[bool, Switch] = False  # no progress on the terminal


def read_request(
    argv: Sequence[str],
    prog: str,
    flags: Any = RunFlags(),
    sections: Sequence[str] = ("hparams", "config", "train"),
) -> tuple[RunConfig, Any]:
    """The config that `argv` names, changed by its flags, and a record like `flags` with them.

    `flags` has the fields of `RunFlags`; `sections` are the config's tables with flags of their
    own.  Raises UsageError.
    """
    argv, opened = _take_open_sections(argv)
    file = _first_positional(argv)
    with usage_errors():
        tables, source = _tables(file)
        chosen = _value_of(argv, "--algorithm")
        if chosen:
            tables = {**tables, "algorithm": chosen}
        base = from_tables({"env": "", **tables}, Source(source, ("algorithm",) if chosen else ()))
        names = [f.name for f in dataclasses.fields(flags) if hasattr(base, f.name)]
        flags = dataclasses.replace(flags, **{name: getattr(base, name) for name in names})
        records = {name: getattr(base, name) for name in sections}
        given, changes = parse(flags, argv, prog, records)
        top = {name: getattr(given, name) for name in names}
        changes |= {k: v for k, v in top.items() if v != getattr(base, k)} | opened
        tables = {"env": "", **merge(tables, changes)}
        run_config = from_tables(tables, Source(source, tuple(flat(changes))))
    if not run_config.env:
        raise UsageError(
            f"train on what? Name a config, {prog} ppo_cartpole, or an environment, "
            f"{prog} --env CartPole-v1 (all: fastrl list)"
        )
    return run_config, given


@contextlib.contextmanager
def usage_errors() -> Iterator[None]:
    """Makes a UsageError of what a wrong config, name or path raises."""
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        raise UsageError(str(error)) from error


def import_module(name: str) -> None:
    """Imports the user's module `name` from the current folder; it registers environments."""
    if not name:
        return
    from fastrl import user_code

    with usage_errors():
        user_code.import_module(name)


def use_devices(count: int) -> None:
    """Makes `count` CPU devices if JAX has not started; a GPU machine is left as it is."""
    import jax

    from fastrl import sharding

    if count > 1 and jax.config.jax_num_cpu_devices < count:  # type: ignore[attr-defined]
        with contextlib.suppress(RuntimeError):  # too late; `sharding.mesh` says what to do
            sharding.use_cpu_devices(count)


def compile_for(algorithm: str) -> None:
    """XLA's settings for this learner, if JAX has not started: one stream is one kernel."""
    from fastrl import algorithms, compilation, streaming

    if algorithms.module(algorithm).__package__ == streaming.__name__:
        with contextlib.suppress(RuntimeError):
            compilation.whole_loops()


def _tables(file: str) -> tuple[dict[str, Any], str]:
    if not file:
        return {}, ""
    if file in registry.names():
        raise UsageError(f"{file!r} is an environment, not a config: write --env {file}")
    text, source = files.read(file)
    return parse_toml(text, source), source


def _take_open_sections(argv: Sequence[str]) -> tuple[list[str], dict[str, dict[str, Any]]]:
    """`argv` without flags such as `--params.gravity 5`, and their values by section."""
    rest: list[str] = []
    taken: dict[str, dict[str, Any]] = {}
    words = iter(argv)
    for word in words:
        flag, equals, value = word.partition("=")
        section, dot, name = flag.removeprefix("--").replace("-", "_").partition(".")
        if section not in _OPEN_SECTIONS or not dot or not flag.startswith("--"):
            rest.append(word)
            continue
        text = value if equals else next(words, "")
        if not text or not name:
            raise UsageError(f"{flag} needs a name and a value: --{section}.NAME VALUE")
        table = taken.setdefault(section, {})
        *above, last = name.split(".")
        for part in above:
            table = table.setdefault(part, {})
        table[last] = values.literal(text)
    return rest, taken


def _first_positional(argv: Sequence[str]) -> str:
    """The first word that is neither a flag nor the value of one."""
    previous = ""
    for word in argv:
        takes_value = previous.startswith("--") and "=" not in previous and previous != "--quiet"
        if not word.startswith("-") and not takes_value:
            return word
        previous = word
    return ""


def _value_of(argv: Sequence[str], flag: str) -> str:
    """The value of `flag` in `argv`, empty if it is not there."""
    for i, word in enumerate(argv):
        if word.partition("=")[0] == flag:
            return word.partition("=")[2] or "".join(argv[i + 1 : i + 2])
    return ""
