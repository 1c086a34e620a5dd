"""ReLIC: PPO on long rollouts, all of which the policy can look back on (Elawady et al. 2024).

"ReLIC: A Recipe for 64k Steps of In-Context Reinforcement Learning for Embodied AI",
arXiv:2410.02751; what the paper leaves open is as in the released code.  It is `ppo_memory` with a
transformer and three changes:

* the context is the rollout: nothing before it is remembered, and of `num_steps` steps all, or the
  newest `window`, are attended to;
* **partial updates**: a rollout is made in `num_updates` pieces, with an update after each.  The
  loss of all but the last update is that of the newest piece alone; the steps before it are
  context, through which the gradient goes.  After such an update the memory and the values of all
  steps so far are computed anew with the new parameters.  The last update is a full one, on all;
* **sink keys and values** in every attention (`fastrl.transformer`).

Advantages of a piece come from the rewards up to its end and the value there; those of the full
update from the whole rollout.  Ratios are to the policy that acted at the time.

What rollouts should hold are lives (`fastrl.meta.rl2`) of `num_steps` steps or a divisor: one that
goes on beyond its rollout goes on without memory.  With one update, no sinks, and lives that end
with the rollout, this is `ppo_memory`.
"""

import dataclasses
import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fastrl import arguments, door, memory, normalize, objectives, returns, sharding, storage
from fastrl import metrics as fm
from fastrl.algorithms import agent as agents
from fastrl.algorithms import minibatches, ppo_memory, ppo_update, recurrent
from fastrl.algorithms.on_policy import Sample
from fastrl.algorithms.ppo import HParams
from fastrl.algorithms.recurrent import Remembered, Trajectories
from fastrl.memory import Recurrent
from fastrl.metrics import Metrics
from fastrl.networks import Activation
from fastrl.objectives import Objective
from fastrl.spaces import Space
from fastrl.types import Algorithm, Array, Env, Key, Observation, PyTree, Recipe, ResetFactory
from fastrl.vec import VecEnv, VecState

__all__ = ["Config", "HParams", "State", "make"]


@dataclasses.dataclass(frozen=True)
class Config:
    """What shapes the program. An iteration takes `num_envs * num_steps` environment steps."""

    num_envs: int = 32
    num_steps: int = 128  # of a rollout: as far as the policy looks back
    num_updates: int = 4  # in a rollout: the last on all of it, the others on what is new
    num_epochs: int = 4  # passes of an update
    num_minibatches: int = 4  # per pass, of whole environments
    memory_size: int = 64
    window: int = 0  # how many entries are remembered; 0: all of the rollout
    heads: int = 2
    layers: int = 2
    sinks: int = 1  # learned keys and values of each head
    hidden_sizes: tuple[int, ...] = (64,)  # before the transformer
    activation: Activation = "tanh"
    torso: Literal["mlp", "conv"] = "mlp"
    shared_torso: bool = True  # one torso and memory for policy and value
    normalize_observation: bool = False  # by running mean and variance
    normalize_reward: bool = False  # by the running std of the discounted return
    normalize_advantage: bool = True  # per minibatch

    def __post_init__(self) -> None:
        door.integer("num_updates", self.num_updates, 1)
        door.integer("window", self.window, 0)
        object.__setattr__(self, "hidden_sizes", self.learner.hidden_sizes)
        if self.num_steps % self.num_updates:
            raise ValueError(
                f"num_steps={self.num_steps} is not divisible by num_updates={self.num_updates}: "
                "a rollout is made in as many pieces as it has updates"
            )
        if self.window > self.num_steps:
            raise ValueError(
                f"window={self.window} is above num_steps={self.num_steps}: nothing before the "
                "rollout is remembered; 0 is all of it"
            )

    @property
    def learner(self) -> ppo_memory.Config:
        """The same as a config of `ppo_memory`."""
        names = {field.name for field in dataclasses.fields(ppo_memory.Config)}
        own = {n: x for n, x in vars(self).items() if n in names and n != "window"}
        return ppo_memory.Config(**own, cell="transformer", window=self.window or self.num_steps)


class State(NamedTuple):
    """All there is to go on with."""

    key: Key
    params: Any
    optimizer: optax.OptState
    env: VecState
    observations: normalize.RunningStatistics
    rewards: normalize.ReturnScale
    iteration: Array


class _Parts(NamedTuple):
    """What is closed over."""

    config: Config
    network: Recurrent
    objective: Objective
    vec_env: VecEnv
    action_space: Space
    storage: storage.Storage

    @property
    def piece(self) -> int:
        """Steps between two updates."""
        return self.config.num_steps // self.config.num_updates

    def see(self, state: State, observation: Observation) -> Observation:
        """The observation as the network sees it."""
        return normalize.seen(self.config, state, observation)

    def remembered(self) -> Remembered:
        """What is known before a rollout."""
        n = self.config.num_envs
        start = Remembered(self.network.initial_carry((n,)), jnp.ones(n, bool))
        return sharding.shard_envs(start, n)


def make(
    env: Env,
    config: Config = Config(),
    *,
    objective: Objective = objectives.clip,
    reset: ResetFactory | None = None,
) -> Algorithm[HParams, State]:
    """ReLIC on `env`. The same arguments give the same Algorithm.

    `reset` says where episodes start: by default `fastrl.reset.default(env)`.
    Raises TypeError or ValueError for what does not fit, before anything is compiled.
    """
    reset = arguments.checked(env, config, Config, reset)
    door.function("objective", objective, "fastrl.objectives.clip")
    return _make(env, config, objective, reset)


@functools.lru_cache(maxsize=256)
def _make(env: Env, config: Config, objective: Objective, reset: ResetFactory) -> Algorithm:
    learner = config.learner
    alike = ppo_memory.make(env, learner, objective=objective, reset=reset)
    task = env.default_params()
    space, action_space = env.observation_space(task), env.action_space(task)
    network = memory.recurrent(space, action_space, learner.network, learner.memory)
    vec_env = VecEnv(env, config.num_envs, arguments.starts(env, reset))
    parts = _Parts(config, network, objective, vec_env, action_space, storage.storage(space))

    def init(key: Key, hparams: HParams, task: Any) -> State:
        fields = alike.init(key, hparams, task)._asdict()
        return State(**{name: fields[name] for name in State._fields})

    return alike._replace(
        init=init, step=functools.partial(_iterate, parts),
        recipe=Recipe("relic", env, config, reset, objective),
    )  # fmt: skip


class _Rollout(NamedTuple):
    """A rollout under way."""

    state: State
    remembered: Remembered
    context: Trajectories  # [T, N]: steps so far, the newest last; those before them are blank


def _iterate(parts: _Parts, state: State, hparams: HParams, task: Any) -> tuple[State, Metrics]:
    """One rollout: pieces with partial updates, the last piece with a full one."""
    go_on = functools.partial(_piece, parts, hparams, task)
    rollout = _Rollout(state, parts.remembered(), _blank(parts, state, task))
    metrics = None
    if parts.config.num_updates > 1:
        rollout, each = jax.lax.scan(
            lambda r, _: go_on(False, r), rollout, None, length=parts.config.num_updates - 1
        )
        metrics = fm.fold(each)
    rollout, last = go_on(True, rollout)
    state, observations = rollout.state, rollout.state.observations
    if parts.config.normalize_observation:
        seen = parts.storage.unpack(rollout.context.samples.observation)
        observations = normalize.update(observations, seen)
    state = state._replace(observations=observations, iteration=state.iteration + 1)
    return state, last if metrics is None else fm.add(metrics, last)


def _piece(
    parts: _Parts, hparams: HParams, task: Any, full: bool, rollout: _Rollout
) -> tuple[_Rollout, Metrics]:
    """The next piece of a rollout, and an update: `full` on all steps, else on those of the piece.

    After a partial one the memory and the values of all steps are those of the new parameters.
    """
    config, network, (state, remembered, context) = parts.config, parts.network, rollout
    see = functools.partial(parts.see, state)
    key, rollout_key, shuffle_key = jax.random.split(state.key, 3)
    env_state, remembered, new, metrics = _collected(parts, rollout_key, state, remembered, task)
    reward, rewards = new.samples.reward * hparams.reward_scale, state.rewards
    if config.normalize_reward:
        done = new.samples.terminated | new.samples.truncated
        rewards, reward = normalize.scale_rewards(rewards, reward, done, hparams.gamma)
    context = _extended(context, new.samples._replace(reward=reward), new.start)
    (carry, start), last = sharding.collect((remembered, env_state.observation))
    last_value = network.step(state.params, carry, see(last), start)[2]
    whole = _with_advantages(parts, see, context, last_value, hparams)
    taken = slice(None) if full else slice(-parts.piece, None)

    def outputs(params: Any, batch: Trajectories) -> Any:
        _, policy, value = network.unroll(
            params, batch.carry, batch.samples.observation, batch.start
        )
        return jax.tree.map(lambda x: x[taken], (policy, value, batch.samples))

    envs = minibatches.shuffled(
        shuffle_key, 1, config.num_envs, config.num_epochs, config.num_minibatches
    )
    learned_from = jax.tree.map(lambda x: x[taken], whole.samples)
    params, optimizer, update_metrics = ppo_update.update(
        parts.objective, config, outputs, whole.of, envs, state, learned_from, hparams
    )
    if not full:
        seen = whole.samples.observation
        carry, _, value = network.unroll(params, context.carry, seen, context.start)
        remembered = Remembered(carry, remembered.start)
        context = context._replace(samples=context.samples._replace(value=value))
    state = state._replace(
        key=key, params=params, optimizer=optimizer, env=env_state, rewards=rewards
    )
    return _Rollout(state, remembered, context), metrics | update_metrics


def _collected(parts: _Parts, key: Key, state: State, remembered: Remembered, task: Any) -> Any:
    """A piece of the rollout; see `recurrent.collect`. Consumes `key`."""
    return recurrent.collect(
        parts.vec_env, parts.network, functools.partial(parts.see, state), parts.storage.pack,
        parts.action_space, key, state.params, state.env, remembered, task, parts.piece,
    )  # fmt: skip


def _blank(parts: _Parts, state: State, task: Any) -> Trajectories:
    """A context without steps: each of its entries is an episode of its own, which is not seen."""
    remembered, steps = parts.remembered(), parts.config.num_steps
    collected = functools.partial(_collected, parts)
    new = jax.eval_shape(collected, state.key, state, remembered, task)[2]
    zeros = lambda x: jnp.zeros((steps, *x.shape[1:]), x.dtype)  # noqa: E731
    nothing: PyTree = jax.tree.map(lambda x: x[:, :0], remembered.carry)
    return Trajectories(jax.tree.map(zeros, new.samples), ~zeros(new.start), nothing)


def _extended(context: Trajectories, samples: Sample, start: Array) -> Trajectories:
    """`context` with new steps at its end, and as many fewer at its beginning."""
    old, new = (context.samples, context.start), (samples, start)
    samples, start = jax.tree.map(lambda a, b: jnp.concatenate([a, b])[len(b) :], old, new)
    return Trajectories(samples, start, context.carry)


def _with_advantages(
    parts: _Parts, see: Any, context: Trajectories, last_value: Array, hparams: HParams
) -> Trajectories:
    """`context` with advantages and targets, and its observations as the network sees them."""
    samples = context.samples
    advantage = returns.gae(
        samples.reward, samples.value, agents.next_values(samples, samples.value, last_value),
        samples.terminated, samples.truncated, hparams.gamma, hparams.gae_lambda,
    )  # fmt: skip
    return context._replace(
        samples=samples._replace(
            observation=see(parts.storage.unpack(samples.observation)), advantage=advantage,
            target=advantage + samples.value,
        )
    )  # fmt: skip
