"""Using what was learned: `Policy`, and `load`, which reads one from a run folder."""

import dataclasses
import functools
import os
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from fastrl import checkpoint as checkpoints
from fastrl import config, retention, run_folder, spaces
from fastrl.checkpoint import CheckpointError, Restored
from fastrl.episodes import Player, shapes
from fastrl.evaluate import Evaluation, environment, evaluate, one_key
from fastrl.files import RunFolderError
from fastrl.hparams import as_arrays, conform
from fastrl.kernels import prng
from fastrl.run_folder import RunFolder
from fastrl.types import Action, Algorithm, Array, Env, Key, Observation, PyTree

Which = Literal["best", "last"] | int


@dataclasses.dataclass(frozen=True, eq=False)
class Policy:
    """A trained policy with its environment.

        policy = fastrl.load("runs/cartpole")
        action = policy(observation)

    `env` and `params` are the algorithm's environment and its default task unless given.
    Raises ValueError if these do not fit together.
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
        player = Player(self.algorithm.act, self.algorithm.initial_carry, env)
        observation = spaces.struct_of(self._space)
        jax.eval_shape(player.choose, self.state, self.initial_carry(), observation, None)

    @functools.cached_property
    def _space(self) -> spaces.Space:
        return self.env.observation_space(self.params)

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
        observation, batch_shape = _conform(observation, self._space)
        expected = shapes(self.initial_carry(batch_shape))
        if shapes(carry) != expected:
            raise ValueError(
                f"the carry has shapes {shapes(carry)}, expected {expected}: begin with "
                f"policy.initial_carry({batch_shape})"
            )
        key = None if key is None else one_key(key)
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


def load(
    run_dir: str | os.PathLike[str],
    *,
    checkpoint: Which = "best",
    env: Env | None = None,
    algorithm: Algorithm | None = None,
    task: Any = None,
) -> Policy:
    """The policy of the run in `run_dir`, a folder that `train` wrote.

    `checkpoint` is the one with the best evaluation return, the last one, or that after so
    many iterations.  What a config cannot name is given here, as it was for the run: an `env`
    that is not registered, an `algorithm` with an objective, reset or code of its own, a `task`
    that is not params of the environment.  Nothing in the folder can run code.

    Raises `RunFolderError` if there is no run, ValueError if its config does not say how to
    build it or there is no such checkpoint, `CheckpointError` if there is none or it is
    damaged, `MismatchError` if it belongs to another algorithm.
    """
    folder = run_folder.at(run_dir)
    algorithm, hparams, task = _built(folder, env, algorithm, task)
    inputs = run_folder.read_inputs(folder, hparams, task).tree
    key = prng.key(0)
    target = jax.eval_shape(algorithm.init, key, inputs["hparams"], inputs["task"])
    state, inputs = jax.device_put((_restored(folder, checkpoint, target).tree, inputs))
    default = None if algorithm.env is None else as_arrays(algorithm.env.default_params())
    plays_task = shapes(inputs["task"]) == shapes(default)
    params = inputs["task"] if plays_task else None
    return Policy(algorithm, state, env, params, inputs["hparams"])


def _built(
    folder: RunFolder, env: Env | None, algorithm: Algorithm | None, task: Any
) -> tuple[Algorithm, Any, Any]:
    """The algorithm of the run with hparams and task of the right structure, as arrays."""
    if not folder.path.is_dir():
        raise RunFolderError(f"{folder.path}: there is no such run folder")
    if not folder.config.is_file():
        raise RunFolderError(
            f"{folder.path} is not a run folder (it has no {folder.config.name}): give a folder "
            "that `train` wrote"
        )
    if algorithm is None:
        built = config.build(config.load(folder.config), env=env, task=task)
        algorithm, hparams, task = built
    else:
        hparams = algorithm.default_hparams
        task = algorithm.env.default_params() if task is None and algorithm.env else task
    return algorithm, conform(hparams, algorithm.default_hparams), as_arrays(task)


def _restored(folder: RunFolder, which: Which, target: PyTree) -> Restored:
    """The checkpoint that `which` means. Raises as `load` does."""
    paths = retention.newest_first(folder.checkpoints)
    if not paths:
        raise CheckpointError(f"{folder.path} has no checkpoint yet: wait for the first")
    if which == "best":
        return checkpoints.restore_first(retention.best_first(folder.checkpoints), target)
    if which == "last":
        return checkpoints.restore_first(paths, target)
    known = sorted(int(p.name) for p in paths)
    if isinstance(which, bool) or which not in known:
        raise ValueError(
            f"checkpoint={which!r}: choose 'best', 'last' or one of the iterations "
            f"{', '.join(map(str, known))} of {folder.path}"
        )
    return checkpoints.restore(retention.at(folder.checkpoints, int(which)), target)


@functools.lru_cache(maxsize=64)
def _jitted(act: Callable[..., Any]) -> Callable[..., Any]:
    return jax.jit(act)


def _conform(observation: Observation, space: spaces.Space) -> tuple[Observation, tuple[int, ...]]:
    """`observation` as arrays of the types in `space`, and the leading axes of all of them."""
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
    return jax.tree.unflatten(treedef, arrays), batches.pop()


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
