"""Gymnax's environments, of either of its two interfaces (0.0.x and 1.x).

Gymnax's own `step` resets at ends and hands out the next episode's first observation, so it is
not used: `step_env` and `reset_env` are.  Gymnax draws with `jax.random` from the keys that it
is given, and so takes fastrl's cheap ones.

Gymnax is imported when an environment is first used, not before.
"""

import contextlib
import dataclasses
import functools
import warnings
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastrl.envs.adapters.brax_library import apart
from fastrl.registry import unknown
from fastrl.spaces import Box, Discrete, Space
from fastrl.types import Action, Array, Key, Observation, Step

TESTED = "0.0.9 and 1.0.1"
NO_LIMIT = 2**30  # steps


@dataclasses.dataclass(frozen=True)
class Gymnax:
    """Gymnax's environment called `name`; `name` may also be an environment object of gymnax's.

    Params and State are gymnax's own records.  `options` go to the environment's constructor
    (`{"use_minimal_action_set": False}`); they are kept as sorted pairs, so that environments
    hash and compare by value (objects: by identity).

    Time limits are truncations.  Gymnax 1.x tells them apart itself.  In 0.0.x `done` is both:
    there an end is a termination if `is_terminal` says so with `max_steps_in_episode` lifted, so
    a limit that falls on a terminal state is a termination.

    Raises ValueError for an unknown name or options, and ImportError where gymnax is missing or
    has neither interface: both when first used.
    """

    name: Any
    options: Any = ()
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        try:
            pairs = tuple(sorted((str(k), v) for k, v in dict(self.options).items()))
            hash(pairs)
        except (TypeError, ValueError):
            raise ValueError(
                f"options={self.options!r}: must be a dictionary such as "
                "{'use_minimal_action_set': False} of numbers, texts and tuples"
            ) from None
        object.__setattr__(self, "options", pairs)

    def default_params(self) -> Any:
        return _engine(self).params

    def reset(self, key: Key, params: Any) -> tuple[Any, Observation]:
        engine, layout = _engine(self).env, _layout(self)
        with _lenient():
            observation, state = engine.reset_env(key, params)
        return _cast(state, layout.state), _cast(observation, layout.observation)

    def step(self, key: Key, state: Any, action: Action, params: Any) -> tuple[Any, Step]:
        engine, layout = _engine(self), _layout(self)
        with _lenient():
            observation, after, reward, terminated, truncated = _step(
                engine, key, state, action, params
            )
        step = Step(
            _cast(observation, layout.observation),
            jnp.asarray(reward, jnp.float32).reshape(()),
            jnp.asarray(terminated, bool).reshape(()),
            jnp.asarray(truncated, bool).reshape(()),
        )
        return _cast(after, layout.state), step

    def observation_space(self, params: Any) -> Space:
        return _layout(self).observation_space

    def action_space(self, params: Any) -> Space:
        return _layout(self).action_space


def from_gymnax(name: Any, **options: Any) -> Gymnax:
    """Gymnax's environment `name` (or an object of its) for fastrl. See `Gymnax`."""
    env = Gymnax(name, options)
    _layout(env)  # so that what is wrong shows here
    return env


@contextlib.contextmanager
def _lenient() -> Iterator[None]:
    """For calls into gymnax: it broadcasts ranks, and asks for types that it does not get."""
    with warnings.catch_warnings(), jax.numpy_rank_promotion("allow"):
        warnings.filterwarnings("ignore", "scatter inputs have incompatible types", FutureWarning)
        warnings.filterwarnings("ignore", "Explicitly requested dtype", UserWarning)
        yield


class _Engine(NamedTuple):
    env: Any
    params: Any  # the default ones
    tells_truncation: bool  # the interface of 1.x


class _Layout(NamedTuple):
    """Types of what gymnax returns: constant, where its own are those of the moment."""

    state: Any  # jax.ShapeDtypeStruct
    observation: Any
    observation_space: Space
    action_space: Space


def _step(engine: _Engine, key: Key, state: Any, action: Action, params: Any) -> tuple:
    """(observation, state, reward, terminated, truncated) before any reset."""
    env = engine.env
    returned = env.step_env(key, state, action, params)
    if len(returned) != 5:
        raise ImportError(
            f"{_called(engine)}.step_env returns {len(returned)} values: fastrl knows the five of "
            f"gymnax {TESTED} (pip install 'gymnax<2')"
        )
    observation, after, reward, done, _ = returned
    done = jnp.asarray(done, bool)
    if engine.tells_truncation:
        return observation, after, reward, done, env.is_truncated(after, params) & ~done
    if not hasattr(params, "max_steps_in_episode"):
        return observation, after, reward, done, jnp.zeros_like(done)
    without_limit = params.replace(max_steps_in_episode=NO_LIMIT)
    terminated = done & env.is_terminal(after, without_limit)
    return observation, after, reward, terminated, done & ~terminated


@functools.lru_cache(maxsize=64)
def _engine(env: Gymnax) -> _Engine:
    """Gymnax's object, one per value of `env`."""
    return apart(lambda: _make(env))


def _make(env: Gymnax) -> _Engine:
    if isinstance(env.name, str):
        gymnax = _gymnax()
        if env.name not in gymnax.registered_envs:
            raise ValueError(unknown("gymnax environment", env.name, gymnax.registered_envs))
        try:
            made, params = gymnax.make(env.name, **dict(env.options))
        except (TypeError, ValueError, AssertionError) as error:
            raise ValueError(
                f"gymnax can't make {env.name!r} with options {dict(env.options)!r}: {error}"
            ) from error
    else:
        made, params = env.name, getattr(env.name, "default_params", None)
        if params is None or env.options:
            raise ValueError(
                f"Gymnax({env.name!r:.80}, {dict(env.options)!r}): needs a name and options, or an "
                "environment object of gymnax's and none"
            )
    tells = hasattr(made, "is_truncated")
    engine = _Engine(made, params, tells)
    needed = ("step_env", "reset_env", *(() if tells else ("is_terminal",)))
    if missing := [n for n in needed if not callable(getattr(made, n, None))]:
        raise ImportError(
            f"{_called(engine)} has no {', '.join(missing)}: fastrl knows the interfaces of "
            f"gymnax {TESTED} (pip install 'gymnax<2')"
        )
    return engine


def _gymnax() -> Any:
    try:
        import gymnax
    except ImportError as error:
        raise ImportError(
            f"this needs gymnax, which can't be imported ({error}): pip install gymnax "
            f"(tested with {TESTED}; 1.0.1 also needs: pip install six)"
        ) from error
    return gymnax


def _called(engine: _Engine) -> str:
    """Whose fault it is: the class, and the version of gymnax if there is one."""
    from importlib import metadata

    try:
        version = f" (gymnax {metadata.version('gymnax')} is installed)"
    except metadata.PackageNotFoundError:
        version = ""
    return f"{type(engine.env).__name__}{version}"


@functools.lru_cache(maxsize=64)
def _layout(env: Gymnax) -> _Layout:
    engine = _engine(env)

    def lay_out() -> _Layout:
        with _lenient():
            key, params = jax.random.key(0), engine.params
            actions = _space(engine.env.action_space(params), None, env)
            start = jax.eval_shape(engine.env.reset_env, key, params)[1]
            first = jax.tree.leaves(actions, is_leaf=_is_leaf)
            taken = [jax.ShapeDtypeStruct(s.shape, s.dtype) for s in first]
            action = jax.tree.unflatten(jax.tree.structure(actions, is_leaf=_is_leaf), taken)
            seen, after = jax.eval_shape(
                lambda k, s, a, p: _step(engine, k, s, a, p)[:2], key, start, action, params
            )
            return _Layout(
                after, *_observations(engine.env.observation_space(params), seen, env), actions
            )

    return apart(lay_out)


def _observations(space: Any, seen: Any, env: Gymnax) -> tuple[Any, Space]:
    """The types of observations and their space: gymnax's, with the shapes that really come."""
    made = _space(space, seen, env)
    struct = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype), made, is_leaf=_is_leaf)
    return struct, made


def _space(space: Any, seen: Any, env: Gymnax) -> Space:
    """Gymnax's `space` as fastrl's; `seen` is what its members look like, if known."""
    kind = type(space).__name__
    if kind == "Discrete":
        return Discrete(int(space.n))
    if kind == "Box":
        return _box(space, seen)
    if kind in ("Dict", "Tuple"):
        names = sorted(space.spaces) if kind == "Dict" else range(len(space.spaces))
        parts = {n: _space(space.spaces[n], None if seen is None else seen[n], env) for n in names}
        return parts if kind == "Dict" else tuple(parts.values())
    raise ValueError(
        f"{env.name} has a space of gymnax's kind {kind}: fastrl knows Discrete, Box, Dict, Tuple"
    )


def _box(space: Any, seen: Any) -> Box:
    declared = np.dtype(space.dtype)
    narrow = {"f": np.float32, "i": np.int32, "u": np.uint32}
    wide = declared.itemsize == 8
    dtype = np.dtype(narrow[declared.kind]) if wide else declared
    shape = tuple(np.atleast_1d(space.shape).astype(int).tolist()) if np.size(space.shape) else ()
    shape = tuple(seen.shape) if seen is not None else shape
    low, high = (_bound(b, shape, dtype) for b in (space.low, space.high))
    return Box(low, high, shape, dtype)


def _bound(bound: Any, shape: tuple[int, ...], dtype: np.dtype) -> Any:
    """The bound; only its least or greatest value where it is not of the shape that comes."""
    values = np.asarray(bound)
    if dtype.kind in "iu":
        values = np.clip(values, np.iinfo(dtype).min, np.iinfo(dtype).max)
    values = values.astype(dtype)
    return values.item() if values.ndim == 0 else np.broadcast_to(values, shape)


def _cast(tree: Any, like: Any) -> Any:
    """`tree` with the types of `like`, none of them weak."""

    def one(x: Any, s: Any) -> Array:
        if jnp.issubdtype(s.dtype, jax.dtypes.prng_key):
            return x
        return jax.lax.convert_element_type(x, np.dtype(s.dtype)).reshape(s.shape)

    return jax.tree.map(one, tree, like)


def _is_leaf(space: Any) -> bool:
    return isinstance(space, (Discrete, Box))
