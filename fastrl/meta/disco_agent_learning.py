"""How an agent of `disco_agent` learns: rollouts, which of them it takes, a step on these."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from fastrl import buffers
from fastrl import metrics as fm
from fastrl.buffers import ring
from fastrl.meta import lpg_optimizer
from fastrl.meta.disco import Inputs
from fastrl.meta.disco_agent_network import Network
from fastrl.meta.lpg_agent import ROLLOUT
from fastrl.meta.lpg_types import Regularisers
from fastrl.metrics import Metrics
from fastrl.types import Array, Key, PyTree, Transition
from fastrl.vec import VecEnv, VecState, rollout


class Seen(NamedTuple):
    """A rollout and the log-probabilities of its policy, `[T, N, ...]`."""

    transition: Transition
    behaviour: Array  # [T, N, A]


class State(NamedTuple):
    """All there is to go on with."""

    key: Key
    params: PyTree
    target: PyTree  # parameters of the target network
    optimizer: Any
    memory: PyTree  # of the rule
    buffer: Any  # rollouts `[L, N, T, ...]`; () without
    env: VecState


class Parts(NamedTuple):
    """What is closed over."""

    config: Any
    rule: Any
    network: Network
    vec_env: VecEnv
    buffer: buffers.Buffer | None


def advance(
    parts: Parts, state: State, hparams: Any, task: Any
) -> tuple[State, Transition, Regularisers, Metrics]:
    """One iteration; differentiable in `hparams.objective` and the parameters.

    Returns the state, the newest rollout `[T, N]`, and of the update regularisers and metrics.
    """
    key, rollout_key, draw_key = jax.random.split(state.key, 3)
    state, seen, metrics = collect(parts, rollout_key, state._replace(key=key), task)
    if parts.buffer is None:
        after, regularisers, told = _update(parts, state, seen, hparams)
        return after, seen.transition, regularisers, metrics | told
    block = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1)[None], seen)
    state = state._replace(buffer=parts.buffer.add(state.buffer, block))
    size = parts.config.batch_size
    draw = parts.buffer.sample(state.buffer, draw_key, size)
    batch = ring.take(state.buffer.items, draw.row, draw.env)
    batch = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), batch)
    after, regularisers, told = _update(parts, state, batch, hparams)
    enough = state.buffer.size * parts.config.num_envs >= size
    learned = lambda s: (s.params, s.target, s.optimizer, s.memory)  # noqa: E731
    pick = lambda a, b: jnp.where(enough, a, b)  # noqa: E731
    kept = jax.tree.map(pick, learned(after), learned(state))
    names = ("params", "target", "optimizer", "memory")
    state = state._replace(**dict(zip(names, kept, strict=True)))
    return state, seen.transition, regularisers, metrics | told


def collect(parts: Parts, key: Key, state: State, task: Any) -> tuple[State, Seen, Metrics]:
    """A rollout of the policy, which nothing is differentiated through."""
    params = jax.lax.stop_gradient(state.params)

    def policy(key: Key, observation: Any) -> tuple[Array, Array]:
        said: Any = parts.network.policy(params, observation)
        return said.sample(key), said.log_p

    env, seen, metrics = rollout(
        parts.vec_env, policy, key, state.env, task, parts.config.num_steps, keep=Seen
    )
    return state._replace(env=env), checkpoint_name(seen, ROLLOUT), metrics


def _update(
    parts: Parts, state: State, seen: Seen, hparams: Any
) -> tuple[State, Regularisers, Metrics]:
    """One step on the rule's loss."""
    rule, eta, (t, behaviour), apply = parts.rule, hparams.objective, seen, parts.network.apply
    see = lambda params: apply(params, t.observation)  # noqa: E731
    outputs, pull_back = jax.vjp(see, state.params)
    inputs = Inputs(
        t.action, t.reward, t.terminated, t.truncated, outputs,
        apply(state.params, t.next_observation), see(state.target),
        apply(state.target, t.next_observation), behaviour, hparams.gamma, hparams.td_lambda,
    )  # fmt: skip
    targets, memory = rule.targets(eta, state.memory, inputs)

    def loss(outputs: Any) -> tuple[Array, dict[str, Array]]:
        each, reported = rule.loss(eta, outputs, inputs, targets, hparams.weights)
        return each.mean(), reported

    errors, reported = jax.grad(loss, has_aux=True)(outputs)
    (gradient,) = pull_back(errors)
    optimizer, params = _stepped(state, gradient, hparams)
    mix = lambda old, new: hparams.target_decay * old + (1.0 - hparams.target_decay) * new  # noqa: E731
    target = jax.tree.map(mix, state.target, state.params)
    regularisers = rule.regularisers(see(params), targets)
    reported = reported | {"entropy": regularisers.policy_entropy}
    metrics = {name: fm.mean(jax.lax.stop_gradient(x)) for name, x in reported.items()}
    state = state._replace(params=params, target=target, optimizer=optimizer, memory=memory)
    return state, regularisers, metrics


def _stepped(state: State, gradient: PyTree, hparams: Any) -> tuple[Any, PyTree]:
    """Adam, with each entry of its step clipped."""
    adam = lpg_optimizer.optimizer("adam")
    zeros = jax.tree.map(jnp.zeros_like, state.params)
    optimizer, move = adam.apply(state.optimizer, zeros, gradient, 1.0)
    limit, rate = hparams.max_update, hparams.learning_rate
    step = lambda p, m: p + rate * jnp.clip(m, -limit, limit)  # noqa: E731
    return optimizer, jax.tree.map(step, state.params, move)
