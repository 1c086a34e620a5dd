"""What the learners of continuous actions share: their Config, and the steps of an update.

Inside, actions are in units where the Box is [-1, 1]: noise, densities and the entropy that is
aimed at do not depend on the units of the environment.  The buffer holds the environment's.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fastrl import arguments, distributions, door, normalize
from fastrl import metrics as fm
from fastrl.algorithms import off_policy
from fastrl.algorithms.off_policy import Learner
from fastrl.metrics import Metrics
from fastrl.networks import Activation, NetworkConfig
from fastrl.spaces import Box
from fastrl.types import (
    Action,
    Algorithm,
    Array,
    Env,
    Key,
    Observation,
    PyTree,
    Recipe,
    ResetFactory,
    Scalar,
)


@dataclasses.dataclass(frozen=True)
class Config(off_policy.Config):
    """The fields of `off_policy.Config`, and the networks.

    Actions are uniformly random for the first `learning_starts` steps.
    """

    hidden_sizes: tuple[int, ...] = (256, 256)  # of policy and critics
    activation: Activation = "relu"
    fused_mlp = False  # a field of those learners that have it

    def __post_init__(self) -> None:
        super().__post_init__()
        network = NetworkConfig(self.hidden_sizes, self.activation, fused_mlp=self.fused_mlp)
        object.__setattr__(self, "hidden_sizes", network.hidden_sizes)


class Agent(NamedTuple):
    """A learner, and how what it learned is used."""

    learner: Learner
    policy: Callable[[Any, Observation, Key | None], Action]  # of learned state, as seen
    value: Callable[[Any, Observation], Array]
    parameters: Callable[[Any], PyTree]  # of learned state


def algorithm(
    name: str, env: Env, config: off_policy.Config, reset: ResetFactory, agent: Agent,
    hparams: Any, ranges: dict[str, door.Range],
) -> Algorithm:  # fmt: skip
    """The Algorithm of `agent` on `env`."""
    parts = off_policy.parts(env, config, arguments.starts(env, reset), agent.learner)
    init, step = off_policy.algorithm_functions(parts)

    def act(
        state: off_policy.State, carry: Any, observation: Observation, key: Key | None
    ) -> tuple[Action, Any]:
        view = normalize.seen(config, state, observation)
        return agent.policy(state.learned, view, key), carry

    def value(state: off_policy.State, observation: Observation) -> Array:
        return agent.value(state.learned, normalize.seen(config, state, observation))

    return Algorithm(
        init, step, act, config.steps_per_round * config.num_rounds, hparams, env, value,
        parameters=lambda state: agent.parameters(state.learned),
        check=functools.partial(door.ranges, allowed=ranges),
        recipe=Recipe(name, env, config, reset),
    )  # fmt: skip


def explored(config: Config, space: Box, action: Array, key: Key, steps: Array) -> Action:
    """`action` for the environment; before learning starts a random one. Consumes `key`."""
    other = jax.random.uniform(key, action.shape, minval=-1.0, maxval=1.0)
    action = jnp.where(steps < config.learning_starts, other, action)
    return distributions.to_environment(space, action)


class Trained(NamedTuple):
    """Variables of a network, of which "params" are trained, and the optimiser's state."""

    variables: Any
    optimizer: optax.OptState


def trained(variables: Any, optimizer: optax.GradientTransformation) -> Trained:
    """`variables` before the first step."""
    return Trained(variables, optimizer.init(variables["params"]))


def descend(
    state: Trained,
    loss: Callable[[Any], tuple[Array, Any]],
    optimizer: optax.GradientTransformation,
) -> tuple[Trained, Any]:
    """One step down `loss(variables) -> (loss, more)`; returns `more` too."""

    def of(params: Any) -> tuple[Array, Any]:
        return loss({**state.variables, "params": params})

    params = state.variables["params"]
    grads, more = jax.grad(of, has_aux=True)(params)
    updates, optimizer_state = optimizer.update(grads, state.optimizer, params)
    variables = {**state.variables, "params": optax.apply_updates(params, updates)}
    return Trained(variables, optimizer_state), more


def squared_error(values: Array, target: Array, weight: Array) -> Array:
    """Half the squared error of every member `[E, B]`, summed over members, mean over samples."""
    error = values - jax.lax.stop_gradient(target)[None]
    return 0.5 * (weight * jnp.square(error).sum(0)).mean()


def critic_metrics(values: Array, target: Array) -> tuple[Metrics, Array]:
    """Of values `[E, B]` before the step: metrics, and the mean size of the error `[B]`."""
    error = jnp.abs(values - target[None]).mean(0)
    metrics = {
        "critic_loss": fm.mean(jnp.square(values - target[None])),
        "q_value": fm.mean(values),
    }
    return metrics, error


def follow(target: Any, variables: Any, tau: Scalar) -> Any:
    """`target` moved by the share `tau` towards `variables`."""
    return optax.incremental_update(variables, target, tau)  # type: ignore[arg-type]


def every(
    period: int, count: Array, update: Callable[[PyTree], tuple[PyTree, Metrics]], state: PyTree
) -> tuple[PyTree, Metrics]:
    """`update(state)` at every `period`-th `count`, else `state` and metrics of nothing."""
    if period == 1:
        return update(state)
    nothing = fm.zeros_like(jax.eval_shape(update, state)[1])
    return jax.lax.cond(count % period == 0, update, lambda s: (s, nothing), state)
