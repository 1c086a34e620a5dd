"""Complete episodes of a policy, on the device: what evaluation and pictures stand on.

Every parallel copy of the environment plays a quota fixed in advance.  Taking "the first N
episodes that end" instead would favour short episodes: a long one is more likely to be still
running when the N-th ends.

Episode `e` has a key of its own, `fold_in(key, e)`, so it does not depend on how many others
are played: the first 10 of 100 episodes are those of an evaluation of 10, up to rounding.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fastrl import spaces
from fastrl.types import Action, Array, Env, Key, Observation, PyTree, Step
from fastrl.user_code import explain

MAX_COPIES = 256  # beyond some hundred environments a step costs what its environments cost


class Episode(NamedTuple):
    """One episode under way. Leaves are `[...]`, or `[N, ...]` for a batch of them."""

    key: Key
    env: PyTree
    observation: Observation
    carry: PyTree
    length: Array  # int32, steps taken so far
    total: Array  # float32, return so far


class Player(NamedTuple):
    """A policy on an environment: what stays while states, tasks and keys change."""

    act: Callable[..., tuple[Action, PyTree]]
    initial_carry: Callable[[tuple[int, ...]], PyTree]
    env: Env
    deterministic: bool = True

    def begin(self, key: Key, number: Any, params: Any) -> Episode:
        """Episode `number` of those with `key`, at its start."""
        reset_key, episode_key = jax.random.split(jax.random.fold_in(key, number))
        env_state, observation = self.env.reset(reset_key, params)
        carry = self.initial_carry(())
        return Episode(episode_key, env_state, observation, carry, jnp.int32(0), jnp.float32(0))

    def advance(self, state: Any, params: Any, episode: Episode) -> tuple[Episode, Step]:
        """One step of `episode` under the policy in `state`."""
        act_key, step_key = jax.random.split(jax.random.fold_in(episode.key, episode.length))
        key = None if self.deterministic else act_key
        action, carry = self.choose(state, episode.carry, episode.observation, key)
        env_state, step = self.env.step(step_key, episode.env, action, params)
        length, total = episode.length + 1, episode.total + step.reward
        return Episode(episode.key, env_state, step.observation, carry, length, total), step

    def choose(
        self, state: Any, carry: PyTree, observation: Observation, key: Key | None
    ) -> tuple[Action, PyTree]:
        """`act` on one observation, and when it is traced a clear error if it does not fit.

        Raises ValueError if `state` is not one of the algorithm's, or a batch of them.
        """
        hint = "is the state one (unbatched) state of this algorithm?"
        try:
            action, carry = self.act(state, carry, observation, key)
        except Exception as error:
            raise ValueError(
                "the policy could not act on an observation of shapes "
                f"{shapes(observation)}: {hint} ({explain(error)})"
            ) from error
        with jax.ensure_compile_time_eval():
            space = self.env.action_space(self.env.default_params())
        expected = shapes(spaces.struct_of(space))
        if shapes(action) != expected:
            raise ValueError(
                f"the policy acted with shapes {shapes(action)} where the environment takes "
                f"{expected}: {hint}"
            )
        return action, carry


class Played(NamedTuple):
    """The episodes that were played, by number; a length of 0 marks one without an end."""

    returns: Array  # float32 [E]
    lengths: Array  # int32 [E]
    terminated: Array  # bool [E]
    metrics: dict[str, Array]  # {name: [N]}, summed over the steps of each copy


class _Loop(NamedTuple):
    episode: Episode  # [N, ...]
    number: Array  # int32 [N], of the episode that each copy plays
    played: Played


@functools.lru_cache(maxsize=64)
def play(player: Player, episodes: int) -> Callable[[Key, Any, Any, Any], Played]:
    """The jitted function `(key, state, params, max_steps) -> Played`; it can be vmapped.

    `N` copies play at once: copy `i` the episodes `i`, `i + N`, `i + 2N` ... below `episodes`.
    All stop when one episode has taken `max_steps` without an end.
    """
    num_copies = math.ceil(episodes / math.ceil(episodes / MAX_COPIES))
    several = episodes > num_copies

    def program(key: Key, state: Any, params: Any, max_steps: Any) -> Played:
        start = jax.vmap(functools.partial(player.begin, key), (0, None))
        forward = jax.vmap(functools.partial(player.advance, state, params))

        def going(loop: _Loop) -> Array:
            length = jnp.where(loop.number < episodes, loop.episode.length, 0)
            return (loop.number < episodes).any() & (length < max_steps).all()

        def body(loop: _Loop) -> _Loop:
            counts = loop.number < episodes
            episode, step = forward(loop.episode)
            done = (step.terminated | step.truncated) & counts
            played = _record(loop.played, counts, done, loop.number, episode, step)
            number = jnp.where(done, loop.number + num_copies, loop.number)
            if several:  # resets can be dear: only when a copy takes up its next episode
                again = done & (number < episodes)
                episode = jax.lax.cond(
                    again.any(),
                    lambda: _select(again, start(number, params), episode),
                    lambda: episode,
                )
            return _Loop(episode, number, played)

        numbers = jnp.arange(num_copies, dtype=jnp.int32)
        first = start(numbers, params)
        metrics = jax.eval_shape(lambda e: forward(e)[1].metrics, first)
        return jax.lax.while_loop(
            going, body, _Loop(first, numbers, _nothing(episodes, num_copies, metrics))
        ).played

    return jax.jit(program)


def _nothing(episodes: int, num_copies: int, metrics: dict[str, Any]) -> Played:
    return Played(
        jnp.zeros(episodes, jnp.float32),
        jnp.zeros(episodes, jnp.int32),
        jnp.zeros(episodes, bool),
        {name: jnp.zeros(num_copies, jnp.float32) for name in metrics},
    )


def _record(
    played: Played, counts: Array, done: Array, number: Array, episode: Episode, step: Step
) -> Played:
    """Writes the episodes that are `done` to their places and adds up the steps' metrics."""
    slot = jnp.where(done, number, len(played.returns))  # beyond the end: dropped
    return Played(
        played.returns.at[slot].set(episode.total, mode="drop"),
        played.lengths.at[slot].set(episode.length, mode="drop"),
        played.terminated.at[slot].set(step.terminated, mode="drop"),
        {k: v + jnp.where(counts, step.metrics[k], 0.0) for k, v in played.metrics.items()},
    )


def _select(where: Array, on_true: PyTree, on_false: PyTree) -> PyTree:
    def pick(a: Array, b: Array) -> Array:
        return jnp.where(where.reshape(where.shape + (1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(pick, on_true, on_false)


def shapes(tree: PyTree) -> Any:
    """The shape of every leaf."""
    return jax.tree.map(lambda x: tuple(jnp.shape(x)), tree)
