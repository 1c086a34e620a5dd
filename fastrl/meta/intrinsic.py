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
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from fastrl import door, networks, spaces
from fastrl import metrics as fm
from fastrl.cells import Gru, MemoryConfig
from fastrl.meta import lpg_agent
from fastrl.meta.lpg_a2c import A2C
from fastrl.meta.lpg_types import Rule
from fastrl.metrics import Metrics
from fastrl.types import Algorithm, Array, Env, Key, Observation, PyTree, ResetFactory, Transition

_PLAIN = A2C(normalize=False)
_AGENT = lpg_agent.Config()


@dataclasses.dataclass(frozen=True)
class Reward:
    """The shape of the network, and what its reward is added to."""

    hidden_size: int = 32
    task_share: float = 0.0  # of the task's reward; the paper's agents see none of it

    def __post_init__(self) -> None:
        door.integer("hidden_size", self.hidden_size, 1)
        door.number("task_share", self.task_share, 0.0)


class HParams(NamedTuple):
    """Traced numbers: another value compiles nothing."""

    agent: lpg_agent.HParams = lpg_agent.HParams()  # its `objective` are numbers of its rule
    objective: Any = ()  # parameters of the reward; () is the task's own reward


class State(NamedTuple):
    """All there is to go on with."""

    agent: lpg_agent.State
    memory: PyTree  # of the reward's network, leaves [N, H]


class Network(NamedTuple):
    """The reward of a life under way."""

    init: Callable[[Key], PyTree]
    initial_memory: Callable[[int], PyTree]  # num_envs -> leaves [N, H]
    # (eta, memory, x [T, N, D], task's reward [T, N]) -> memory, reward [T, N]
    unroll: Callable[[PyTree, PyTree, Array, Array], tuple[PyTree, Array]]


class Learner(NamedTuple):
    """The Algorithm, and the pieces of its `step` for those who look inside."""

    algorithm: Algorithm[HParams, State]
    network: Network
    encode: Callable[[Observation], Array]  # [..., *] -> [..., E]: what the agent sees
    inputs: Callable[[Transition], Array]  # [T, N, ...] -> x [T, N, D]
    # (state, task) -> (state, Transition [T, N], metrics): a rollout of the policy
    collect: Callable[[State, Any], tuple[State, Transition, Metrics]]
    # (state, Transition, hparams) -> (state, metrics): an update with the learned reward
    learn: Callable[[State, Transition, HParams], tuple[State, Metrics]]
    policy: Callable[[State, Observation], Any]


def make(
    env: Env, config: lpg_agent.Config = _AGENT, *, reward: Reward = Reward(),
    rule: Rule = _PLAIN, reset: ResetFactory | None = None,
) -> Algorithm[HParams, State]:  # fmt: skip
    """An agent of `lpg_agent` by `rule`, whose reward is that of `hparams.objective`.

    Raises TypeError or ValueError for what does not fit, before anything is compiled.
    """
    return learner(env, config, reward=reward, rule=rule, reset=reset).algorithm


def learner(
    env: Env, config: lpg_agent.Config = _AGENT, *, reward: Reward = Reward(),
    rule: Rule = _PLAIN, reset: ResetFactory | None = None,
) -> Learner:  # fmt: skip
    """The same with its pieces. Equal arguments give the same Learner: nothing compiles twice."""
    door.record("reward", reward, Reward)
    agent = lpg_agent.agent(env, config, objective=rule, reset=reset)
    return _learner(agent, env, config, reward)


@functools.lru_cache(maxsize=64)
def _learner(agent: lpg_agent.Agent, env: Env, config: lpg_agent.Config, reward: Reward) -> Learner:
    task = env.default_params()
    encode = networks.encoder(networks.split_views(env.observation_space(task))[0])
    of_action = networks.encoder(env.action_space(task))

    def see(observation: Observation) -> Array:
        return encode(networks.split_views(observation)[0])

    def inputs(t: Transition) -> Array:
        done = (t.terminated | t.truncated).astype(t.reward.dtype)
        parts = see(t.next_observation), of_action(t.action), t.reward[..., None], done[..., None]
        return jnp.concatenate(parts, axis=-1)

    network = _network(env, inputs, reward)

    def init(key: Key, hparams: HParams, task: Any) -> State:
        state = agent.algorithm.init(key, hparams.agent, task)
        return State(state, network.initial_memory(config.num_envs))

    def collect(state: State, task: Any) -> tuple[State, Transition, Metrics]:
        key, rollout_key = jax.random.split(state.agent.key)
        after, t, metrics = agent.collect(rollout_key, state.agent._replace(key=key), task)
        return state._replace(agent=after), t, metrics

    def learn(state: State, t: Transition, hparams: HParams) -> tuple[State, Metrics]:
        memory, own = state.memory, t.reward
        if jax.tree.leaves(hparams.objective):
            memory, own = network.unroll(hparams.objective, memory, inputs(t), t.reward)
        after, _, metrics = agent.update(state.agent, t._replace(reward=own), hparams.agent)
        told = {"reward": t.reward, "learned_reward": own}
        told = {name: fm.mean(jax.lax.stop_gradient(x)) for name, x in told.items()}
        return State(after, memory), metrics | told

    def step(state: State, hparams: HParams, task: Any) -> tuple[State, Metrics]:
        state, t, metrics = collect(state, task)
        state, update_metrics = learn(state, t, hparams)
        return state, metrics | update_metrics

    algorithm = Algorithm(
        init, step, lambda state, *rest: agent.algorithm.act(state.agent, *rest),
        agent.algorithm.steps_per_iteration, HParams(), env,
        parameters=lambda state: state.agent.params,
        check=lambda hparams: agent.algorithm.check(hparams.agent),
    )  # fmt: skip
    policy = lambda state, x: agent.policy(state.agent, x)  # noqa: E731
    return Learner(algorithm, network, see, inputs, collect, learn, policy)


class _Reward(nn.Module):
    """`tanh(w [h, x])` for every step, after it."""

    config: MemoryConfig

    @nn.compact
    def __call__(self, memory: PyTree, x: Array) -> tuple[PyTree, Array]:
        going = jnp.zeros(x.shape[:-1], bool)
        memory, h = Gru(self.config, name="memory")(memory, x, going)
        small = nn.initializers.normal(0.01)
        own = nn.Dense(1, kernel_init=small, name="head")(h)
        direct = nn.Dense(1, use_bias=False, kernel_init=small, name="direct")(x)
        return memory, jnp.tanh((own + direct)[..., 0])


def _network(env: Env, inputs: Callable[[Transition], Array], reward: Reward) -> Network:
    config = MemoryConfig("gru", reward.hidden_size)
    module, width = _Reward(config), input_size(env, inputs)
    apply: Callable[..., Any] = module.apply

    def init(key: Key) -> PyTree:
        return module.init(key, config.initial_carry((1,)), jnp.zeros((1, 1, width)))

    def unroll(eta: PyTree, memory: PyTree, x: Array, task: Array) -> tuple[PyTree, Array]:
        memory, own = apply(eta, memory, x)
        return memory, own + reward.task_share * task

    return Network(init, lambda n: config.initial_carry((n,)), unroll)


def input_size(env: Env, inputs: Callable[[Transition], Array]) -> int:
    """D: entries of `inputs` of one step."""
    task, one = env.default_params(), (1, 1)
    seen = spaces.zeros(env.observation_space(task), one)
    action = spaces.zeros(env.action_space(task), one)
    no = jnp.zeros(one, bool)
    return inputs(Transition(seen, action, jnp.zeros(one), no, no, seen)).shape[-1]
