"""`fastrl list` and `fastrl check-env`."""

import dataclasses
import inspect
import shutil
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

from fastrl import algorithms, registry
from fastrl.cli.errors import FAILURE, UsageError
from fastrl.cli.flags import Argument, field_docs, parse
from fastrl.cli.request import import_module, usage_errors
from fastrl.config import files, values
from fastrl.config.build import fields_of
from fastrl.config.read import option_hints


@dataclasses.dataclass(frozen=True)
class ListFlags:
    """Shows what there is: environments, algorithms, transforms and configs, or one of them."""

    what: Annotated[str, Argument("WHAT")] = ""  # envs, algorithms, transforms, configs, a name
    import_: str = ""  # a module of yours that registers environments, imported first


def show(argv: Sequence[str]) -> int:
    """Prints the lists, one of them, or all about one name."""
    flags, _ = parse(ListFlags(), argv, "fastrl list")
    import_module(flags.import_)
    if not flags.what:
        print("\n\n".join(_table(*entries()) for entries in _LISTS.values()))
        return 0
    if flags.what in _LISTS:
        print(_table(*_LISTS[flags.what]()))
        return 0
    print(_details(flags.what))
    return 0


@dataclasses.dataclass(frozen=True)
class CheckEnvFlags:
    """Checks that an environment keeps the contract that learners rely on."""

    env: Annotated[str, Argument("ENV")] = ""  # module:Class of yours, or a registered name
    seed: int = 0
    num_envs: int = 64  # episodes side by side
    num_steps: int = 200  # random steps of each
    import_: str = ""  # a module of yours that registers environments, imported first


def check_env(argv: Sequence[str]) -> int:
    """Prints the report; the exit code says whether a check failed."""
    flags, _ = parse(CheckEnvFlags(), argv, "fastrl check-env")
    if not flags.env:
        raise UsageError("which environment? fastrl check-env module:Class, or a registered name")
    import_module(flags.import_)
    from fastrl.check_env import check_env as check
    from fastrl.user_code import load_env

    with usage_errors():
        named = flags.env in registry.names() or ":" not in flags.env
        env = registry.make(flags.env) if named else load_env(flags.env)
        report = check(env, seed=flags.seed, num_envs=flags.num_envs, num_steps=flags.num_steps)
    report.print()
    return 0 if report.ok else FAILURE


def _envs() -> tuple[str, dict[str, str]]:
    entries = {name: registry.summary(name) for name in registry.names()}
    return "environments (fastrl list NAME shows one)", entries


def _algorithms() -> tuple[str, dict[str, str]]:
    modules = {name: algorithms.module(name) for name in algorithms.names()}
    return "algorithms", {name: _first_line(module) for name, module in modules.items()}


def _transforms() -> tuple[str, dict[str, str]]:
    from fastrl.transforms import TRANSFORMS

    return "transforms", {name: _first_line(cls) for name, cls in sorted(TRANSFORMS.items())}


def _configs() -> tuple[str, dict[str, str]]:
    found = {name: files.summary(path) for name, path in sorted(files.available().items())}
    return "configs (fastrl train NAME)", found


_LISTS = {
    "envs": _envs, "algorithms": _algorithms, "transforms": _transforms, "configs": _configs,
}  # fmt: skip


def _details(name: str) -> str:
    """All about one environment, algorithm, transform or config."""
    from fastrl.transforms import TRANSFORMS

    configs = files.available()
    if name in registry.names():
        return _env_details(name)
    if name in algorithms.names():
        module = algorithms.module(name)
        tables = {"config": module.Config(), "hparams": module.HParams()}
        parts = [_record(f"[{key}]", record) for key, record in tables.items()]
        return "\n\n".join([f"{name}\n{_first_line(module)}", *parts])
    if name in TRANSFORMS:
        return f"{name}\n{inspect.getdoc(TRANSFORMS[name])}"
    if name in configs:
        return f"# {configs[name]}\n{configs[name].read_text(encoding='utf-8-sig').rstrip()}"
    known = [*_LISTS, *registry.names(), *algorithms.names(), *TRANSFORMS, *configs]
    raise UsageError(registry.unknown("name", name, known))


def _env_details(name: str) -> str:
    env = registry.make(name)
    params = env.default_params()
    spaces = (
        f"observation  {env.observation_space(params)}\naction       {env.action_space(params)}"
    )
    options = _record("[env_options]", env, option_hints(registry.factory(name)))
    parts = [f"{name}\n{registry.summary(name)}", spaces, options, _record("[params]", params)]
    return "\n\n".join(p for p in parts if "\n" in p)  # without tables that are empty


def _record(title: str, record: Any, only: Iterable[str] | None = None) -> str:
    """The fields of a record as a config writes them, with what their comments say."""
    docs = field_docs(type(record))
    fields = fields_of(record) or {}
    shown = set(fields if only is None else only) - {"objective"}
    fields = {k: v for k, v in fields.items() if k in shown}
    lines = {f"{k} = {values.show(v)}": docs.get(k, "") for k, v in fields.items()}
    return _table(title, lines)


def _table(title: str, entries: Mapping[str, str]) -> str:
    """Names and what they are, in two columns as wide as the terminal allows."""
    width = max(map(len, entries), default=0)
    room = max(shutil.get_terminal_size().columns - width - 4, 30)
    lines = [title]
    for name, what in entries.items():
        first, *rest = textwrap.wrap(what, room) or [""]
        lines.append(f"  {name:{width}}  {first}".rstrip())
        lines += [" " * (width + 4) + line for line in rest]
    return "\n".join(lines)


def _first_line(thing: Any) -> str:
    return (thing.__doc__ or "").strip().partition("\n")[0]
