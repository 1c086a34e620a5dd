"""Brax's environments: rigid-body physics, four engines to choose from.

Nine tasks (`NAMES`) on four physics engines (`BACKENDS`), with brax's dynamics, observations,
rewards and terminal states.  Brax's own wrappers are not used: what happens at the end of an
episode is the business of `fastrl.reset`, and the time limit is a truncation.

Brax is imported when an environment is first used, not before.
"""

import copy
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from fastrl.envs.adapters import brax_library
from fastrl.envs.adapters.brax_library import apart, quiet
from fastrl.registry import unknown
from fastrl.spaces import Box
from fastrl.types import Array, Key, Step

NAMES = (
    "ant",
    "halfcheetah",
    "hopper",
    "humanoid",
    "inverted_double_pendulum",
    "inverted_pendulum",
    "pusher",
    "reacher",
    "walker2d",
)
BACKENDS = ("spring", "positional", "generalized", "mjx")

# A position, velocity, observation or reward beyond this comes from physics that blew up, even
# while it is finite; what the tasks really produce stays below 1e3.
LIMIT = 1e4


class Params(NamedTuple):
    """The time limit, and factors on the model's own physics (1 is brax's task)."""

    max_steps: int = 1000
    gravity: float = 1.0
    friction: float = 1.0
    strength: float = 1.0  # of all actuators


class State(NamedTuple):
    """Where an episode stands."""

    physics: Array  # float32 `[P]`: brax's record (`Brax.unpack`), its leaves end to end, since
    # one array passes through resets and scans faster than twenty to a hundred
    time: Array  # int32, steps taken


@dataclasses.dataclass(frozen=True)
class Brax:
    """The brax environment called `name`, its physics computed by `backend`.

    Observation: float32 `[D]`, action: float32 `[A]` in [-1, 1], as brax defines them; brax
    rescales actions to the actuators' range and clips what is outside.  `options` go to the
    constructor of brax's environment, such as `{"terminate_when_unhealthy": False}`; they are
    kept as sorted pairs, so that environments hash and compare by value.

    Physics can blow up. A step into a state that is not finite, or beyond `LIMIT`, terminates
    the episode with reward 0, zeros in place of the observation and of its metrics.

    `metrics` of a step are the parts of the reward, as `reward/forward`.

    Raises ValueError for an unknown name, backend or option, with the nearest known ones, and
    ImportError where brax is not installed.
    """

    name: str
    backend: str = "spring"
    options: Any = ()
    version: ClassVar[int] = 1
    dear_reset: ClassVar[bool] = True  # `fastrl.reset.default` draws from a pool

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise ValueError(unknown("brax environment", self.name, NAMES))
        if self.backend not in BACKENDS:
            raise ValueError(unknown("brax backend", self.backend, BACKENDS))
        options = brax_library.checked_options(self.name, self.options)
        object.__setattr__(self, "options", options)

    def default_params(self) -> Params:
        return Params()

    def reset(self, key: Key, params: Params) -> tuple[State, Array]:
        with quiet():
            start = _with_physics(_build(self), params).reset(key)
        state = State(_pack(start.pipeline_state), jnp.int32(0))
        return state, jnp.asarray(start.obs, jnp.float32)

    def step(self, key: Key, state: State, action: Array, params: Params) -> tuple[State, Step]:
        engine = _with_physics(_build(self), params)
        with quiet():
            from brax.envs.base import State as BraxState

            before = BraxState(self.unpack(state), obs=None, reward=0.0, done=0.0)  # type: ignore
            after = engine.step(before, action)
        time = state.time + 1
        sound = _is_sound(after)
        terminated = ~sound | (jnp.asarray(after.done) > 0.5)
        step = Step(
            _or_zeros(sound, after.obs),
            _or_zeros(sound, after.reward),
            terminated,
            (time >= params.max_steps) & ~terminated,
            {
                name.replace("_", "/", 1): _or_zeros(sound, value)
                for name, value in after.metrics.items()
                if name.startswith("reward_")
            },
        )
        return State(_pack(after.pipeline_state), time), step

    def observation_space(self, params: Params) -> Box:
        return Box(-jnp.inf, jnp.inf, _layout(self)[1])

    def action_space(self, params: Params) -> Box:
        return Box(-1.0, 1.0, (_build(self).action_size,))

    def unpack(self, state: State) -> Any:
        """The record of brax's physics pipeline in `state`: `q`, `qd`, `x`, `xd` and more."""
        return _layout(self)[0](state.physics)

    def render_html(self, states: list[State], params: Params) -> str:
        """A page that plays `states`, one per step, in a browser.

        The page holds the trajectory and loads brax's viewer from the network when opened.
        Raises ValueError if there are no states.
        """
        if not states:
            raise ValueError("render_html: there are no states to show")
        engine = _build(self)
        from brax.io import html

        at_step_time = engine.sys.tree_replace({"opt.timestep": engine.dt})
        return html.render(at_step_time, [self.unpack(s) for s in states])


def _or_zeros(sound: Array, x: Any) -> Array:
    return jnp.where(sound, jnp.asarray(x, jnp.float32), 0.0)


def _is_sound(after: Any) -> Array:
    """Whether the outcome of a step is within `LIMIT` (what is not a number is not)."""
    numbers = after.pipeline_state.q, after.pipeline_state.qd, after.obs, after.reward
    return jnp.stack([(jnp.abs(x) < LIMIT).all() for x in numbers]).all()


def _with_physics(engine: Any, params: Params) -> Any:
    """`engine` with the physics that `params` ask for: a copy, since `params` may be traced."""
    sys = engine.sys
    factors = {  # pipelines differ in which of these they read
        "gravity": sys.gravity * params.gravity,
        "opt.gravity": sys.opt.gravity * params.gravity,
        "geom_friction": sys.geom_friction * params.friction,
        "actuator.gear": sys.actuator.gear * params.strength,
        "actuator_gear": sys.actuator_gear * params.strength,
    }
    changed = copy.copy(engine)
    changed.sys = sys.tree_replace(factors)
    return changed


@functools.lru_cache(maxsize=64)
def _build(env: Brax) -> Any:
    """Brax's environment object, one per value of `env`."""
    return brax_library.environment(env.name, env.backend, env.options)


@functools.lru_cache(maxsize=64)
def _layout(env: Brax) -> tuple[Callable[[Array], Any], tuple[int, ...]]:
    """How to undo `_pack` for `env`, and the shape of its observations."""
    engine = _build(env)

    def lay_out() -> tuple[Callable[[Array], Any], tuple[int, ...]]:
        with quiet():
            start = jax.eval_shape(engine.reset, jax.random.key(0))
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), start.pipeline_state)
        return ravel_pytree(zeros)[1], start.obs.shape

    return apart(lay_out)


def _pack(pipeline_state: Any) -> Array:
    """The leaves of brax's record in one float32 array; its integers are small, so exact."""
    return ravel_pytree(pipeline_state)[0].astype(jnp.float32)
