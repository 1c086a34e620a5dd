"""Using what was learned: `Policy`, and `load`, which reads one from a run folder."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fastrl import spaces
from fastrl.episodes import shapes
from fastrl.evaluate import Evaluation, environment, evaluate
from fastrl.kernels import prng
from fastrl.types import Action, Algorithm, Array, Key, Observation, PyTree


@dataclasses.dataclass(frozen=True, eq=False)
class Policy:
    """A trained policy with its environment.

        policy = fastrl.load("runs/cartpole")
        action = policy(observation)

    `env` and `params` are the algorithm's environment and its default task unless given.
    """

    algorithm: Algorithm
    state: Any
    env: Any = None
    params: Any = None
    hparams: Any = None

    def __post_init__(self) -> None:
        env, params = environment(self.algorithm, self.env, self.params)
        object.__setattr__(self, "env", env)
        object.__setattr__(self, "params", params)

    def __call__(self, observation: Observation, key: Key | None = None) -> Action:
        """The action for one observation or for a batch of them; `key` samples it.

        Leaves of `observation` are `[*]` or `[..., *]`, as the environment's observation space
        has them; numbers of another precision are converted.  Without a key it is the mode.

        Raises ValueError for other shapes, and for a policy with memory: see `act`.
        """
        if self.has_memory:
            raise ValueError(
                "this policy has memory: use policy.act(observation, carry), beginning every "
                "episode with policy.initial_carry(batch_shape)"
            )
        return self.act(observation, (), key)[0]

    def act(
        self, observation: Observation, carry: PyTree, key: Key | None = None
    ) -> tuple[Action, PyTree]:
        """The action and the next carry; `carry` starts as `initial_carry` in every episode."""
        observation = _conform(observation, self.env.observation_space(self.params))
        key = None if key is None else prng.engine_key(key)
        return _jitted(self.algorithm.act)(self.state, carry, observation, key)

    def initial_carry(self, batch_shape: tuple[int, ...] = ()) -> PyTree:
        """What the policy remembers at the start of an episode; () without memory."""
        return self.algorithm.initial_carry(batch_shape)

    @property
    def has_memory(self) -> bool:
        return bool(jax.tree.leaves(self.initial_carry()))

    def evaluate(self, episodes: int = 100, **options: Any) -> Evaluation:
        """`fastrl.evaluate` of this policy on its environment; takes the same options."""
        return evaluate(
            self.algorithm, self.state, self.env, self.params, episodes=episodes, **options
        )

    def __repr__(self) -> str:
        return f"Policy(env={self.env!r})"


@functools.lru_cache(maxsize=64)
def _jitted(act: Callable[..., Any]) -> Callable[..., Any]:
    return jax.jit(act)


def _conform(observation: Observation, space: spaces.Space) -> Observation:
    """`observation` as arrays of the types in `space`, all with the same leading axes."""
    leaves, treedef = jax.tree.flatten(space, is_leaf=spaces.is_leaf)
    try:
        parts = treedef.flatten_up_to(observation)
    except (ValueError, TypeError):
        expected = shapes(spaces.struct_of(space))
        raise ValueError(
            f"the observation must be structured like {expected}, got {shapes(observation)}"
        ) from None
    arrays = [_conform_leaf(x, s) for x, s in zip(parts, leaves, strict=True)]
    batches = {a.shape[: a.ndim - len(s.shape)] for a, s in zip(arrays, leaves, strict=True)}
    if len(batches) > 1:
        raise ValueError(f"the parts of the observation have several batch shapes: {batches}")
    return jax.tree.unflatten(treedef, arrays)


def _conform_leaf(x: Any, space: Any) -> Array:
    try:
        array = x if isinstance(x, jax.Array) else np.asarray(x)
    except ValueError as error:  # ragged lists
        raise ValueError(f"the observation is no array of numbers: {error}") from None
    batch = max(np.ndim(array) - len(space.shape), 0)
    if array.shape[batch:] != space.shape:
        expected = str(space.shape) + " or (batch, " + ", ".join(map(str, space.shape)) + ")"
        raise ValueError(f"the observation has shape {array.shape}, expected {expected}")
    real = jnp.issubdtype(array.dtype, jnp.floating)
    if array.dtype.kind in "OSUMmc" or (real and not jnp.issubdtype(space.dtype, jnp.floating)):
        raise ValueError(f"the observation is of type {array.dtype}, expected {space.dtype}")
    return jnp.asarray(array, space.dtype)
