"""What all transforms share: forwarding to the environment inside, and its spaces."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from fastrl import spaces
from fastrl.spaces import Space
from fastrl.types import Action, Array, Key, Observation, Step

MASK = "action_mask"  # a field of observations that transforms leave as it is


@dataclasses.dataclass(frozen=True)
class Transform:
    """An environment that is `env` in everything; subclasses override what they change.

    `version`, `dear_reset`, `default_reset`, `render`, `render_html` and `sample_level` are those
    of `env`, and are there only if `env` has them.  Subclasses validate themselves in `_check`.
    """

    env: Any

    version: ClassVar[int]
    own_state: ClassVar[bool] = False  # whether states are records with the inner one in `env`
    own_params: ClassVar[bool] = False  # the same of params

    def __post_init__(self) -> None:
        inner = self.env
        if isinstance(inner, type) or not all(
            callable(getattr(inner, name, None)) for name in ("default_params", "reset", "step")
        ):
            raise ValueError(f"{type(self).__name__}(env={inner!r:.80}): needs an environment")
        for name in ("version", "dear_reset", "default_reset"):
            if hasattr(inner, name):
                object.__setattr__(self, name, getattr(inner, name))
        # Attributes of the instance, since a class with these methods would claim to draw.
        for name, draw in (("render", _render), ("render_html", _render_html)):
            if hasattr(inner, name):
                object.__setattr__(self, name, functools.partial(draw, type(self), inner))
        if hasattr(inner, "sample_level"):
            object.__setattr__(self, "sample_level", functools.partial(_sample_level, self))
        self._check()

    def _check(self) -> None:
        """Raises ValueError where the fields make no sense or do not fit `env`."""

    def default_params(self) -> Any:
        return self.env.default_params()

    def reset(self, key: Key, params: Any) -> tuple[Any, Observation]:
        return self.env.reset(key, params)

    def step(self, key: Key, state: Any, action: Action, params: Any) -> tuple[Any, Step]:
        return self.env.step(key, state, action, params)

    def observation_space(self, params: Any) -> Space:
        return self.env.observation_space(self.inner_params(params))

    def action_space(self, params: Any) -> Space:
        return self.env.action_space(self.inner_params(params))

    @classmethod
    def inner_state(cls, state: Any) -> Any:
        """The state of `env` in a state of this."""
        return state.env if cls.own_state else state

    @classmethod
    def inner_params(cls, params: Any) -> Any:
        """The params of `env` in params of this."""
        return params.env if cls.own_params else params


def _sample_level(transform: Transform, key: Key) -> Any:
    """Params whose inner ones are a level of `env`. Consumes `key`."""
    level = transform.env.sample_level(key)
    return transform.default_params()._replace(env=level) if transform.own_params else level


def _render(cls: type[Transform], env: Any, state: Any, params: Any) -> Any:
    return env.render(cls.inner_state(state), cls.inner_params(params))


def _render_html(cls: type[Transform], env: Any, states: list[Any], params: Any) -> Any:
    return env.render_html([cls.inner_state(s) for s in states], cls.inner_params(params))


def map_spaces(f: Callable[..., Any], space: Space, *rest: Any) -> Any:
    """`f(leaf space, *leaves)` over a space and trees like it.

    Fields called `action_mask` are left as they are: those of the last tree are returned.
    """

    def one(path: tuple[Any, ...], *leaves: Any) -> Any:
        return leaves[-1] if _is_mask(path) else f(*leaves)

    return jax.tree_util.tree_map_with_path(one, space, *rest, is_leaf=spaces.is_leaf)


def leaf_spaces(space: Space) -> list[Space]:
    """The leaf spaces that `map_spaces` visits."""
    leaves = jax.tree_util.tree_flatten_with_path(space, is_leaf=spaces.is_leaf)[0]
    return [leaf for path, leaf in leaves if not _is_mask(path)]


def where(condition: Array, on_true: Any, on_false: Any) -> Any:
    """`jnp.where` over pytrees; `condition` is a scalar."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), on_true, on_false)


def _is_mask(path: tuple[Any, ...]) -> bool:
    return any(getattr(k, "name", getattr(k, "key", None)) == MASK for k in path)
