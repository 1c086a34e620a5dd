"""MuJoCo Playground's environments: robots and the DeepMind Control suite on MJX.

Playground's dynamics, observations and rewards; its training wrappers are not used: what happens
at the end of an episode is the business of `fastrl.reset`, and the time limit is a truncation.

Playground is imported when an environment is first used, not before.
"""

import contextlib
import copy
import dataclasses
import functools
import io
import subprocess
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from fastrl.envs.adapters.brax_library import apart, quiet
from fastrl.registry import unknown
from fastrl.spaces import Box, Space
from fastrl.types import Array, Key, Observation, Step

TESTED = "0.2.0"
CRITICS = "privileged_state"  # what Playground calls the critic's own view


class Params(NamedTuple):
    """The time limit, and factors on the model's own physics (1 is Playground's task)."""

    max_steps: Any
    gravity: float = 1.0
    friction: float = 1.0
    strength: float = 1.0  # of all actuators


class State(NamedTuple):
    """Where an episode stands."""

    numbers: Array  # float32 `[P]`: the floats of Playground's record, end to end, since one array
    # passes through resets and scans faster than a hundred; `Playground.unpack` undoes it
    rest: Any  # its other leaves: counters, flags, keys
    time: Array  # int32, steps taken


@dataclasses.dataclass(frozen=True)
class Playground:
    """MuJoCo Playground's environment called `name`.

    Observation: float32 `[D]`, or a record of such; of Playground's `privileged_state` it becomes
    the field `critic`, which only the critic sees.  Action: float32 `[A]` in [-1, 1].  `options`
    override its configuration, nested names with dots (`{"reward_config.scales.energy": 0.0}`);
    they are kept as sorted pairs, so that environments hash and compare by value.  `impl` is the
    engine: "jax" anywhere, "warp" on NVIDIA GPUs.

    `max_steps` of the params is the configuration's `episode_length`, in steps of the agent: with
    an `action_repeat` of r one of them is r steps of Playground's.

    A step to a reward or an observation that is not finite terminates the episode, with reward 0
    and zeros in the observation's place.

    Raises ValueError for an unknown name or option, ImportError where Playground is missing, and
    RuntimeError where a robot's model can't be downloaded: all when first used.
    """

    name: str
    options: Any = ()
    impl: str = "jax"
    version: ClassVar[int] = 1
    dear_reset: ClassVar[bool] = True  # `fastrl.reset.default` draws from a pool

    def __post_init__(self) -> None:
        try:
            pairs = tuple(sorted((str(k), _frozen(v)) for k, v in dict(self.options).items()))
            hash(pairs)
        except (TypeError, ValueError):
            raise ValueError(
                f"options={self.options!r}: must be a dictionary such as {{'ctrl_dt': 0.02}} of "
                "numbers, texts and lists of them"
            ) from None
        object.__setattr__(self, "options", pairs)

    def default_params(self) -> Params:
        config = _build(self).config
        return Params(-(-int(config.episode_length) // _repeat(config)))

    def reset(self, key: Key, params: Params) -> tuple[State, Observation]:
        with quiet():
            start = _with_physics(_build(self).engine, params).reset(key)
        numbers, rest = _pack(start, _layout(self))
        return State(numbers, rest, jnp.int32(0)), _observed(start.obs)

    def step(self, key: Key, state: State, action: Array, params: Params) -> tuple[State, Step]:
        built, layout = _build(self), _layout(self)
        with quiet():
            after, reward = _step(built, self.unpack(state), action, params)
        time = state.time + 1
        observation, reward = _observed(after.obs), jnp.asarray(reward, jnp.float32)
        numbers = jax.tree.leaves((observation, reward))
        sound = jnp.stack([jnp.isfinite(x).all() for x in numbers]).all()
        terminated = ~sound | (jnp.asarray(after.done) > 0.5)
        keep = lambda x: jnp.where(sound, x, jnp.zeros_like(x))  # noqa: E731
        step = Step(
            jax.tree.map(keep, observation),
            keep(reward),
            terminated,
            (time >= params.max_steps) & ~terminated,
            {
                name: keep(jnp.asarray(value, jnp.float32))
                for name, value in after.metrics.items()
                if jnp.ndim(value) == 0
            },
        )
        return State(*_pack(after, layout), time), step

    def observation_space(self, params: Params) -> Space:
        return jax.tree.map(
            lambda x: Box(-jnp.inf, jnp.inf, x.shape), _observed(_layout(self).record.obs)
        )

    def action_space(self, params: Params) -> Box:
        return Box(-1.0, 1.0, (int(_build(self).engine.action_size),))

    def unpack(self, state: State) -> Any:
        """Playground's own record in `state`: `data`, `obs`, `metrics`, `info`."""
        layout = _layout(self)
        floats, rest = iter(layout.floats(state.numbers)), iter(state.rest)
        leaves = [next(floats if is_float else rest) for is_float in layout.is_float]
        return jax.tree.unflatten(layout.treedef, leaves)


def from_playground(name: str, *, impl: str = "jax", **options: Any) -> Playground:
    """MuJoCo Playground's environment `name` for fastrl; `options` override its configuration."""
    env = Playground(name, options, impl)
    _layout(env)  # so that what is wrong shows here
    return env


class _Built(NamedTuple):
    engine: Any
    config: Any


class _Layout(NamedTuple):
    """How to take Playground's record apart and to put it together."""

    record: Any  # of jax.ShapeDtypeStruct, as it is after a step
    treedef: Any
    is_float: tuple[bool, ...]
    floats: Callable[[Array], list[Array]]  # undoes the packing


def _step(built: _Built, record: Any, action: Array, params: Params) -> tuple[Any, Array]:
    """Playground's record after a step, and the reward: the sum over repetitions of the action."""
    engine, repeat = _with_physics(built.engine, params), _repeat(built.config)
    if repeat == 1:
        after = engine.step(record, action)
        return after, after.reward
    reward = jnp.float32(0)
    for _ in range(repeat):
        record = engine.step(record, action)
        reward += record.reward
    return record, reward


def _repeat(config: Any) -> int:
    return max(int(getattr(config, "action_repeat", 1)), 1)


def _with_physics(engine: Any, params: Params) -> Any:
    """`engine` with the physics that `params` ask for: a copy, since `params` may be traced."""
    model = engine.mjx_model
    changed = copy.copy(engine)
    changed._mjx_model = model.tree_replace(
        {
            "opt.gravity": model.opt.gravity * params.gravity,
            "geom_friction": model.geom_friction * params.friction,
            "actuator_gear": model.actuator_gear * params.strength,
        }
    )
    return changed


def _observed(obs: Any) -> Observation:
    """Playground's observation as float32, the critic's view under its name here."""
    as_float = lambda x: x if isinstance(x, jax.ShapeDtypeStruct) else jnp.asarray(x, jnp.float32)  # noqa: E731
    if not isinstance(obs, Mapping):
        return as_float(obs)
    return {"critic" if name == CRITICS else name: as_float(x) for name, x in obs.items()}


def _pack(record: Any, layout: _Layout) -> tuple[Array, tuple[Array, ...]]:
    """The floats of a record in one array, and its other leaves, types as after a step."""
    leaves, likes = jax.tree.leaves(record), jax.tree.leaves(layout.record)
    sorted_out = list(zip(leaves, likes, layout.is_float, strict=True))
    floats = [jnp.asarray(x, jnp.float32) for x, _, is_float in sorted_out if is_float]
    rest = tuple(_as(x, like) for x, like, is_float in sorted_out if not is_float)
    return ravel_pytree(floats)[0], rest


def _as(x: Any, like: Any) -> Array:
    if jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
        return x
    return jax.lax.convert_element_type(x, np.dtype(like.dtype))


@functools.lru_cache(maxsize=64)
def _layout(env: Playground) -> _Layout:
    built, params = _build(env), env.default_params()

    def lay_out() -> _Layout:
        with quiet():
            engine = _with_physics(built.engine, params)
            start = jax.eval_shape(engine.reset, jax.random.key(0))
            action = jax.ShapeDtypeStruct((int(engine.action_size),), jnp.float32)
            after = jax.eval_shape(lambda s, a: _step(built, s, a, params)[0], start, action)
        leaves, treedef = jax.tree.flatten(after)
        is_float = tuple(bool(jnp.issubdtype(x.dtype, jnp.floating)) for x in leaves)
        zeros = [jnp.zeros(x.shape) for x, f in zip(leaves, is_float, strict=True) if f]
        return _Layout(after, treedef, is_float, ravel_pytree(zeros)[1])

    return apart(lay_out)


@functools.lru_cache(maxsize=64)
def _build(env: Playground) -> _Built:
    """Playground's environment object, one per value of `env`."""
    return apart(lambda: _make(env))


def _make(env: Playground) -> _Built:
    registry = _registry()
    if env.name not in registry.ALL_ENVS:
        raise ValueError(unknown("Playground environment", env.name, registry.ALL_ENVS))
    config = registry.get_default_config(env.name)
    options = {k: list(v) if isinstance(v, tuple) else v for k, v in env.options}
    if "impl" in config:
        options.setdefault("impl", env.impl)
    try:
        with quiet(), contextlib.redirect_stdout(io.StringIO()):
            engine = registry.load(env.name, config=config, config_overrides=options)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"Playground can't make {env.name!r} with options {options!r}: {error} "
            f"(its options: {', '.join(sorted(config.keys()))})"
        ) from error
    except (OSError, subprocess.CalledProcessError) as error:
        raise RuntimeError(
            f"Playground can't find the model of {env.name!r}, which it downloads from "
            f"github.com when it is first used: {error}"
        ) from error
    if missing := [
        n for n in ("reset", "step", "action_size", "mjx_model") if not hasattr(engine, n)
    ]:
        raise ImportError(
            f"Playground's {env.name} has no {', '.join(missing)}: fastrl knows the interface of "
            f"playground {TESTED} (pip install playground=={TESTED})"
        )
    return _Built(engine, config)


def _registry() -> Any:
    try:
        with quiet(), contextlib.redirect_stdout(io.StringIO()):
            from mujoco_playground import registry  # type: ignore[import-not-found]
    except ImportError as error:
        raise ImportError(
            f"this needs MuJoCo Playground, which can't be imported ({error}): "
            f"pip install playground (tested with {TESTED})"
        ) from error
    return registry


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value
