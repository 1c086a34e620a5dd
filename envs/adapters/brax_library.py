"""Brax, imported and called without its noise and without regard to who calls.

What is made here is kept between calls, so it must not depend on the trace, mesh or settings in
force at the first of them.
"""

import contextlib
import inspect
import io
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import jax

from fastrl.registry import unknown

T = TypeVar("T")
Options = tuple[tuple[str, Any], ...]

# What brax and its dependencies say about themselves on import and while they are traced.
_NOTICES = (
    (UserWarning, "Brax System, piplines and environments are not actively"),
    (DeprecationWarning, "JAXopt is no longer maintained"),
    (DeprecationWarning, "Accessing `[a-z_]+` directly from `(Data|Model|Option)` is deprecated"),
)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """For calls into brax: drops its notices, and lets it broadcast ranks, as it does."""
    with warnings.catch_warnings(), jax.numpy_rank_promotion("allow"):
        for category, message in _NOTICES:
            warnings.filterwarnings("ignore", message, category)
        yield


def apart(f: Callable[[], T]) -> T:
    """`f()` in a thread of its own, where no trace and no mesh of the caller is in force.

    So it makes plain arrays, also in the middle of a `jax.jit`.
    """
    with ThreadPoolExecutor(max_workers=1) as executor:
        return executor.submit(f).result()


def environment(name: str, backend: str, options: Options) -> Any:
    """Brax's environment object.

    Raises ImportError if brax can't be imported, ValueError if it does not take the options.
    """
    make = environment_class(name)

    def build() -> Any:
        with quiet(), _mujoco_notices_dropped():
            return make(backend=backend, **dict(options))

    try:
        return apart(build)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise ValueError(f"brax/{name} does not take {dict(options)!r}: {error}") from error


def environment_class(name: str) -> Any:
    """The class behind brax's `name`. Raises ImportError if brax can't be imported."""
    try:
        # mujoco prints that it found no Warp, which nobody asked for
        with quiet(), contextlib.redirect_stdout(io.StringIO()):
            from brax import envs
    except ImportError as error:
        raise ImportError(
            f"brax/{name} needs brax, which can't be imported ({error}): pip install brax"
        ) from error
    return envs._envs[name]


def checked_options(name: str, options: Any) -> Options:
    """`options`, a mapping or pairs, as sorted pairs that hash.

    Raises ValueError for what the class behind `name` does not know, or a value that is neither a
    number nor a list of numbers.
    """
    try:
        pairs = tuple(sorted((str(k), _frozen(v)) for k, v in dict(options).items()))
    except (TypeError, ValueError):
        raise ValueError(
            f"options={options!r}: must be a dictionary such as {{'healthy_reward': 2.0}}"
        ) from None
    known = _known_options(name) if pairs else []
    for option, value in pairs:
        if option not in known:
            raise ValueError(unknown(f"option of brax/{name},", option, known))
        numbers = value if isinstance(value, tuple) else (value,)
        if not all(isinstance(v, int | float) for v in numbers):
            raise ValueError(f"option {option}={value!r}: must be a number or a list of numbers")
        if option == "n_frames" and (type(value) is not int or value < 1):
            raise ValueError(f"option n_frames={value!r}: must be an integer of at least 1")
    return pairs


def _known_options(name: str) -> list[str]:
    taken = inspect.signature(environment_class(name)).parameters
    return [p for p in taken if p not in ("backend", "kwargs")] + ["n_frames"]


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


@contextlib.contextmanager
def _mujoco_notices_dropped() -> Iterator[None]:
    """Keeps mujoco's notice on an attribute in brax's models off the terminal and out of its log.

    Other warnings of mujoco become Python's.
    """
    import mujoco

    def handle(message: str) -> None:
        if "'settotalmass' is deprecated" not in message:
            warnings.warn(message, RuntimeWarning, stacklevel=2)

    api: Any = mujoco  # a compiled module, without types
    previous = api.get_mju_user_warning()
    api.set_mju_user_warning(handle)
    try:
        yield
    finally:
        api.set_mju_user_warning(previous)
