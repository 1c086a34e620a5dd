"""Flags from records: a dataclass or NamedTuple tells what tyro shows, reads and checks.

Names, types and defaults are those of the record, descriptions its comments.  Words become
values by the same rules as in a config (`fastrl.config.values`), so that both say the same
about the same mistake.
"""

import ast
import contextlib
import dataclasses
import inspect
import io
import re
import textwrap
import tokenize
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, get_args, get_origin, get_type_hints

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from fastrl.cli.errors import UsageError
from fastrl.config import values
from fastrl.config.read import is_record, nearest_keys


class Switch:
    """Marks a field that is a plain switch, `--json`, and takes no value."""


@dataclasses.dataclass(frozen=True)
class Argument:
    """Marks a field that is given by its place and not by a flag; `name` is what help calls it."""

    name: str


def parse(
    record: Any, argv: Sequence[str], prog: str, sections: Mapping[str, Any] | None = None
) -> tuple[Any, dict[str, Any]]:
    """`record` and its `sections` with the flags in `argv` over their values.

    A section is a record whose flags begin with its name, `--hparams.gamma`.  Gives a record
    like the first and, for every section, the values that differ from the ones it had.

    Raises UsageError for an unknown flag, with the nearest known ones, or a value that is not
    of the field's type; prints and raises SystemExit for `--help`.
    """
    sections = sections or {}
    fields = _fields(record, "--")
    for name, section in sections.items():
        inner = _dataclass(type(section), _fields(section, f"--{name}."))
        fields.append((name, inner, dataclasses.field(default=inner())))
    parsed = _tyro(_dataclass(type(record), fields), argv, prog, _flags(fields))
    changed = {name: _changed(getattr(parsed, name), s) for name, s in sections.items()}
    own = {f.name: getattr(parsed, f.name) for f in dataclasses.fields(record)}
    return type(record)(**own), {name: values for name, values in changed.items() if values}


def field_docs(cls: type) -> dict[str, str]:
    """What the comment behind each field of a class says; empty where there is no source."""
    docs: dict[str, str] = {}
    for ancestor in reversed(cls.__mro__):
        if ancestor.__module__ != "builtins":
            docs |= _own_docs(ancestor)
    return docs


def _own_docs(cls: type) -> dict[str, str]:
    try:
        source = textwrap.dedent(inspect.getsource(cls))
    except (OSError, TypeError):
        return {}
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}
    body = ast.parse(source).body[0].body  # type: ignore[attr-defined]
    return {
        node.target.id: comments.get(node.end_lineno or 0, "")
        for node in body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


def _fields(record: Any, prefix: str) -> list[Any]:
    """The fields of `record` for `dataclasses.make_dataclass`, its values as defaults."""
    docs = field_docs(type(record))
    fields = []
    for name, annotation in get_type_hints(type(record), include_extras=True).items():
        # Not for the command line: parameters of an objective, what belongs to the class.
        if annotation is Any or get_origin(annotation) is ClassVar:
            continue
        hint, *marks = get_args(annotation) if get_origin(annotation) is Annotated else [annotation]
        default = getattr(record, name)
        if is_record(hint):
            inner = _dataclass(hint, _fields(default, f"{prefix}{name.replace('_', '-')}."))
            fields.append((name, inner, dataclasses.field(default=inner())))
            continue
        annotated = Annotated[(hint, *_marks(name, hint, marks, default, docs, prefix))]
        fields.append((name, annotated, dataclasses.field(default=default)))
    return fields


def _marks(
    name: str, hint: Any, marks: list[Any], default: Any, docs: Mapping[str, str], prefix: str
) -> list[Any]:
    """What tyro has to know about a field beside its type."""
    argument = next((m for m in marks if isinstance(m, Argument)), None)
    shown = "" if default in ("", (), None) else f"(default: {_shown(default)})"
    if Switch in marks:
        told = tyro.conf.arg(help=docs.get(name), help_behavior_hint="")
        return [told, tyro.conf.FlagCreatePairsOff]
    flag = argument.name if argument else prefix + name.strip("_").replace("_", "-")
    told = tyro.conf.arg(
        name=name.strip("_"), help=docs.get(name) or None, help_behavior_hint=shown
    )
    spec = _spec(hint, flag, argument.name if argument else _metavar(hint))
    return [told, spec, tyro.conf.FlagConversionOff, *([tyro.conf.Positional] if argument else [])]


def _spec(hint: Any, flag: str, metavar: str) -> PrimitiveConstructorSpec:
    def read(words: list[str]) -> Any:
        try:
            return values.read(words, hint, flag)
        except ValueError as error:
            raise UsageError(str(error)) from error

    several = get_origin(hint) is tuple
    return PrimitiveConstructorSpec(
        nargs="*" if several else 1,
        metavar=metavar,
        instance_from_str=read,
        is_instance=lambda _: True,
        str_from_instance=lambda x: [str(v) for v in x] if several else [_shown(x)],
    )


def _metavar(hint: Any) -> str:
    names = {int: "INT", float: "FLOAT", str: "TEXT", bool: "true|false", type(None): "none"}
    arguments = get_args(hint)
    if get_origin(hint) is tuple:
        return f"[{_metavar(arguments[0])} ...]"
    if arguments and all(isinstance(a, str) for a in arguments):
        return "|".join(arguments)
    if arguments:
        return "|".join(map(_metavar, values.members(hint)))
    return names.get(hint, "VALUE")


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(_shown, value))
    if isinstance(value, bool):
        return str(value).lower()
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _dataclass(like: type, fields: list[Any]) -> type:
    made = dataclasses.make_dataclass(like.__name__, fields, frozen=True)
    made.__doc__ = inspect.getdoc(like)
    return made


def _changed(parsed: Any, before: Any) -> dict[str, Any]:
    """The fields of a section that the command line changed, as tables within tables."""
    changed = {}
    for field in dataclasses.fields(parsed):
        value, old = getattr(parsed, field.name), getattr(before, field.name)
        if is_record(type(old)):
            value, old = _changed(value, old), {}
        if value != old:
            changed[field.name] = value
    return changed


def _flags(fields: list[Any], prefix: str = "--") -> list[str]:
    """All flags of the fields, in full."""
    flags = []
    for name, kind, _ in fields:
        if dataclasses.is_dataclass(kind):
            inner = [(f.name, f.type, f) for f in dataclasses.fields(kind)]
            flags += _flags(inner, f"{prefix}{name.replace('_', '-')}.")
        else:
            flags.append(prefix + name.strip("_").replace("_", "-"))
    return flags


def _tyro(cls: type, argv: Sequence[str], prog: str, flags: list[str]) -> Any:
    """`tyro.cli`, its errors as one line each."""
    for word in argv:
        flag = word.partition("=")[0].replace("_", "-")
        if word.startswith("-") and not _is_number(word) and flag not in {*flags, "-h", "--help"}:
            raise UsageError(f"{unknown_flag(flag, flags)} (see {prog} --help)")
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(cls, args=list(argv), prog=prog, description=cls.__doc__)
    except SystemExit as error:
        if error.code in (0, None):
            raise
        raise UsageError(_one_line(said.getvalue())) from None


def unknown_flag(flag: str, flags: Sequence[str]) -> str:
    """An error for an unknown flag, with the nearest known ones."""
    near = nearest_keys(flag.lstrip("-"), [f.lstrip("-") for f in flags])
    hint = f": did you mean {' or '.join('--' + n for n in near)}?" if near else ""
    return f"unknown flag {flag}{hint}"


def _is_number(word: str) -> bool:
    return isinstance(values.literal(word), (int, float))


def _one_line(boxed: str) -> str:
    """What tyro said in a box, without the frame, its title and the pointer to the help."""
    lines = [re.sub(r"[╭╮╰╯│─]+", " ", line).strip() for line in boxed.splitlines()[1:]]
    text = " ".join(line for line in lines if line)
    return re.split(r"\s*For full helptext", text)[0]
