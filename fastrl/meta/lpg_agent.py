"""An agent that learns by a rule that makes targets: LPG's inner loop, as an Algorithm.

An iteration is a rollout of `num_steps` steps of `num_envs` environments and one step of
gradient descent on the rule's loss (`fastrl.meta.lpg_types.Rule`) with the rule's targets as
constants.  The rule's parameters are `hparams.objective`; the agent does not know whether they
are differentiated, perturbed by an evolution strategy, or constant.

Defaults are GROOVE's for tables (Jackson et al. 2023, arXiv:2310.02782, table 2): plain gradient
descent with rate 40 for the policy and 4 for the other outputs, each clipped to norm 0.5, 64
environments, 20 steps.  Networks (`hidden_sizes`) want Adam with rates of 5e-4 to 1e-3.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from fastrl import door
from fastrl import metrics as fm
from fastrl import reset as resets
from fastrl.meta import lpg_network, lpg_optimizer
from fastrl.meta.lpg_a2c import A2C
from fastrl.meta.lpg_network import POLICY, Network
from fastrl.meta.lpg_types import Inputs, Regularisers, Rule
from fastrl.metrics import Metrics
from fastrl.networks import Activation, NetworkConfig
from fastrl.types import (
    Algorithm,
    Array,
    Env,
    Key,
    PyTree,
    Recipe,
    ResetFactory,
    Scalar,
    Transition,
)
from fastrl.vec import VecEnv, VecState, rollout

ROLLOUT = "agent_rollout"  # the name of rollouts, for the policies of `jax.checkpoint`
_A2C = A2C()
_LONG = 1e6  # updates of a lifetime without an end, as the rule sees it


@dataclasses.dataclass(frozen=True)
class Config:
    """What shapes the program. An iteration takes `num_envs * num_steps` environment steps."""

    num_envs: int = 64
    num_steps: int = 20  # of every environment, per gradient step
    hidden_sizes: tuple[int, ...] = ()  # none: a table, or a linear map
    activation: Activation = "relu"
    optimizer: lpg_optimizer.Name = "sgd"

    def __post_init__(self) -> None:
        for name in ("num_envs", "num_steps"):
            door.integer(name, getattr(self, name), 1)
        door.choice("optimizer", self.optimizer, lpg_optimizer.NAMES)
        shape = NetworkConfig(self.hidden_sizes, self.activation)
        object.__setattr__(self, "hidden_sizes", shape.hidden_sizes)


class HParams(NamedTuple):
    """Traced numbers: another value compiles nothing."""

    learning_rate: Scalar = 40.0  # of the policy
    head_learning_rate: Scalar = 4.0  # of the other outputs
    max_grad_norm: Scalar = 0.5  # of each output by itself
    prediction_weight: Scalar = 0.5  # alpha: of the loss of the other outputs
    anneal_steps: Scalar = float("inf")  # environment steps of the lifetime that rules see
    objective: Any = ()  # parameters of the rule


RANGES = {
    "learning_rate": door.Range(0.0), "head_learning_rate": door.Range(0.0),
    "max_grad_norm": door.Range(0.0, open=True), "prediction_weight": door.Range(0.0),
    "anneal_steps": door.Range(0.0, open=True),
}  # fmt: skip


class State(NamedTuple):
    """All there is to go on with."""

    key: Key
    params: dict[str, PyTree]  # by output
    optimizer: dict[str, Any]
    memory: PyTree  # of the rule
    env: VecState
    iteration: Array  # updates so far


class Agent(NamedTuple):
    """The Algorithm, and the pieces of its `step` for those who look inside."""

    algorithm: Algorithm
    # (key, state, task) -> (state, Transition [T, N], metrics): a rollout of the policy
    collect: Any
    # (state, Transition, hparams) -> (state, Regularisers, metrics): what is learned from it
    update: Any
    policy: Any  # (state, observation) -> Distribution


def make(
    env: Env, config: Config = Config(), *, objective: Rule = _A2C,
    reset: ResetFactory | None = None,
) -> Algorithm[HParams, State]:  # fmt: skip
    """An agent that learns on `env` by the rule `objective`, with discrete actions.

        rule = lpg.LPG()
        algorithm = lpg_agent.make(env, objective=rule)
        hparams = lpg_agent.HParams(objective=rule.init(key))

    Raises TypeError or ValueError for what does not fit, before anything is compiled.
    """
    return agent(env, config, objective=objective, reset=reset).algorithm


def agent(
    env: Env, config: Config = Config(), *, objective: Rule = _A2C,
    reset: ResetFactory | None = None,
) -> Agent:  # fmt: skip
    """The same with its pieces. Equal arguments give the same Agent: nothing compiles twice."""
    door.environment(env)
    door.record("config", config, Config)
    for name in ("init", "targets", "loss"):
        door.function(f"objective.{name}", getattr(objective, name, None), f"lpg.LPG().{name}")
    return _make(env, config, objective, reset or resets.default(env))


@functools.lru_cache(maxsize=256)
def _make(env: Env, config: Config, rule: Rule, reset: ResetFactory) -> Agent:
    task = env.default_params()
    network = lpg_network.network(
        env.observation_space(task), env.action_space(task), rule.heads,
        config.hidden_sizes, config.activation,
    )  # fmt: skip
    parts = _Parts(
        config, rule, network, VecEnv(env, config.num_envs, reset(env)),
        lpg_optimizer.optimizer(config.optimizer),
    )  # fmt: skip
    collect = functools.partial(_collect, parts)
    update = functools.partial(_update, parts)

    def step(state: State, hparams: HParams, task: Any) -> tuple[State, Metrics]:
        key, rollout_key = jax.random.split(state.key)
        state, transitions, metrics = collect(rollout_key, state._replace(key=key), task)
        state, _, update_metrics = update(state, transitions, hparams)
        return state, metrics | update_metrics

    def act(state: State, carry: Any, observation: Any, key: Key | None) -> tuple[Array, Any]:
        policy = network.policy(state.params, observation)
        return policy.mode() if key is None else policy.sample(key), carry

    algorithm = Algorithm(
        functools.partial(_init, parts), step, act, config.num_envs * config.num_steps,
        HParams(), env,
        parameters=lambda state: state.params,
        check=functools.partial(door.ranges, allowed=RANGES),
        recipe=Recipe("lpg_agent", env, config, reset, rule),
    )  # fmt: skip
    return Agent(algorithm, collect, update, lambda s, o: network.policy(s.params, o))


class _Parts(NamedTuple):
    """What is closed over."""

    config: Config
    rule: Rule
    network: Network
    vec_env: VecEnv
    optimizer: lpg_optimizer.Optimizer


def _init(parts: _Parts, key: Key, hparams: HParams, task: Any) -> State:
    key, network_key, env_key = jax.random.split(key, 3)
    params = parts.network.init(network_key)
    optimizer = {name: parts.optimizer.init(p) for name, p in params.items()}
    memory = parts.rule.memory(hparams.objective, params)
    return State(key, params, optimizer, memory, parts.vec_env.init(env_key, task), jnp.int32(0))


def _collect(parts: _Parts, key: Key, state: State, task: Any) -> tuple[State, Transition, Metrics]:
    """A rollout `[T, N]` of the policy, which nothing is differentiated through."""
    params = jax.lax.stop_gradient(state.params)

    def policy(key: Key, observation: Any) -> tuple[Array, Any]:
        return parts.network.policy(params, observation).sample(key), ()

    env, transitions, metrics = rollout(
        parts.vec_env, policy, key, state.env, task, parts.config.num_steps,
        keep=lambda transition, _: transition,
    )  # fmt: skip
    return state._replace(env=env), checkpoint_name(transitions, ROLLOUT), metrics


def _update(
    parts: _Parts, state: State, transitions: Transition, hparams: HParams
) -> tuple[State, Regularisers, Metrics]:
    """One step on the rule's loss; differentiable in `hparams.objective` and the parameters."""
    rule, eta, t = parts.rule, hparams.objective, transitions
    see = lambda params: parts.network.apply(params, t.observation)  # noqa: E731
    outputs, pull_back = jax.vjp(see, state.params)
    lifetime = hparams.anneal_steps / (parts.config.num_envs * parts.config.num_steps)
    inputs = Inputs(
        t.action, t.reward, t.terminated, t.truncated, outputs,
        parts.network.apply(state.params, t.next_observation),
        state.iteration / lifetime, jnp.clip(lifetime, 1.0, _LONG),
    )  # fmt: skip
    targets, memory = rule.targets(eta, state.memory, inputs)

    def loss(outputs: Any) -> tuple[Array, dict[str, Array]]:
        each, reported = rule.loss(eta, outputs, inputs, targets, hparams.prediction_weight)
        return each.mean(), reported

    errors, reported = jax.grad(loss, has_aux=True)(outputs)
    (gradient,) = pull_back(errors)
    optimizer, params = _descended(parts, state, gradient, hparams)
    regularisers = rule.regularisers(see(params), targets)
    reported = reported | {
        "entropy": regularisers.policy_entropy, "policy_target": regularisers.policy_target,
    }  # fmt: skip
    metrics = {name: fm.mean(jax.lax.stop_gradient(x)) for name, x in reported.items()}
    state = state._replace(
        params=params, optimizer=optimizer, memory=memory, iteration=state.iteration + 1
    )
    return state, regularisers, metrics


def _descended(
    parts: _Parts, state: State, gradient: dict[str, PyTree], hparams: HParams
) -> tuple[dict[str, Any], dict[str, PyTree]]:
    """Every output's parameters after a step of its own."""
    optimizers, params = {}, {}
    for name, own in gradient.items():
        rate = hparams.learning_rate if name == POLICY else hparams.head_learning_rate
        optimizers[name], params[name] = parts.optimizer.apply(
            state.optimizer[name], state.params[name],
            lpg_optimizer.clipped(own, hparams.max_grad_norm), rate,
        )  # fmt: skip
    return optimizers, params
