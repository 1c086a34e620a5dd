"""From a description of one of Gymnasium's environments to functions that step it."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastrl import spaces
from fastrl.spaces import Discrete, Space
from fastrl.types import Array, Observation

NEEDED = (1, 1)  # from here on Gymnasium has AutoresetMode


class Linked(NamedTuple):
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
def linked(env: Any) -> Linked:
    """What steps `env`, a `Gymnasium`; one per value. Raises as `make` does."""
    require()
    from fastrl.envs.adapters.gymnasium_hosts import Hosts
    from fastrl.envs.adapters.gymnasium_spaces import ours

    probe = make(env)
    observations = ours(probe.observation_space, f"the observation space of {env.name}")
    actions = ours(probe.action_space, f"the action space of {env.name}")
    hosts = Hosts(str(env.name), functools.partial(make, env), observations, actions, env.threads)
    hosts.add(probe)
    limit = _limit(env, probe) if env.replay else 0
    action_leaves = jax.tree.leaves(actions.space, is_leaf=spaces.is_leaf)
    log = [jax.ShapeDtypeStruct((limit, *s.shape), _logged(s)) for s in action_leaves]
    log = log if env.replay else []
    return Linked(
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
            leaves_of(observation_space, batch),
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


def leaves_of(space: Space, batch: tuple[int, ...]) -> list[Any]:
    """The shapes of the leaves of a batch of members of `space`."""
    return jax.tree.leaves(spaces.struct_of(space, batch))


def _logged(space: Any) -> np.dtype:
    """The smallest type that holds an action."""
    small = isinstance(space, Discrete) and space.n <= 256
    return np.dtype(np.uint8) if small else space.dtype


def make(env: Any, **more: Any) -> Any:
    """A simulator. Raises ValueError if Gymnasium can't make it."""
    gymnasium = require()
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


def _limit(env: Any, probe: Any) -> int:
    limit = env.max_steps or (probe.spec.max_episode_steps if probe.spec else None)
    if limit is None:
        raise ValueError(
            f"{env.name} has no time limit, and a state has to hold the actions of its episode: "
            "give max_steps, or replay=False (then a run can't be resumed)"
        )
    return int(limit)


def require() -> Any:
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
