"""Brax's environments: rigid-body physics, four engines to choose from.

Nine tasks (`NAMES`) on four physics engines (`BACKENDS`), with brax's dynamics, observations,
rewards and terminal states.  Brax's own wrappers are not used: what happens at the end of an
episode is the business of `fastrl.reset`, and the time limit is a truncation.

Brax is imported when an environment is first used, not before.
"""

import contextlib
import copy
import dataclasses
import functools
import inspect
import io
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

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

T = TypeVar("T")

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
        object.__setattr__(self, "options", _pairs(self.options))
        if self.options:
            _check_options(self.name, self.options)

    def default_params(self) -> Params:
        return Params()

    def reset(self, key: Key, params: Params) -> tuple[State, Array]:
        with _foreign_code():
            start = _with_physics(_build(self), params).reset(key)
        state = State(_pack(start.pipeline_state), jnp.int32(0))
        return state, jnp.asarray(start.obs, jnp.float32)

    def step(self, key: Key, state: State, action: Array, params: Params) -> tuple[State, Step]:
        engine = _with_physics(_build(self), params)
        with _foreign_code():
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
    make = _brax_class(env.name)

    def build() -> Any:
        with _foreign_code(), _mujoco_notices_dropped():
            return make(backend=env.backend, **dict(env.options))

    return _apart(build)


@functools.lru_cache(maxsize=64)
def _layout(env: Brax) -> tuple[Callable[[Array], Any], tuple[int, ...]]:
    """How to undo `_pack` for `env`, and the shape of its observations."""
    engine = _build(env)

    def lay_out() -> tuple[Callable[[Array], Any], tuple[int, ...]]:
        with _foreign_code():
            start = jax.eval_shape(engine.reset, jax.random.key(0))
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), start.pipeline_state)
        return ravel_pytree(zeros)[1], start.obs.shape

    return _apart(lay_out)


def _apart(f: Callable[[], T]) -> T:
    """`f()` in a thread of its own, where no trace and no mesh of the caller is in force.

    What is kept must be made of plain arrays, also if it is made in the middle of a `jax.jit`.
    """
    with ThreadPoolExecutor(max_workers=1) as executor:
        return executor.submit(f).result()


def _pack(pipeline_state: Any) -> Array:
    """The leaves of brax's record in one float32 array; its integers are small, so exact."""
    return ravel_pytree(pipeline_state)[0].astype(jnp.float32)


def _brax_class(name: str) -> Any:
    """The class behind brax's `name`. Raises ImportError if brax can't be imported."""
    try:
        # mujoco prints that it found no Warp, which nobody asked for
        with _foreign_code(), contextlib.redirect_stdout(io.StringIO()):
            from brax import envs
    except ImportError as error:
        raise ImportError(
            f"brax/{name} needs brax, which can't be imported ({error}): pip install brax"
        ) from error
    return envs._envs[name]


def _pairs(options: Any) -> tuple[tuple[str, Any], ...]:
    """`options`, a mapping or pairs, as sorted pairs of hashable values."""
    try:
        pairs = tuple(sorted((str(k), _frozen(v)) for k, v in dict(options).items()))
        hash(pairs)
        return pairs
    except (TypeError, ValueError):
        raise ValueError(
            f"options={options!r}: must be a dictionary such as {{'healthy_reward': 2.0}}, "
            "its values numbers or lists of them"
        ) from None


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


def _check_options(name: str, options: tuple[tuple[str, Any], ...]) -> None:
    taken = inspect.signature(_brax_class(name)).parameters
    known = [p for p in taken if p not in ("backend", "kwargs")] + ["n_frames"]
    for option, _ in options:
        if option not in known:
            raise ValueError(unknown(f"option of brax/{name},", option, known))


# What brax and its dependencies say about themselves on import and while they are traced.
_NOTICES = (
    (UserWarning, "Brax System, piplines and environments are not actively"),
    (DeprecationWarning, "JAXopt is no longer maintained"),
    (DeprecationWarning, "Accessing `[a-z_]+` directly from `(Data|Model|Option)` is deprecated"),
)


@contextlib.contextmanager
def _foreign_code() -> Iterator[None]:
    """For calls into brax: drops its `_NOTICES`, and lets it broadcast ranks, as it does."""
    with warnings.catch_warnings(), jax.numpy_rank_promotion("allow"):
        for category, message in _NOTICES:
            warnings.filterwarnings("ignore", message, category)
        yield


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
