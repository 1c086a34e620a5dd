"""Gymnasium's environments inside fastrl, and fastrl's environments as Gymnasium's.

`from_gymnasium` steps simulators on the host from within the compiled program, all environments
of a batch in one call (`gymnasium_hosts` has the how and why), so every driver, learner and
transform takes them.  `to_gymnasium` and `to_gymnasium_vector` give any environment of fastrl's
to code that expects Gymnasium's.

Gymnasium is imported when an environment is first used, not before.
"""

import dataclasses
import functools
import zlib
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastrl import door, spaces
from fastrl.spaces import Discrete, Space
from fastrl.types import Action, Array, Env, Key, Observation, Step

NEEDED = (1, 1)  # from here on Gymnasium has AutoresetMode


class Params(NamedTuple):
    """Nothing: the numbers of a simulator on the host are not traced. See `options`."""


class State(NamedTuple):
    """Where an episode stands: how it began and what was done in it."""

    ticket: Array  # uint32 [5]: seed, episode, steps taken, digest of the actions, how it ended
    actions: Any  # leaves [max_steps, *], what was done so far; () without `replay`


@dataclasses.dataclass(frozen=True)
class Gymnasium:
    """Gymnasium's environment called `name`, stepped on the host.

    `name` is one of Gymnasium's ids, or a function that makes an environment.  `options` are
    passed on when it is made (`{"continuous": True}`); they are kept as sorted pairs, so that
    environments hash and compare by value.  `max_steps` is a time limit in the place of
    Gymnasium's own.  `threads` step a batch side by side, which helps simulators that release
    Python's lock (MuJoCo, Atari).

    With `replay` a state holds the actions of its episode, so that any state can be restored:
    a resumed run, a branch of a search or a vmapped member goes on exactly.  It needs a time
    limit, and a simulator that repeats itself when it is seeded alike; without either use
    `replay=False`, where a state can be stepped once only and a run cannot be resumed.

    With `drawn` there is `render(state, params)`, uint8 `[H, W, 3]`: what Gymnasium draws, of a
    simulator that plays the actions of the state.  It needs what Gymnasium draws with (pygame).

    Raises ValueError for what Gymnasium does not know or take and for spaces without a fixed
    shape, ImportError where Gymnasium is missing or too old: all when first used.
    """

    name: str | Callable[..., Any]
    options: Any = ()
    max_steps: int | None = None
    replay: bool = True
    threads: int = 1
    drawn: bool = False
    version: ClassVar[int] = 1
    dear_reset: ClassVar[str] = "cached"  # for transforms of it, which don't have `reset_where`

    def __post_init__(self) -> None:
        if not (isinstance(self.name, str) or callable(self.name)) or isinstance(self.name, type):
            raise ValueError(
                f"Gymnasium({self.name!r}): needs an id such as 'CartPole-v1', or a function "
                "that makes an environment"
            )
        if self.max_steps is not None:
            door.integer("max_steps", self.max_steps, 1)
        door.flag("replay", self.replay)
        door.flag("drawn", self.drawn)
        if self.drawn and not self.replay:
            raise ValueError(
                "drawn=True needs replay=True: states are shown by playing their actions"
            )
        door.integer("threads", self.threads, 1, 1024)
        try:
            pairs = tuple(sorted((str(k), _frozen(v)) for k, v in dict(self.options).items()))
            hash(pairs)
        except (TypeError, ValueError):
            raise ValueError(
                f"options={self.options!r}: must be a dictionary such as {{'continuous': True}} "
                "of numbers, texts and lists of them"
            ) from None
        object.__setattr__(self, "options", pairs)
        if self.drawn:  # an attribute of the instance: a method would claim that all can be drawn
            object.__setattr__(self, "render", functools.partial(_render, self))

    def default_params(self) -> Params:
        return Params()

    def reset(self, key: Key, params: Params) -> tuple[State, Observation]:
        return self.reset_where(key, params, jnp.bool_(True))

    def reset_where(self, keys: Key, params: Params, wanted: Array) -> tuple[State, Observation]:
        """`reset` for a batch of `keys` `[...]`; only where `wanted` a simulator is started.

        `fastrl.reset.fresh` calls it with the environments whose episode ended.
        """
        linked = _linked(self)
        batch = jnp.shape(wanted)
        draw = _seed_and_episode
        for _ in batch:
            draw = jax.vmap(draw)
        starts = draw(keys)
        observation = jax.pure_callback(
            linked.hosts.begin, _leaves(linked.observation_space, batch), starts, wanted,
            vmap_method="broadcast_all",
        )  # fmt: skip
        zeros = jnp.zeros((*batch, 3), jnp.uint32)
        log = [jnp.zeros((*batch, *x.shape), x.dtype) for x in linked.log]
        return State(jnp.concatenate([starts, zeros], -1), log), linked.observed(observation)

    def step(self, key: Key, state: State, action: Action, params: Params) -> tuple[State, Step]:
        linked = _linked(self)
        space, dtypes = linked.action_space, [x.dtype for x in linked.log]
        as_declared = spaces.tree_map(lambda s, a: jnp.asarray(a, s.dtype), space, action)
        taken = jax.tree.leaves(as_declared)
        seen, reward, flags, digest = linked.advance(state.ticket, taken, state.actions)
        seed, episode, time, _, _ = state.ticket
        row = jnp.minimum(time, jnp.uint32(max(linked.limit - 1, 0)))
        actions = [
            log.at[row].set(a.astype(dtype))
            for log, a, dtype in zip(state.actions, taken, dtypes, strict=False)
        ]
        ticket = jnp.stack([seed, episode, time + 1, digest, flags.astype(jnp.uint32)])
        step = Step(linked.observed(seen), reward, flags == 1, flags == 2)
        return State(ticket, actions), step

    def observation_space(self, params: Params) -> Space:
        return _linked(self).observation_space

    def action_space(self, params: Params) -> Space:
        return _linked(self).action_space


def from_gymnasium(
    name: str | Callable[..., Any], *, max_steps: int | None = None, replay: bool = True,
    threads: int = 1, drawn: bool = False, **options: Any,
) -> Gymnasium:  # fmt: skip
    """Gymnasium's environment `name` for fastrl; `options` go to `gymnasium.make`.

    The batch is as large as the learner asks for (`num_envs` of its Config). See `Gymnasium`.
    """
    env = Gymnasium(name, options, max_steps, replay, threads, drawn)
    _linked(env)  # so that what is wrong shows here
    return env


def to_gymnasium(env: Env, params: Any = None, *, render_mode: str | None = None) -> Any:
    """`env` as a `gymnasium.Env`: `reset(seed=)`, `step`, `render` where `env` can be drawn.

    `params` are its default params unless given.  Raises ValueError for another render mode
    than None and "rgb_array", or for one that `env` does not have.
    """
    door.environment(env)
    _require()
    from fastrl.envs.adapters.gymnasium_classes import Single

    return Single(env, params, render_mode)


def to_gymnasium_vector(
    env: Env, num_envs: int, params: Any = None, *, render_mode: str | None = None
) -> Any:
    """`num_envs` copies of `env` as a `gymnasium.vector.VectorEnv`, all stepped in one program.

    The autoreset mode is SAME_STEP: at the end of an episode `step` returns the next one's first
    observation, and the last one is in `info["final_obs"]` where `info["_final_obs"]`.
    """
    door.environment(env)
    door.integer("num_envs", num_envs, 1)
    _require()
    from fastrl.envs.adapters.gymnasium_classes import Vector

    return Vector(env, num_envs, params, render_mode)


class _Linked(NamedTuple):
    """What an environment's functions close over."""

    hosts: Any  # gymnasium_hosts.Hosts
    observation_space: Space
    action_space: Space
    log: list[Any]  # the shapes of a state's actions
    limit: int  # their length
    advance: Callable[..., Any]

    def observed(self, leaves: list[Array]) -> Observation:
        """The observation with these leaves."""
        return jax.tree.unflatten(
            jax.tree.structure(self.observation_space, is_leaf=spaces.is_leaf), leaves
        )


@functools.lru_cache(maxsize=64)
def _linked(env: Gymnasium) -> _Linked:
    _require()
    from fastrl.envs.adapters.gymnasium_hosts import Hosts
    from fastrl.envs.adapters.gymnasium_spaces import ours

    make = functools.partial(_make, env)
    probe = make()
    observations = ours(probe.observation_space, f"the observation space of {env.name}")
    actions = ours(probe.action_space, f"the action space of {env.name}")
    hosts = Hosts(str(env.name), make, observations, actions, env.threads)
    hosts.add(probe)
    limit = _limit(env, probe) if env.replay else 0
    action_leaves = jax.tree.leaves(actions.space, is_leaf=spaces.is_leaf)
    log = [jax.ShapeDtypeStruct((limit, *s.shape), _logged(s)) for s in action_leaves]
    log = log if env.replay else []
    return _Linked(
        hosts, observations.space, actions.space, log, limit,
        _advance(hosts, observations.space, env.replay),
    )  # fmt: skip


def _advance(hosts: Any, observation_space: Space, replay: bool) -> Callable[..., Any]:
    """The step on the host: (ticket `[..., 5]`, actions, log) -> the parts of an `Outcome`.

    Under vmap one call serves the whole batch. Logs leave the device only where a simulator has
    to be made again.
    """

    @jax.custom_batching.custom_vmap
    def advance(ticket: Array, action: list[Array], log: list[Array]) -> Any:
        batch = ticket.shape[:-1]
        scalar = functools.partial(jax.ShapeDtypeStruct, batch)
        shapes = (
            _leaves(observation_space, batch),
            scalar(jnp.float32), scalar(jnp.uint8), scalar(jnp.uint32),
        )  # fmt: skip
        if not replay:
            return jax.pure_callback(hosts.step_once, shapes, ticket, action)
        done = jax.pure_callback(hosts.step, shapes, ticket, action)
        missing = (done[2] & 4).any()

        def again() -> Any:
            return jax.pure_callback(hosts.replay, shapes, ticket, action, log, done)

        return jax.lax.cond(missing, again, lambda: done)

    @advance.def_vmap
    def rule(size: int, batched: Any, *args: Any) -> tuple[Any, Any]:
        args = jax.tree.map(
            lambda b, x: x if b else jnp.broadcast_to(x, (size, *x.shape)), tuple(batched), args
        )
        out = advance(*args)
        return out, jax.tree.map(lambda _: True, out)

    return advance


def _leaves(space: Space, batch: tuple[int, ...]) -> list[Any]:
    return jax.tree.leaves(spaces.struct_of(space, batch))


def _seed_and_episode(key: Key) -> Array:
    """uint32 `[2]`; a seed has 31 bits, the other word tells apart episodes of equal seeds."""
    return jax.random.bits(key, (2,), jnp.uint32) >> jnp.array([1, 0], jnp.uint32)


def _logged(space: Any) -> np.dtype:
    """The smallest type that holds an action."""
    small = isinstance(space, Discrete) and space.n <= 256
    return np.dtype(np.uint8) if small else space.dtype


def _make(env: Gymnasium, **more: Any) -> Any:
    """A simulator. Raises ValueError if Gymnasium can't make it."""
    gymnasium = _require()
    options = dict(env.options) | more
    try:
        if not isinstance(env.name, str):
            made = env.name(**options)
            limited = env.max_steps is not None
            return gymnasium.wrappers.TimeLimit(made, env.max_steps) if limited else made
        return gymnasium.make(
            env.name, max_episode_steps=env.max_steps, disable_env_checker=True, **options
        )
    except (gymnasium.error.Error, TypeError, ValueError, AttributeError, KeyError) as error:
        raise ValueError(
            f"Gymnasium can't make {env.name!r} with options {options!r}: {error}"
        ) from error
    except ImportError as error:  # Box2D, MuJoCo, Atari
        raise ImportError(f"Gymnasium can't make {env.name!r}: {error}") from error


def _limit(env: Gymnasium, probe: Any) -> int:
    limit = env.max_steps or (probe.spec.max_episode_steps if probe.spec else None)
    if limit is None:
        raise ValueError(
            f"{env.name} has no time limit, and a state has to hold the actions of its episode: "
            "give max_steps, or replay=False (then a run can't be resumed)"
        )
    return int(limit)


def _require() -> Any:
    """Gymnasium. Raises ImportError where it is missing or too old."""
    try:
        import gymnasium
    except ImportError as error:
        raise ImportError(
            f"this needs Gymnasium, which can't be imported ({error}): pip install gymnasium"
        ) from error
    found = tuple(int(part) for part in gymnasium.__version__.split(".")[:2])
    if found < NEEDED:
        needed = ".".join(map(str, NEEDED))
        raise ImportError(
            f"Gymnasium {gymnasium.__version__} is installed, this needs {needed} or newer: "
            f"pip install 'gymnasium>={needed}'"
        )
    return gymnasium


class _Screen:
    """A simulator that draws: consecutive states of an episode cost one step each."""

    def __init__(self, env: Gymnasium) -> None:
        self._env, self._host = env, _make(env, render_mode="rgb_array")
        self._at: tuple[int, int, int, int] | None = None  # seed, episode, time, digest

    def show(self, state: State) -> Any:
        seed, episode, time, _, _ = np.asarray(state.ticket).tolist()
        linked = _linked(self._env)
        kinds = jax.tree.leaves(linked.action_space, is_leaf=spaces.is_leaf)
        log = [np.asarray(x, s.dtype) for x, s in zip(state.actions, kinds, strict=True)]
        digests = [0]
        for t in range(time):
            digests.append(functools.reduce(lambda d, x: zlib.crc32(x[t].tobytes(), d), log,
                                            digests[-1]))  # fmt: skip
        at = self._at
        if at is None or at[:2] != (seed, episode) or at[2] > time or digests[at[2]] != at[3]:
            self._host.reset(seed=seed)
            at = (seed, episode, 0, 0)
        for t in range(at[2], time):
            self._host.step(linked.hosts.action([x[t] for x in log]))
        self._at = (seed, episode, time, digests[time])
        return self._host.render()


def _render(env: Gymnasium, state: State, params: Params) -> np.ndarray:
    return np.asarray(_screen(env).show(state), np.uint8)


@functools.lru_cache(maxsize=4)
def _screen(env: Gymnasium) -> _Screen:
    return _Screen(env)


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value
