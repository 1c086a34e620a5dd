"""The network of a learned reward, and what it sees of an environment."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from fastrl import door, networks, spaces
from fastrl.cells import Gru, MemoryConfig
from fastrl.types import Array, Env, Key, Observation, PyTree, Transition


@dataclasses.dataclass(frozen=True)
class Reward:
    """The shape of the network, and what its reward is added to."""

    hidden_size: int = 32
    task_share: float = 0.0  # of the task's reward; the paper's agents see none of it
    input_size: int = 0  # D: entries of x; 0: those of the environment that it is used on

    def __post_init__(self) -> None:
        door.integer("hidden_size", self.hidden_size, 1)
        door.number("task_share", self.task_share, 0.0)
        door.integer("input_size", self.input_size, 0)

    def on(self, env: Env) -> "Reward":
        """This reward with the `input_size` of `env`. Raises ValueError if it has another one."""
        size = input_size(env, sight(env).inputs)
        if self.input_size not in (0, size):
            raise ValueError(
                f"input_size={self.input_size}: this reward sees so many numbers of a step, and "
                f"steps of {env} have {size}: it is for an environment like the one that it was "
                "learned on"
            )
        return dataclasses.replace(self, input_size=size)

    def init(self, key: Key) -> PyTree:
        """Random parameters. Consumes `key`."""
        if not self.input_size:
            raise ValueError("input_size=0: reward.on(env) says what this reward is to see")
        memory, x = self._memory.initial_carry((1,)), jnp.zeros((1, 1, self.input_size))
        return _Reward(self._memory).init(key, memory, x)

    def initial_memory(self, num_envs: int) -> PyTree:
        """What a life begins with, leaves `[N, H]`."""
        return self._memory.initial_carry((num_envs,))

    def unroll(self, eta: PyTree, memory: PyTree, x: Array, task: Array) -> tuple[PyTree, Array]:
        """The next memory and the rewards `[T, N]` for steps `x` `[T, N, D]` of a life under way.

        `task` is what the task pays, and what () for `eta` pays too.
        """
        if not jax.tree.leaves(eta):
            return memory, task
        apply: Callable[..., Any] = _Reward(self._memory).apply
        memory, own = apply(eta, memory, x)
        return memory, own + self.task_share * task

    @property
    def _memory(self) -> MemoryConfig:
        return MemoryConfig("gru", self.hidden_size)


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


class Sight(NamedTuple):
    """What is seen of an environment, as vectors."""

    encode: Callable[[Observation], Array]  # [..., *] -> [..., E]: what the agent sees
    inputs: Callable[[Transition], Array]  # [T, N, ...] -> x [T, N, D]


def sight(env: Env) -> Sight:
    """What is seen of `env`."""
    task = env.default_params()
    encode = networks.encoder(networks.split_views(env.observation_space(task))[0])
    of_action = networks.encoder(env.action_space(task))

    def see(observation: Observation) -> Array:
        return encode(networks.split_views(observation)[0])

    def inputs(t: Transition) -> Array:
        done = (t.terminated | t.truncated).astype(t.reward.dtype)
        parts = see(t.next_observation), of_action(t.action), t.reward[..., None], done[..., None]
        return jnp.concatenate(parts, axis=-1)

    return Sight(see, inputs)


def input_size(env: Env, inputs: Callable[[Transition], Array]) -> int:
    """D: entries of `inputs` of one step."""
    task, one = env.default_params(), (1, 1)
    seen = spaces.zeros(env.observation_space(task), one)
    action = spaces.zeros(env.action_space(task), one)
    no = jnp.zeros(one, bool)
    step = Transition(seen, action, jnp.zeros(one), no, no, seen)
    return jax.eval_shape(inputs, step).shape[-1]
