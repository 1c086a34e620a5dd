"""What stream learners share: one stream of transitions, and how it is seen.

A stream is one environment that is never stored: each transition is learned from once, when it
happens.  The state of a learner belongs to one stream; many of them are `fastrl.members`, or a
`vmap`, and share nothing.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fastrl import arguments, door, spaces
from fastrl import metrics as fm
from fastrl import networks as fastrl_networks
from fastrl.metrics import Metrics
from fastrl.spaces import Space
from fastrl.streaming import statistics
from fastrl.streaming.config import Config
from fastrl.streaming.networks import Shape
from fastrl.streaming.statistics import RewardScale, Statistics
from fastrl.types import (
    Action,
    Algorithm,
    Array,
    Env,
    Key,
    Observation,
    PyTree,
    Recipe,
    Reset,
    ResetFactory,
    Scalar,
)

CACHED = 340_000  # parameters of all the streams in a batch


class Stream(NamedTuple):
    """One running episode, as it is seen, and the statistics of all episodes so far."""

    memory: PyTree  # the Reset's own state
    params: PyTree  # params of this episode, () where it is the task's
    env: PyTree
    observation: Observation
    x: Array  # the observation as the networks see it
    observations: Statistics
    rewards: RewardScale
    steps: Array  # int32, of this episode
    episode_return: Array  # float32, so far


class Outcome(NamedTuple):
    """What a learner needs of a transition, beside what it knew before."""

    reward: Array  # scaled
    observation: Observation  # the true successor
    x: Array  # the same as the networks see it
    discount: Array  # gamma, or 0 where nothing follows
    clears: Array  # bool: traces are cleared after the update
    done: Array  # bool: the stream stands at the start of another episode
    terminated: Array  # bool: and it was the task that ended


class Parts(NamedTuple):
    """What is closed over."""

    env: Env
    config: Config
    reset: Reset
    space: Space  # of observations
    encode: Callable[[Observation], Array]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of what the networks see."""
        raw = self._raw_shape
        return (raw[0] + 1,) if self.config.time_feature else raw

    @property
    def _raw_shape(self) -> tuple[int, ...]:
        return jax.eval_shape(self._raw, spaces.struct_of(self.space)).shape

    def _raw(self, observation: Observation) -> Array:
        return self.encode(fastrl_networks.split_views(observation)[0])

    def shape(self, heads: tuple[int, ...]) -> Shape:
        """The shape of a network on such streams."""
        features = self.config.conv_features if self.config.torso == "conv" else 0
        return Shape(self.input_shape, self.config.hidden_sizes, heads, features)

    def begin(self, key: Key, task: Any) -> Stream:
        """A stream at the start of its first episode. Consumes `key`."""
        memory_key, draw_key = jax.random.split(key)
        memory = self.reset.init(memory_key, task, 1)
        stream = Stream(
            memory, (), (), (), (), statistics.init(self._raw_shape),  # type: ignore[arg-type]
            statistics.init_reward_scale(), jnp.int32(0), jnp.float32(0.0),
        )  # fmt: skip
        return self._started(draw_key, stream, task, jnp.bool_(True))

    def advance(
        self, key: Key, stream: Stream, action: Action, hparams: Any, task: Any
    ) -> tuple[Stream, Outcome, Metrics]:
        """One step of the environment, seen and counted, and a new start where it ended.

        Both the true successor and the first observation of a new episode are counted.
        Consumes `key`.
        """
        step_key, draw_key = jax.random.split(key)
        params = stream.params if self.reset.per_env_params else task
        env, step = self.env.step(step_key, stream.env, action, params)
        done = step.terminated | step.truncated
        rewards, reward = self._scaled(stream.rewards, step, hparams)
        total, steps = stream.episode_return + step.reward, stream.steps + 1
        going = stream._replace(
            env=env, rewards=rewards, steps=steps, episode_return=total,
            observation=step.observation,
        )  # fmt: skip
        going = self._counted(going, hparams.time_limit)
        ends = done if self.config.truncation == "ends" else step.terminated
        clears = step.terminated if self.config.truncation == "continues" else done
        discount = jnp.where(ends, 0.0, hparams.gamma)
        outcome = Outcome(
            reward, step.observation, going.x, discount, clears, done, step.terminated
        )
        metrics = {
            "episode_return": fm.each(total, done),
            "episode_length": fm.each(steps, done),
            **{name: fm.each(values) for name, values in step.metrics.items()},
        }
        return self._restarted(draw_key, going, task, done), outcome, metrics

    def view(
        self, seen: Statistics, observation: Observation, steps: Array, time_limit: Scalar
    ) -> Array:
        """An observation as the networks see it, `steps` into its episode."""
        x = self._raw(observation)
        if self.config.normalize_observation:
            x = statistics.normalize(seen, x)
        if self.config.time_feature:
            x = jnp.append(x, statistics.time_feature(steps, time_limit))
        return x

    def batched(self, f: Callable[..., Any], observation: Observation) -> Callable[..., Any]:
        """`f` of one observation for as many leading axes as `observation` has."""
        first = jax.tree.leaves(self.space, is_leaf=spaces.is_leaf)[0]
        leaf = jax.tree.leaves(observation)[0]
        for _ in range(jnp.ndim(leaf) - len(first.shape)):
            f = jax.vmap(f)
        return f

    def carry(self, batch_shape: tuple[int, ...]) -> PyTree:
        """What `act` carries along: the steps of the episode if there is a time feature."""
        return jnp.zeros(batch_shape, jnp.int32) if self.config.time_feature else ()

    def act_on(
        self, f: Callable[[Array, Observation], Any], state: Any, carry: PyTree,
        observation: Observation,
    ) -> tuple[Any, PyTree]:  # fmt: skip
        """`f(x, observation)` of every observation `[..., *]`, and the next carry."""
        seen, time_limit = state.stream.observations, state.time_limit
        if self.config.time_feature:
            both = lambda o, t: f(self.view(seen, o, t, time_limit), o)  # noqa: E731
            return self.batched(both, observation)(observation, carry), carry + 1
        one = lambda o: f(self.view(seen, o, jnp.int32(0), time_limit), o)  # noqa: E731
        return self.batched(one, observation)(observation), carry

    def first(
        self, f: Callable[[Array, Observation], Any], state: Any, observation: Observation
    ) -> Any:
        """The same as at the first step of an episode."""
        lead = self.batched(lambda o: jnp.int32(0), observation)(observation).shape
        return self.act_on(f, state, self.carry(lead), observation)[0]

    def _counted(self, stream: Stream, time_limit: Scalar) -> Stream:
        """The stream with its observation counted, and seen with itself among the counted."""
        seen = stream.observations
        if self.config.normalize_observation:
            seen = statistics.update(seen, self._raw(stream.observation))
        x = self.view(seen, stream.observation, stream.steps, time_limit)
        return stream._replace(observations=seen, x=x)

    def _scaled(self, rewards: RewardScale, step: Any, hparams: Any) -> tuple[RewardScale, Array]:
        if not self.config.scale_reward:
            return rewards, step.reward
        return statistics.scale_reward(
            rewards, step.reward, step.terminated, step.truncated, hparams.gamma,
            self.config.reward_trace, second_moment=self.config.second_moment,
        )  # fmt: skip

    def _started(self, key: Key, stream: Stream, task: Any, done: Array) -> Stream:
        """The stream at the start of a new episode."""
        pool = self.reset.draw(key, stream.memory, task, done[None])
        params, env, observation = jax.tree.map(
            lambda x: x[0], (pool.params, pool.state, pool.observation)
        )
        fresh = stream._replace(
            memory=pool.memory, params=params, env=env, observation=observation,
            steps=jnp.int32(0), episode_return=jnp.float32(0.0),
        )  # fmt: skip
        return self._counted(fresh, 1.0)  # at 0 steps the time limit does not matter

    def _restarted(self, key: Key, going: Stream, task: Any, done: Array) -> Stream:
        """`going`, at a new start where it is done; as in `VecEnv`, a branch on CPU only."""

        def select() -> Stream:
            fresh = self._started(key, going, task, done)
            picked = jax.tree.map(
                lambda a, b: jnp.where(done, a, b),
                fresh._replace(memory=()), going._replace(memory=()),
            )  # fmt: skip
            return picked._replace(memory=fresh.memory)

        def branch() -> Stream:
            return jax.lax.cond(done, lambda: self._started(key, going, task, done), lambda: going)

        if jax.tree.leaves(going.memory):  # resets with memory count every step
            return select()
        return jax.lax.platform_dependent(cpu=branch, default=select)


def side_by_side(shapes: Sequence[Shape]) -> int:
    """How many streams with networks of these shapes go in one batch on a CPU core: a power of 2.

    Many small ones hide what an operation costs by itself; large ones had better stay in the cache.
    """
    size = sum((fan_in + 1) * units for s in shapes for fan_in, units in s.layers)
    return 2 ** min(max(int(math.log2(CACHED / size)), 0), 8)


def parts(env: Env, config: Config, reset: ResetFactory) -> Parts:
    """The stream's share of a learner. Raises ValueError for what it can't see."""
    space = env.observation_space(env.default_params())
    starts = arguments.starts(env, reset)
    actor, critic, _ = fastrl_networks.split_views(space)
    if actor != critic:
        raise ValueError("the critic has a view of its own: stream learners have one view")
    encode = fastrl_networks.encoder(actor, config.torso == "conv")
    return Parts(env, config, starts, space, encode)


def algorithm(
    recipe: Recipe | None, learner: Any, init: Callable[..., Any],
    one: Callable[..., tuple[Any, Metrics]], env: Env, hparams: Any,
    ranges: Mapping[str, door.Range], carry: Callable[[tuple[int, ...]], Any] | None, block: int,
) -> Algorithm:  # fmt: skip
    """The Algorithm of `init(learner, key, hparams, task)` and of `one` transition's update.

    The learner has the functions `act` and `value`, and `stream`, its Parts.  `block` is how many
    go side by side.
    """
    return Algorithm(
        functools.partial(init, learner), functools.partial(steps, one, learner), learner.act,
        learner.stream.config.num_steps, hparams, env, learner.value,
        parameters=lambda state: state.params,
        check=functools.partial(door.ranges, allowed=ranges),
        initial_carry=carry or (lambda batch_shape: ()), recipe=recipe, side_by_side=block,
    )  # fmt: skip


def learned(value: Array, delta: Array) -> Metrics:
    """What all learners report of an update; `diverged` is the share of steps without a number."""
    return {
        "value": fm.each(value), "td_error": fm.each(jnp.abs(delta)),
        "diverged": fm.each(~jnp.isfinite(delta)),
    }  # fmt: skip


def steps(
    one: Callable[..., tuple[Any, Metrics]], parts: Any, state: Any, hparams: Any, task: Any
) -> tuple[Any, Metrics]:
    """An iteration: `one(parts, state, hparams, task)` for `num_steps` transitions.

    Metrics are added up on the way: as one kernel (`compilation.whole_loops`) a loop would copy
    at every step whatever it stacks.
    """
    body = jax.jit(functools.partial(_summed, one, parts))  # traced once

    def add(carry: tuple[Any, Metrics], _: None) -> tuple[tuple[Any, Metrics], None]:
        state, sums = carry
        state, metrics = body(state, hparams, task)
        return (state, fm.add(sums, metrics)), None

    sums = fm.zeros_like(jax.eval_shape(body, state, hparams, task)[1])
    return jax.lax.scan(add, (state, sums), None, parts.stream.config.num_steps)[0]


def _summed(
    one: Callable[..., tuple[Any, Metrics]], parts: Any, state: Any, hparams: Any, task: Any
) -> tuple[Any, Metrics]:
    state, metrics = one(parts, state, hparams, task)
    return state, fm.summed(metrics)
