"""What Stream Q(lambda) and Stream SARSA(lambda) share: a network of action values, its numbers."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fastrl import door, optim
from fastrl.q_network import allowed
from fastrl.streaming import config as configs
from fastrl.streaming import optimizers
from fastrl.streaming.config import Config, Numbers
from fastrl.streaming.networks import Network
from fastrl.streaming.stream import Outcome, Parts, Stream
from fastrl.types import Action, Array, Key, Observation, PyTree, Scalar


class HParams(NamedTuple):
    """Traced numbers: another value compiles nothing."""

    gamma: Scalar = 0.99  # discount
    trace_decay: Scalar = 0.8  # lambda
    epsilon: Scalar = 1.0  # chance of a random action at the start
    final_epsilon: Scalar = 0.01
    exploration_steps: Scalar = 25_000  # actions from the first epsilon to the last
    learning_rate: Scalar = 1.0  # alpha of (adaptive) ObGD: it cancels where the bound is active
    kappa: Scalar = 2.0  # of (adaptive) ObGD
    step_size: Scalar = 3e-4  # of the streaming optimiser: no weight moves further
    eta: Scalar = 0.25  # of intentional updates: the share of the error that is removed
    second_decay: Scalar = 0.999  # of adaptive ObGD and intentional updates
    peak_decay: Scalar = 0.99995  # of the streaming optimiser
    clip: Scalar = 20.0  # of intentional updates, in deviations of the error
    clip_decay: Scalar = 0.9998  # of the running mean that says what one is
    time_limit: Scalar = 10_000.0  # steps in which the time feature grows by 1


RANGES = configs.RANGES | {
    "epsilon": door.Range(0.0, 1.0), "final_epsilon": door.Range(0.0, 1.0),
    "exploration_steps": door.Range(0.0, open=True), "learning_rate": door.Range(0.0),
    "kappa": door.Range(0.0), "step_size": door.Range(0.0), "eta": door.Range(0.0),
}  # fmt: skip


class Learner(NamedTuple):
    """What is closed over."""

    stream: Parts
    network: Network

    def values(self, params: PyTree, x: Array, observation: Observation) -> Array:
        """`[A]`; of actions that are masked out, far below all."""
        return allowed(observation, self.network.apply(params, x)[0])

    def linearized(self, params: PyTree, stream: Stream) -> tuple[Array, Callable[[Array], PyTree]]:
        """The values now, and the function from an action to the gradient of its value."""
        outputs, pullback = jax.vjp(lambda p: self.network.apply(p, stream.x)[0], params)

        def gradient(action: Array) -> PyTree:
            return pullback(jax.nn.one_hot(action, outputs.shape[0], dtype=outputs.dtype))[0]

        return allowed(stream.observation, outputs), gradient

    def act(
        self, state: Any, carry: PyTree, observation: Observation, key: Key | None
    ) -> tuple[Action, PyTree]:
        """The best action, as `Algorithm.act` has it."""
        best = lambda x, o: jnp.argmax(self.values(state.params, x, o))  # noqa: E731
        action, carry = self.stream.act_on(best, state, carry, observation)
        return action.astype(jnp.int32), carry

    def value(self, state: Any, observation: Observation) -> Array:
        """What the best action is worth, in units of scaled reward, `[...]`; as at a first step."""
        best = lambda x, o: self.values(state.params, x, o).max()  # noqa: E731
        return self.stream.first(best, state, observation)


def epsilon(hparams: HParams, selections: Array) -> Array:
    """The chance of a random action; the first selection is number 1."""
    progress = selections.astype(jnp.float32) / hparams.exploration_steps
    return optim.linear(hparams.epsilon, hparams.final_epsilon, progress)


def optimizer(config: Config, hparams: HParams) -> optimizers.Optimizer:
    numbers = Numbers(hparams.learning_rate, hparams.kappa, hparams.step_size, hparams.eta)
    return configs.optimizer(config, hparams, numbers)


def updated(
    config: Config, hparams: HParams, params: PyTree, trace: PyTree, gradient: PyTree, delta: Array,
    outcome: Outcome, cut: Array | bool = False,
) -> tuple[PyTree, PyTree]:  # fmt: skip
    """Parameters and optimiser after an update; the trace is cleared at ends and where `cut`."""
    updates, trace = optimizer(config, hparams).update(gradient, trace, delta)
    return optimizers.apply(params, updates), optimizers.cleared(trace, outcome.clears | cut)
