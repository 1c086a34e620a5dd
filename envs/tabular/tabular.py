"""What tabular environments share: play by tables of probabilities and rewards.

The tables are params, so other processes of the same size are other tasks of the same program.
An episode begins in state 0 and has exactly `horizon` steps; its end is a termination, since
nothing follows in a process of finite horizon.  `fastrl.effective_horizon` analyses the tables.
"""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastrl.door import integer
from fastrl.envs import checks, drawing
from fastrl.spaces import Discrete, MultiDiscrete
from fastrl.types import Array, Key, Step


class Params(NamedTuple):
    """The process."""

    transitions: Any  # float32 [S, A, S], probabilities of the next state
    rewards: Any  # float32 [S, A]


class State(NamedTuple):
    """Where the process is."""

    state: Array  # int32
    time: Array  # int32, steps taken


@dataclasses.dataclass(frozen=True)
class Tabular:
    """Observation: int32 `[2]`, the state and the time. Action: 0 .. actions - 1.

    Subclasses give the tables.
    """

    states: int = 4
    actions: int = 2
    horizon: int = 5

    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        integer("states", self.states, 1)
        integer("actions", self.actions, 1)
        integer("horizon", self.horizon, 1)

    def default_params(self) -> Params:
        return Params(*(np.asarray(x, np.float32) for x in self.tables()))

    def tables(self) -> tuple[np.ndarray, np.ndarray]:
        """Transitions `[S, A, S]` and rewards `[S, A]`, float64: here nothing happens."""
        shape = self.states, self.actions
        transitions = np.zeros((*shape, self.states))
        transitions[..., 0] = 1.0
        return transitions, np.zeros(shape)

    def reset(self, key: Key, params: Params) -> tuple[State, Array]:
        state = State(jnp.int32(0), jnp.int32(0))
        return state, self._observe(state)

    def step(self, key: Key, state: State, action: Array, params: Params) -> tuple[State, Step]:
        action = checks.step(self, action, params)
        shape = self.states, self.actions
        transitions = self._sized("transitions", params.transitions, (*shape, self.states))
        rewards = self._sized("rewards", params.rewards, shape)
        following = _draw(key, transitions[state.state, action])
        reward = rewards[state.state, action]
        state = State(following, state.time + 1)
        over = state.time >= self.horizon
        return state, Step(self._observe(state), reward, over, jnp.zeros_like(over))

    def observation_space(self, params: Params) -> MultiDiscrete:
        return MultiDiscrete((self.states, self.horizon + 1))

    def action_space(self, params: Params) -> Discrete:
        return Discrete(self.actions)

    def render(self, state: State, params: Params) -> np.ndarray:
        """A column for each state, a row for each action, dark where it pays; the agent above.

        uint8 `[40 (1 + actions), 40 states, 3]`.
        """
        rewards = np.asarray(params.rewards).T
        shades = np.concatenate([np.zeros((1, self.states)), rewards])
        return drawing.board(shades, [((0, int(state.state)), 0.3, drawing.BLUE)])

    def _observe(self, state: State) -> Array:
        return jnp.stack([state.state, state.time]).astype(jnp.int32)

    def _sized(self, name: str, table: Any, shape: tuple[int, ...]) -> Array:
        if jnp.shape(table) != shape:
            raise ValueError(
                f"params.{name} has shape {jnp.shape(table)}, but {type(self).__name__} with "
                f"states={self.states} and actions={self.actions} needs {shape}"
            )
        return jnp.asarray(table, jnp.float32)


def _draw(key: Key, probabilities: Array) -> Array:
    """An index, int32, with these probabilities. One of probability 0 is never drawn."""
    total = jnp.cumsum(probabilities)
    share = jax.random.uniform(key) * total[-1]  # below the last: sums may miss 1
    return jnp.minimum((total <= share).sum(), total.shape[0] - 1).astype(jnp.int32)
