"""A reward of its own for an agent that learns: a network that sees all of the agent's life.

"What Can Learned Intrinsic Rewards Capture?" (Zheng et al. 2020, arXiv:1912.05500).  A policy
gradient learns from rewards that a recurrent network gives it instead of the task's:

    r'_t = tanh(w [h_t, x_t]),   h_t = GRU(h_{t-1}, x_t),   x_t = [s_{t+1}, a_t, r_t, d_t]

with s_{t+1} what the step led to, r_t the task's reward and d_t whether the episode ended.  h goes
on from episode to episode and from update to update, as long as the agent lives: so the network
can know what was found before, and pay for what has not been tried.  What it is learned by is
`fastrl.meta.intrinsic_meta`.

The agent is `lpg_agent` with a hand-written rule.  It is given transitions with other rewards in
them, and does not know.  (The paper's rewards are bounded too; an input beside the recurrence is
ours.)

    reward = intrinsic.Reward(hidden_size=32).on(env)
    algorithm = intrinsic.make(env, objective=reward)
    hparams = intrinsic.HParams(objective=reward.init(key))

`fastrl.meta.save(run_dir, reward, parameters)` keeps one, and `objective=fastrl.meta.load(run_dir)`
is that reward with its parameters.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from fastrl import door
from fastrl import metrics as fm
from fastrl.meta import lpg_agent
from fastrl.meta.intrinsic_network import Reward, Sight, sight
from fastrl.meta.lpg_a2c import A2C
from fastrl.metrics import Metrics
from fastrl.types import (
    Algorithm,
    Env,
    Key,
    Observation,
    PyTree,
    Recipe,
    ResetFactory,
    Transition,
)


@dataclasses.dataclass(frozen=True)
class Config(lpg_agent.Config):
    """What shapes the program: the agent's, which an actor-critic teaches."""

    normalize: bool = False  # its advantages, over the rollout

    def __post_init__(self) -> None:
        super().__post_init__()
        door.flag("normalize", self.normalize)


class HParams(NamedTuple):
    """Traced numbers: another value compiles nothing."""

    agent: lpg_agent.HParams = lpg_agent.HParams()  # its `objective` are numbers of its rule
    objective: Any = ()  # parameters of the reward; (): a loaded one's own, else the task's reward


class State(NamedTuple):
    """All there is to go on with."""

    agent: lpg_agent.State
    memory: PyTree  # of the reward's network, leaves [N, H]


class Learner(NamedTuple):
    """The Algorithm, and the pieces of its `step` for those who look inside."""

    algorithm: Algorithm[HParams, State]
    reward: Any  # a `Reward` with its `input_size`, or a loaded one
    sight: Sight
    # (state, task) -> (state, Transition [T, N], metrics): a rollout of the policy
    collect: Callable[[State, Any], tuple[State, Transition, Metrics]]
    # (state, Transition, hparams) -> (state, metrics): an update with the learned reward
    learn: Callable[[State, Transition, HParams], tuple[State, Metrics]]
    policy: Callable[[State, Observation], Any]


def make(
    env: Env, config: Config = Config(), *, objective: Any = None,
    reset: ResetFactory | None = None,
) -> Algorithm[HParams, State]:  # fmt: skip
    """An agent of `lpg_agent` whose reward is that of `objective`, with `hparams.objective`.

    `objective` is a `Reward` or a loaded one; by default a `Reward()`, with the task's own reward
    as long as `hparams.objective` is ().
    Raises TypeError or ValueError for what does not fit, before anything is compiled.
    """
    return learner(env, config, objective=objective, reset=reset).algorithm


def learner(
    env: Env, config: Config = Config(), *, objective: Any = None,
    reset: ResetFactory | None = None,
) -> Learner:  # fmt: skip
    """The same with its pieces. Equal arguments give the same Learner: nothing compiles twice."""
    door.record("config", config, Config)
    agent = lpg_agent.agent(env, config, objective=A2C(config.normalize), reset=reset)
    if objective is None:
        return _learner(agent, env, config, Reward().on(env), None)
    if not all(callable(getattr(objective, n, None)) for n in ("on", "initial_memory", "unroll")):
        raise TypeError(
            f"objective={objective!r} is no reward: pass an intrinsic.Reward, or what "
            "fastrl.meta.load gives for the folder of one"
        )
    fitting = objective.on(env)
    reward = objective if objective.input_size else fitting
    return _learner(agent, env, config, reward, reward)


@functools.lru_cache(maxsize=64)
def _learner(agent: lpg_agent.Agent, env: Env, config: Config, reward: Any, given: Any) -> Learner:
    seen = sight(env)

    def init(key: Key, hparams: HParams, task: Any) -> State:
        state = agent.algorithm.init(key, hparams.agent, task)
        return State(state, reward.initial_memory(config.num_envs))

    def collect(state: State, task: Any) -> tuple[State, Transition, Metrics]:
        key, rollout_key = jax.random.split(state.agent.key)
        after, t, metrics = agent.collect(rollout_key, state.agent._replace(key=key), task)
        return state._replace(agent=after), t, metrics

    def learn(state: State, t: Transition, hparams: HParams) -> tuple[State, Metrics]:
        memory, own = reward.unroll(hparams.objective, state.memory, seen.inputs(t), t.reward)
        after, _, metrics = agent.update(state.agent, t._replace(reward=own), hparams.agent)
        told = {"reward": t.reward, "learned_reward": own}
        told = {name: fm.mean(jax.lax.stop_gradient(x)) for name, x in told.items()}
        return State(after, memory), metrics | told

    def step(state: State, hparams: HParams, task: Any) -> tuple[State, Metrics]:
        state, t, metrics = collect(state, task)
        state, update_metrics = learn(state, t, hparams)
        return state, metrics | update_metrics

    recipe: Any = agent.algorithm.recipe
    algorithm = Algorithm(
        init, step, lambda state, *rest: agent.algorithm.act(state.agent, *rest),
        agent.algorithm.steps_per_iteration, HParams(), env,
        parameters=lambda state: state.agent.params,
        check=lambda hparams: agent.algorithm.check(hparams.agent),
        recipe=Recipe("intrinsic", env, config, recipe.reset, given),
    )  # fmt: skip
    policy = lambda state, x: agent.policy(state.agent, x)  # noqa: E731
    return Learner(algorithm, reward, seen, collect, learn, policy)
