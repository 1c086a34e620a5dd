"""`evaluate`: the return of a policy over a number of complete episodes."""

import dataclasses
import math
from typing import Any

import jax
import numpy as np

from fastrl import door, spaces
from fastrl.episodes import Player, play, shapes
from fastrl.hparams import as_arrays
from fastrl.kernels import prng
from fastrl.types import Algorithm, Env, Key

MAX_STEPS = 100_000


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """What `E` complete episodes were like, in NumPy arrays on the host."""

    returns: np.ndarray  # float32 [E], undiscounted
    lengths: np.ndarray  # int32 [E], in environment steps
    terminated: np.ndarray  # bool [E]; the others were truncated
    metrics: dict[str, float]  # what the environment reports, mean over steps
    deterministic: bool  # whether the policy's mode was played, not a sample

    @property
    def episodes(self) -> int:
        return len(self.returns)

    @property
    def mean_return(self) -> float:
        return float(self.returns.mean(dtype=np.float64))

    @property
    def std_return(self) -> float:
        """Standard deviation between episodes (`E - 1` in the denominator), NaN for one."""
        return float(self.returns.std(ddof=1, dtype=np.float64)) if self.episodes > 1 else math.nan

    @property
    def half_width(self) -> float:
        """Half the 95 % interval (Student's t) of the mean return, NaN for one episode."""
        return t95(self.episodes - 1) * self.std_return / math.sqrt(self.episodes)

    @property
    def mean_length(self) -> float:
        return float(self.lengths.mean(dtype=np.float64))

    @property
    def terminated_share(self) -> float:
        """The share of episodes that the task itself ended, not a time limit."""
        return float(self.terminated.mean())

    def __str__(self) -> str:
        spread = f" ± {self.half_width:.3g} (95 % interval)" if self.episodes > 1 else ""
        return (
            f"return {self.mean_return:.5g}{spread} over {self.episodes} "
            f"episode{'s' * (self.episodes > 1)}, mean length {self.mean_length:.4g}, "
            f"{'deterministic' if self.deterministic else 'sampled'} actions"
        )


def evaluate(
    algorithm: Algorithm,
    state: Any,
    env: Env | None = None,
    params: Any = None,
    *,
    episodes: int = 100,
    key: Key | None = None,
    seed: int = 0,
    deterministic: bool = True,
    max_steps: int = MAX_STEPS,
) -> Evaluation:
    """Plays exactly `episodes` complete episodes with the policy in `state`.

    Every episode starts from `env.reset`, whatever training starts from.  `env` and `params`
    are the algorithm's environment and its default task unless given.  Randomness comes from
    `key`, or from `seed` where there is none.  `deterministic=False` samples the actions.

    Calling again with another state, task, key or `max_steps` compiles nothing.

    Raises ValueError for bad arguments, for an environment with other spaces than the
    algorithm was built for, and RuntimeError if an episode is still running after
    `max_steps` steps.
    """
    door.algorithm(algorithm)
    episodes = door.integer("episodes", episodes, least=1)
    max_steps = door.integer("max_steps", max_steps, least=1, most=2**31 - 2)
    env, params = environment(algorithm, env, params)
    key = prng.key(seed_of(seed)) if key is None else one_key(key)
    player = Player(algorithm.act, algorithm.initial_carry, env, bool(deterministic))
    played = jax.device_get(play(player, episodes)(key, state, params, max_steps))
    completed = int((played.lengths > 0).sum())
    if completed < episodes:
        raise RuntimeError(
            f"an episode of {type(env).__name__} was still running after max_steps={max_steps} "
            f"steps; {completed} of {episodes} episodes were complete. Give the environment a "
            "time limit or raise max_steps"
        )
    steps = played.lengths.sum(dtype=np.float64)
    metrics = {k: float(v.sum(dtype=np.float64) / steps) for k, v in played.metrics.items()}
    return Evaluation(
        played.returns, played.lengths, played.terminated, metrics, bool(deterministic)
    )


def seed_of(value: Any) -> int:
    """`value`, if it is a seed. Raises ValueError."""
    return door.integer("seed", value, least=0, most=2**32 - 1)


def one_key(key: Key) -> Key:
    """`key` as a key of the engine. Raises TypeError or ValueError unless it is one typed key."""
    key = prng.engine_key(key)
    if key.shape != ():
        raise ValueError(f"key has shape {key.shape}: needs a single key, such as keys[0]")
    return key


def environment(algorithm: Algorithm, env: Env | None, params: Any) -> tuple[Env, Any]:
    """`env` and `params` with the algorithm's own as defaults, params as arrays.

    Raises ValueError if there is no environment, if its spaces have other shapes or types than
    those of the algorithm's, or if `params` does not look like its default params.
    """
    own = algorithm.env
    env = own if env is None else env
    if env is None:
        raise ValueError("the algorithm was built without an environment: pass env=")
    if isinstance(env, (str, type)) or not callable(getattr(env, "step", None)):
        raise ValueError(f"env={env!r} is no environment: pass one, such as fastrl.make(name)")
    try:
        hash(env)
    except TypeError as error:
        raise ValueError(
            f"{type(env).__name__} cannot be hashed ({error}): make it a frozen dataclass whose "
            "fields are numbers, strings, tuples"
        ) from None
    default = as_arrays(env.default_params())
    params = default if params is None else as_arrays(params)
    if shapes(params) != shapes(default):
        raise ValueError(
            f"params of {type(env).__name__} must look like its default_params(): expected "
            f"{shapes(default)}, got {shapes(params)}"
        )
    if own is not None and own != env:
        _check_spaces(own, env, params)
    return env, params


def _check_spaces(own: Env, env: Env, params: Any) -> None:
    mine = own.default_params()
    for kind, built, got in (
        ("observation", own.observation_space(mine), env.observation_space(params)),
        ("action", own.action_space(mine), env.action_space(params)),
    ):
        if _space_shapes(built) != _space_shapes(got):
            raise ValueError(
                f"the {kind}s of {type(env).__name__} are {got}, but the algorithm was built for "
                f"those of {type(own).__name__}: {built}"
            )


def _space_shapes(space: spaces.Space) -> Any:
    """What has to agree between two spaces: structure, shapes, types, numbers of choices."""

    def leaf(s: Any) -> Any:
        return s if not isinstance(s, spaces.Box) else (s.shape, str(s.dtype))

    leaves, treedef = jax.tree.flatten(space, is_leaf=spaces.is_leaf)
    return [leaf(s) for s in leaves], treedef


def t95(degrees: int) -> float:
    """The 97.5 % quantile of Student's t; beyond 10 degrees by its series about the normal's."""
    table = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
    if degrees <= len(table):
        return table[degrees - 1] if degrees > 0 else math.nan
    return 1.95996 + 2.3723 / degrees + 2.8225 / degrees**2 + 2.5559 / degrees**3
