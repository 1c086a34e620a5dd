"""Gymnasium's environments inside fastrl, and fastrl's environments as Gymnasium's.

`from_gymnasium` steps simulators on the host from within the compiled program, all environments
of a batch in one call (`gymnasium_hosts` has the how and why), so every driver, learner and
transform takes them.  `to_gymnasium` and `to_gymnasium_vector` give any environment of fastrl's
to code that expects Gymnasium's.

Gymnasium is imported when an environment is first used, not before.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastrl import door, spaces
from fastrl.envs.adapters.gymnasium_link import leaves_of, linked, require
from fastrl.spaces import Space
from fastrl.types import Action, Array, Env, Key, Observation, Step


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

    def reset(self, key: Key, params: Any) -> tuple[State, Observation]:
        return self.reset_where(key, params, jnp.bool_(True))

    def reset_where(self, keys: Key, params: Any, wanted: Array) -> tuple[State, Observation]:
        """`reset` for a batch of `keys` `[...]`; only where `wanted` a simulator is started.

        `fastrl.reset.fresh` calls it with the environments whose episode ended.
        """
        link = linked(self)
        batch = jnp.shape(wanted)
        draw = _seed_and_episode
        for _ in batch:
            draw = jax.vmap(draw)
        starts = draw(keys)
        observation = jax.pure_callback(
            link.hosts.begin, leaves_of(link.observation_space, batch), starts, wanted,
            vmap_method="broadcast_all",
        )  # fmt: skip
        zeros = jnp.zeros((*batch, 3), jnp.uint32)
        log = [jnp.zeros((*batch, *x.shape), x.dtype) for x in link.log]
        return State(jnp.concatenate([starts, zeros], -1), log), link.observed(observation)

    def step(self, key: Key, state: State, action: Action, params: Any) -> tuple[State, Step]:
        link = linked(self)
        space, dtypes = link.action_space, [x.dtype for x in link.log]
        as_declared = spaces.tree_map(lambda s, a: jnp.asarray(a, s.dtype), space, action)
        taken = jax.tree.leaves(as_declared)
        seen, reward, flags, digest = link.advance(state.ticket, taken, state.actions)
        seed, episode, time, _, _ = state.ticket
        row = jnp.minimum(time, jnp.uint32(max(link.limit - 1, 0)))
        actions = [
            log.at[row].set(a.astype(dtype))
            for log, a, dtype in zip(state.actions, taken, dtypes, strict=False)
        ]
        ticket = jnp.stack([seed, episode, time + 1, digest, flags.astype(jnp.uint32)])
        step = Step(link.observed(seen), reward, flags == 1, flags == 2)
        return State(ticket, actions), step

    def observation_space(self, params: Any) -> Space:
        return linked(self).observation_space

    def action_space(self, params: Any) -> Space:
        return linked(self).action_space


def from_gymnasium(
    name: str | Callable[..., Any], *, max_steps: int | None = None, replay: bool = True,
    threads: int = 1, drawn: bool = False, **options: Any,
) -> Gymnasium:  # fmt: skip
    """Gymnasium's environment `name` for fastrl; `options` go to `gymnasium.make`.

    The batch is as large as the learner asks for (`num_envs` of its Config). See `Gymnasium`.
    """
    env = Gymnasium(name, options, max_steps, replay, threads, drawn)
    linked(env)  # so that what is wrong shows here
    return env


def to_gymnasium(env: Env, params: Any = None, *, render_mode: str | None = None) -> Any:
    """`env` as a `gymnasium.Env`: `reset(seed=)`, `step`, `render` where `env` can be drawn.

    `params` are its default params unless given.  Raises ValueError for another render mode
    than None and "rgb_array", or for one that `env` does not have.
    """
    door.environment(env)
    require()
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
    require()
    from fastrl.envs.adapters.gymnasium_classes import Vector

    return Vector(env, num_envs, params, render_mode)


def _seed_and_episode(key: Key) -> Array:
    """uint32 `[2]`; a seed has 31 bits, the other word tells apart episodes of equal seeds."""
    return jax.random.bits(key, (2,), jnp.uint32) >> jnp.array([1, 0], jnp.uint32)


def _render(env: Gymnasium, state: State, params: Any) -> np.ndarray:
    from fastrl.envs.adapters.gymnasium_screen import screen

    return np.asarray(screen(env).show(state), np.uint8)


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value
