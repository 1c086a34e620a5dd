"""What all blocks of a fused rollout share: the environment as scalar code, and the layouts."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fastrl import spaces
from fastrl.kernels.fused_rollout import heads, network
from fastrl.kernels.fused_rollout.layout import Layout, Struct
from fastrl.kernels.scalarize import UnsupportedError, scalarize
from fastrl.kernels.scalarize_keys import key_struct

Preprocess = Callable[[Any, Any], Any]  # (statistics, observation) -> observation


class Program(NamedTuple):
    """An environment, traced, with the layouts of everything that enters and leaves the kernel."""

    observation_space: Any
    action_space: Any
    spec: network.NetworkSpec
    step: Callable[..., Any]  # on cells: (key, state, action, task) -> (state, Step)
    reset: Callable[..., Any]  # on cells: (key, task) -> (state, observation)
    see: Callable[..., Any]  # on cells: (statistics, observation) -> observation
    task: Layout
    statistics: Layout
    state: Layout
    observation: Layout
    action: Layout  # as sampled
    metrics: Layout  # what the environment reports of a step


class FusionError(NotImplementedError):
    """The message says why an environment or a network cannot be in the kernel."""


def build(
    env: Any, spec: network.NetworkSpec, task: Any, preprocess: Preprocess | None, statistics: Any
) -> Program:
    """Traces `env`. Raises `FusionError`; what `env` itself raises is passed on."""
    name = type(env).__name__
    observation_space, action_space = env.observation_space(task), env.action_space(task)
    for reason in (
        heads.observation_reason(observation_space),
        heads.action_reason(action_space),
        network.reason(spec),
    ):
        if reason is not None:
            raise FusionError(reason)
    task, statistics = _structs(task), _structs(statistics)
    key, action = key_struct(), spaces.struct_of(action_space)
    reset, start = _traced(f"{name}.reset", env.reset, key, task)
    state, observation = _structs(start)
    step, (after, happened) = _traced(f"{name}.step", env.step, key, state, action, task)
    _same(f"{name}.step", "state", state, _structs(after))
    _same(f"{name}.step", "observation", observation, _structs(happened.observation))
    see, _ = _traced("the preprocessing", preprocess or _as_it_is, statistics, observation)
    return Program(
        observation_space, action_space, spec, step, reset, see, Layout(task), Layout(statistics),
        Layout(state), Layout(observation), Layout(action), Layout(_structs(happened.metrics)),
    )  # fmt: skip


def _as_it_is(statistics: Any, observation: Any) -> Any:
    return observation


def _structs(tree: Any) -> Any:
    """Shapes and types; numbers of Python have the types that JAX gives them."""
    return jax.tree.map(lambda x: Struct(jnp.shape(x), jnp.result_type(x)), tree)


def _traced(name: str, f: Callable[..., Any], *example: Any) -> tuple[Callable[..., Any], Any]:
    try:
        return scalarize(f, *example)
    except UnsupportedError as error:
        raise FusionError(f"{name} uses {error}") from None


def _same(name: str, what: str, before: Any, after: Any) -> None:
    if before != after:
        raise FusionError(f"{name} changes the {what} from {before} to {after}")
