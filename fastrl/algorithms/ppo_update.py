"""The update of PPO, with memory and without: its loss, and passes of minibatches down it."""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax

from fastrl import metrics as fm
from fastrl import normalize, objectives, optim
from fastrl.algorithms import agent as agents
from fastrl.algorithms import minibatches
from fastrl.algorithms.on_policy import Sample
from fastrl.distributions import Distribution
from fastrl.metrics import Metrics
from fastrl.objectives import Objective
from fastrl.types import Array, PyTree

# (params, minibatch) -> the network's policy and values on it, and its samples
Outputs = Callable[[PyTree, Any], tuple[Distribution, Array, Sample]]


class LearnerState(Protocol):
    """What the state of a learner has."""

    @property
    def params(self) -> PyTree: ...
    @property
    def optimizer(self) -> optax.OptState: ...
    @property
    def iteration(self) -> Array: ...


def update(
    objective: Objective, config: Any, outputs: Outputs, batch_of: Callable[[Array], Any],
    rows: Array, state: LearnerState, samples: Sample, hparams: Any, stop_on_kl: bool = False,
    adam: Callable[..., optim.Optimizer] = optim.adam,
) -> tuple[PyTree, optax.OptState, Metrics]:  # fmt: skip
    """Steps down the loss of `batch_of(row)` for each of `rows`, of all `samples` `[...]`.

    With `stop_on_kl` no more of them once the policy has moved by more than `hparams.target_kl`
    from the one that acted.  `config` is that of `ppo` or of a learner with the same fields;
    `adam` is one of `fastrl.optim`.
    """
    steps = state.iteration.astype(jnp.float32) * (config.num_envs * config.num_steps)
    progress = steps / hparams.anneal_steps
    rate = optim.linear(hparams.learning_rate, hparams.final_learning_rate, progress)

    def loss_of(params: PyTree, batch: Any) -> tuple[Array, Metrics]:
        normalized = config.normalize_advantage
        return loss(objective, normalized, hparams, progress, *outputs(params, batch))

    step = minibatches.update(adam(rate, hparams.max_grad_norm), loss_of, batch_of)
    start = state.params, state.optimizer
    if stop_on_kl:
        end, metrics = minibatches.descend_until(
            step, start, rows, "approximate_kl", hparams.target_kl
        )
    else:
        end, metrics = minibatches.descend(step, start, rows)
    explained = agents.explained_variance(samples.value, samples.target)
    return *end, metrics | {"explained_variance": fm.mean(explained)}


def loss(
    objective: Objective, normalize_advantage: bool, hparams: Any, progress: Array,
    policy: Distribution, value: Array, batch: Sample,
) -> tuple[Array, Metrics]:  # fmt: skip
    """Policy, value and entropy loss of samples `[...]` with the network's outputs on them."""
    log_prob, entropy = policy.log_prob(batch.action), policy.entropy()
    advantage = batch.advantage
    if normalize_advantage:
        advantage = normalize.standardised(advantage)
    inputs = objectives.Inputs(
        log_prob, batch.log_prob, advantage, entropy, batch.reward, batch.terminated,
        batch.truncated, progress,
    )  # fmt: skip
    policy_loss, reported = objective(hparams.objective, inputs, hparams)
    near = batch.value + jnp.clip(value - batch.value, -hparams.value_clip, hparams.value_clip)
    value_loss = 0.5 * jnp.maximum((value - batch.target) ** 2, (near - batch.target) ** 2)
    total = (
        policy_loss.mean()
        + hparams.value_coefficient * value_loss.mean()
        - hparams.entropy_coefficient * entropy.mean()
    )
    log_ratio = log_prob - batch.log_prob
    metrics = reported | {
        "loss": total,
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "entropy": entropy,
        "approximate_kl": jnp.expm1(log_ratio) - log_ratio,  # Schulman's unbiased estimate
    }
    return total, {name: fm.mean(jax.lax.stop_gradient(x)) for name, x in metrics.items()}
