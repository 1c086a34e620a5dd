"""Several episodes in one life of the agent, which sees what it did and what came of it.

The setting of Duan et al. 2016, "RL^2: Fast Reinforcement Learning via Slow Reinforcement
Learning", and Wang et al. 2016, "Learning to reinforcement learn": an agent with memory can
learn within its life, from one episode of a task to the next.
"""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from fastrl import spaces
from fastrl.networks import split_views
from fastrl.spaces import Box, Space
from fastrl.transforms.base import Transform, where
from fastrl.transforms.episode import check_count
from fastrl.types import Action, Array, Key, Observation, Step


class MetaEpisodeParams(NamedTuple):
    env: Any
    episodes: int | Array


class MetaEpisodeState(NamedTuple):
    env: Any
    episode: Array  # int32, episodes that have ended


class MetaObservation(NamedTuple):
    """What `env` shows, beside the last step. At the start of a life that is all 0.

    A mask of actions and a critic's view of `env` stay fields of the outer record, where
    learners look for them; they are None where `env` has none.
    """

    observation: Observation
    last_action: Action
    last_reward: Array  # float32 []
    ended: Array  # float32 []: 1 where the last step ended an episode, else 0
    action_mask: Any = None
    critic: Any = None


@dataclasses.dataclass(frozen=True)
class MetaEpisode(Transform):
    """A life of `episodes` episodes of `env`, with the same params in all of them.

    At the end of an episode, by termination or truncation, the next one starts in the same
    step: the agent sees its first observation, with `ended` 1, and neither flag is raised.
    The last episode ends the life as it ends itself, with its own flags and final
    observation.  `episodes` is a traced number of the params.

    The task of a life is what `env`'s params say; what `env.reset` draws is drawn anew for
    every episode.
    """

    episodes: int = 10

    own_state: ClassVar[bool] = True
    own_params: ClassVar[bool] = True

    def _check(self) -> None:
        check_count(self, "episodes")

    def default_params(self) -> MetaEpisodeParams:
        return MetaEpisodeParams(self.env.default_params(), self.episodes)

    def reset(self, key: Key, params: MetaEpisodeParams) -> tuple[MetaEpisodeState, Observation]:
        state, first = self.env.reset(key, params.env)
        none = spaces.zeros(self.env.action_space(params.env))
        shown = _beside(first, none, jnp.float32(0.0), jnp.float32(0.0))
        return MetaEpisodeState(state, jnp.int32(0)), shown

    def step(
        self, key: Key, state: MetaEpisodeState, action: Action, params: MetaEpisodeParams
    ) -> tuple[MetaEpisodeState, Step]:
        step_key, reset_key = jax.random.split(key)
        inner, step = self.env.step(step_key, state.env, action, params.env)
        ended = step.terminated | step.truncated
        episode = state.episode + ended.astype(jnp.int32)
        over = episode >= params.episodes
        fresh = self.env.reset(reset_key, params.env)
        inner, seen = where(ended & ~over, fresh, (inner, step.observation))
        space = self.env.action_space(params.env)
        action = spaces.tree_map(lambda s, a: jnp.asarray(a, s.dtype), space, action)
        shown = _beside(seen, action, step.reward, ended.astype(jnp.float32))
        step = step._replace(
            observation=shown, terminated=step.terminated & over, truncated=step.truncated & over
        )
        return MetaEpisodeState(inner, episode), step

    def observation_space(self, params: MetaEpisodeParams) -> Space:
        reward, flag = Box(-jnp.inf, jnp.inf), Box(0.0, 1.0)
        inner = self.env.observation_space(params.env)
        return _beside(inner, self.env.action_space(params.env), reward, flag)


def _beside(observation: Any, action: Any, reward: Any, ended: Any) -> MetaObservation:
    """The record of an observation, or of its space, and what goes beside it."""
    actor, critic, mask = split_views(observation)
    critic = None if critic is actor else critic
    return MetaObservation(actor, action, reward, ended, mask, critic)
