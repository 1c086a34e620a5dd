"""The value function of `intrinsic_meta`: what the rest of a life is expected to pay."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from fastrl.cells import Gru, MemoryConfig
from fastrl.meta.intrinsic import Learner
from fastrl.meta.intrinsic_network import input_size
from fastrl.types import Array, Key, PyTree


class Value(NamedTuple):
    """What a life is expected to gain from a step on."""

    init: Callable[[Key], PyTree]
    # (params, history, x [S, N, D], seen [S + 1, N, E], age [S + 1]) -> history, values [S + 1, N]
    unroll: Callable[[PyTree, PyTree, Array, Array, Array], tuple[PyTree, Array]]
    initial_history: Callable[[int], PyTree]


class _Value(nn.Module):
    """A head on the memory of the steps before, what is seen, and the share of the life that has
    passed, before and after every step."""

    config: MemoryConfig

    @nn.compact
    def __call__(self, history: PyTree, x: Array, seen: Array, age: Array) -> tuple[PyTree, Array]:
        going = jnp.zeros(x.shape[:-1], bool)
        after, h = Gru(self.config, name="memory")(history, x, going)
        past = nn.Dense(self.config.size, name="past")(jnp.concatenate([history[0][None], h]))
        now = nn.Dense(self.config.size, use_bias=False, name="now")(seen)
        passed = nn.Dense(self.config.size, use_bias=False, name="age")(age[:, None, None])
        return after, nn.Dense(1, name="head")(jnp.tanh(past + now + passed))[..., 0]


def value(learner: Learner, size: int) -> Value:
    config = MemoryConfig("gru", size)
    module, env = _Value(config), learner.algorithm.env
    width = learner.reward.input_size
    sight = input_size(env, lambda t: learner.sight.encode(t.observation))
    apply: Callable[..., Any] = module.apply

    def init(key: Key) -> PyTree:
        x, seen = jnp.zeros((1, 1, width)), jnp.zeros((2, 1, sight))
        return module.init(key, config.initial_carry((1,)), x, seen, jnp.zeros(2))

    return Value(init, apply, lambda n: config.initial_carry((n,)))
