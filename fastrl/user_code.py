"""Code that users bring: finding it by `module:Name`, and saying what went wrong in it."""

import difflib
import functools
import importlib
import importlib.util
import inspect
import os
import sys
import sysconfig
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

import jax

from fastrl.registry import nearest


def load_object(spec: str) -> Any:
    """The object that `spec` names: `module:Name`, or `package.module:Name.inner`.

    The current folder is searched before the installed packages. Importing a module runs it:
    use this for words that the user typed, never for names found in a file.

    Raises ValueError if there is no such module or name, or if importing it fails.
    """
    module_name, colon, path = str(spec).partition(":")
    if not (colon and module_name and path):
        raise ValueError(f"{spec!r} names no object: write module:Name, such as my_env:MyEnv")
    if module_name.endswith(".py") or os.sep in module_name:
        dotted = ".".join(Path(module_name).with_suffix("").parts)
        raise ValueError(f"{module_name!r} is a file: name its module, {dotted}:{path}")
    found: Any = import_module(module_name)
    for name in path.split("."):
        if not hasattr(found, name):
            public = [n for n in dir(found) if not n.startswith("_")]
            near = nearest(name, public)
            hint = f"did you mean {', '.join(map(repr, near))}?" if near else "check the spelling"
            raise ValueError(f"{spec!r}: there is no {name!r} in {module_name!r}: {hint}")
        found = getattr(found, name)
    return found


def load_env(spec: str) -> Any:
    """The environment that `spec` names: an object, or a class or function that makes it.

    Raises ValueError as `load_object` does, and if it can't be made without arguments.
    """
    found = load_object(spec)
    if not isinstance(found, type | functools.partial) and not inspect.isroutine(found):
        return found
    try:
        return found()
    except Exception as error:
        raise ValueError(
            f"{spec!r} can't be built without arguments: {explain(error)}. "
            "Give its fields defaults, or name an object that is built already"
        ) from error


def explain(error: BaseException) -> str:
    """What `error` means to the author of the code it arose in, and where, on one line."""
    for kind, meaning in _MEANINGS:
        if isinstance(error, kind):
            return meaning + place(error)
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:300] + place(error)


_MEANINGS: tuple[tuple[type[Exception], str], ...] = (
    (
        jax.errors.TracerBoolConversionError,
        "Python's if, while, and, or, not asks for the truth of a traced value: "
        "use jnp.where, jax.lax.cond, & and |",
    ),
    (
        jax.errors.TracerArrayConversionError,
        "a traced value is handed to NumPy: use jax.numpy instead",
    ),
    (
        jax.errors.TracerIntegerConversionError,
        "a traced value is used as a Python index: index a JAX array instead, or make the "
        "number a field of the environment",
    ),
    (
        jax.errors.NonConcreteBooleanIndexError,
        "an array is indexed by a traced mask, so its size is unknown: use jnp.where",
    ),
    (
        jax.errors.UnexpectedTracerError,
        "a traced value was kept outside the function: return it as part of the state",
    ),
    (
        jax.errors.ConcretizationTypeError,
        "a traced value is needed as a Python number (int(), float(), range(), a shape): use "
        "jax.numpy, or make the number a field of the environment",
    ),
)


def import_module(name: str) -> ModuleType:
    """Imports the user's module `name`, from the current folder or the installed packages.

    Raises ValueError, with the line of the user's code, if there is none or it fails.
    """
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    top = name.partition(".")[0]
    if top not in sys.modules and importlib.util.find_spec(top) is None:
        files = [p.stem for p in Path(here).glob("*.py")]
        near = difflib.get_close_matches(top, files, n=3)
        hint = f"did you mean {', '.join(map(repr, near))}?" if near else "change to its folder"
        raise ValueError(f"no module {top!r} in {here} nor among the installed packages: {hint}")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ValueError(f"importing {name!r} failed: {error}{place(error)}") from error
    except (Exception, SystemExit) as error:
        raise ValueError(f"importing {name!r} failed: {explain(error)}") from error


def place(error: BaseException) -> str:
    """The last line of the user's own code that led to `error`; empty if none did."""
    if isinstance(error, SyntaxError):
        return f" ({os.path.basename(error.filename or '?')}, line {error.lineno})"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if is_users(frame.filename):
            return f" ({os.path.basename(frame.filename)}, line {frame.lineno})"
    return ""


def is_ours(error: BaseException) -> bool:
    """Whether fastrl's own code raised `error`, so that its message is meant for users."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and os.path.abspath(frames[-1].filename).startswith(_folder(__file__))


def is_users(file: str) -> bool:
    """Whether a file of code is the user's: not of Python, fastrl, or a library it stands on."""
    path = os.path.abspath(file)
    return not file.startswith("<") and not any(
        path.startswith(folder) and not path.startswith(inside) for folder, inside in _OTHERS
    )


def _folder(file: str) -> str:
    return os.path.dirname(os.path.abspath(file)) + os.sep


_PACKAGES = os.path.dirname(os.path.dirname(os.path.abspath(jax.__file__))) + os.sep
_LIBRARIES = ("jax", "jaxlib", "numpy", "flax", "optax", "chex", "orbax", "brax", "mujoco")

# Whose code is not the user's: each folder, and what lies in it that may be all the same.
_OTHERS = (
    (_folder(os.__file__), sysconfig.get_path("purelib")),
    (_folder(__file__), _folder(__file__) + "envs"),
    *((_PACKAGES + name + os.sep, "-") for name in _LIBRARIES),
)
