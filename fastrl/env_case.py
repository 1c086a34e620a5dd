"""An environment under check: what is tried with it, and how results are compared.

The material of the checks in `fastrl.env_contract`.
"""

import functools
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastrl import reset as resets
from fastrl import spaces
from fastrl.kernels import prng
from fastrl.types import Array, Key, PyTree, Step, Transition
from fastrl.vec import VecEnv, VecState

TOLERANCE = 1e-4  # between compiled and uncompiled numbers, relative and absolute
NUM_COMPARED = 3  # steps and environments that are compared one by one


class Breach(Exception):  # noqa: N818 - not an error of ours
    """The contract is broken."""


class Doubt(Exception):  # noqa: N818
    """Allowed, but worth a look."""


class Case:
    """An environment under check, and what several checks use, made when first asked for."""

    def __init__(self, env: Any, seed: int, num_envs: int, num_steps: int) -> None:
        self.env, self.num_envs, self.num_steps = env, num_envs, num_steps
        self.key = prng.key(seed)
        self.steps_per_second: float | None = None
        # Lambdas, since jit would hash a bound method and with it the environment.
        self.jit_reset = jax.jit(lambda key, params: env.reset(key, params))
        self.jit_step = jax.jit(lambda key, s, action, params: env.step(key, s, action, params))

    @functools.cached_property
    def params(self) -> Any:
        return self.env.default_params()

    @functools.cached_property
    def observation_space(self) -> Any:
        return self.env.observation_space(self.params)

    @functools.cached_property
    def action_space(self) -> Any:
        return self.env.action_space(self.params)

    @functools.cached_property
    def eager_steps(self) -> list[tuple[Key, Any, Any, tuple[Any, Step]]]:
        """(key, state, action, result) of some steps, without compilation."""
        steps, state = [], self.env.reset(self.key, self.params)[0]
        for key in jax.random.split(self.key, NUM_COMPARED):
            action = spaces.sample(key, self.action_space)
            result = self.env.step(key, state, action, self.params)
            steps.append((key, state, action, result))
            state = result[0]
        return steps

    @functools.cached_property
    def keys(self) -> Key:
        """One for each environment of a batch."""
        return jax.random.split(self.key, self.num_envs)

    @functools.cached_property
    def starts(self) -> tuple[Any, Any]:
        """`num_envs` start states and observations, from `keys`."""
        return jax.vmap(self.jit_reset, (0, None))(self.keys, self.params)

    @functools.cached_property
    def played(self) -> "Played":
        """What a rollout of random actions met."""
        played, self.steps_per_second = _play(self)
        return played


class Played(NamedTuple):
    """Counts and extremes over all steps and environments of a rollout."""

    both: Array  # steps with both flags
    terminated: Array
    truncated: Array
    longest: Array  # steps of the longest episode that ended
    bad_rewards: Array
    least_reward: Array
    greatest_reward: Array
    not_finite: Array  # steps with an observation that is infinite or NaN
    least: PyTree  # entry by entry, the smallest observation
    greatest: PyTree

    @property
    def ends(self) -> int:
        return int(self.terminated) + int(self.truncated)


def _play(case: Case) -> tuple[Played, float]:
    """A rollout of random actions with resets, and its steps a second once compiled."""
    n = case.num_envs
    make = functools.partial(resets.pool, size=n) if hasattr(case.env, "dear_reset") else None
    vec_env = VecEnv(case.env, n, (make or resets.fresh)(case.env))

    def body(carry: tuple[Any, Played], key: Key) -> tuple[tuple[Any, Played], None]:
        state, played = carry
        lengths = state.episode_length + 1
        action = spaces.sample(jax.random.fold_in(key, 1), case.action_space, (n,))
        state, seen, _ = vec_env.step(key, state, action, case.params)
        return (state, _count(played, seen, state.observation, lengths)), None

    @jax.jit
    def play(key: Key, state: VecState) -> tuple[Any, Played]:
        keys = jax.random.split(key, case.num_steps)
        return jax.lax.scan(body, (state, _nothing(state.observation)), keys)[0]

    # Without a Reset's memory the starts are there already, and need no program of their own.
    state = jax.jit(vec_env.init)(case.key, case.params) if make else _begun(*case.starts)
    jax.block_until_ready(play(case.key, state))
    began = time.perf_counter()
    _, played = jax.block_until_ready(play(case.key, state))
    return played, n * case.num_steps / (time.perf_counter() - began)


def _begun(state: PyTree, observation: PyTree) -> VecState:
    """A batch whose episodes begin, with nothing kept for later ones."""
    n = jax.tree.leaves(observation)[0].shape[0]
    return VecState((), (), state, observation, jnp.zeros(n, jnp.float32), jnp.zeros(n, jnp.int32))


def _nothing(observation: PyTree) -> Played:
    """Before any step: all but the observation `[N, ...]` counts nothing."""
    zero, infinity = jnp.int32(0), jnp.float32(jnp.inf)
    least = jax.tree.map(lambda x: x.min(0), observation)
    greatest = jax.tree.map(lambda x: x.max(0), observation)
    return Played(zero, zero, zero, zero, zero, infinity, -infinity, zero, least, greatest)


def _count(played: Played, seen: Transition, following: PyTree, lengths: Array) -> Played:
    """Adds one step of all environments; `following` is what they stand at after resets."""
    done = seen.terminated | seen.truncated
    met = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), seen.next_observation, following)
    finite = [jnp.isfinite(x).all() for x in jax.tree.leaves(met)]
    return Played(
        played.both + (seen.terminated & seen.truncated).sum(),
        played.terminated + seen.terminated.sum(),
        played.truncated + seen.truncated.sum(),
        jnp.maximum(played.longest, jnp.where(done, lengths, 0).max()),
        played.bad_rewards + (~jnp.isfinite(seen.reward)).sum(),
        jnp.minimum(played.least_reward, seen.reward.min()),
        jnp.maximum(played.greatest_reward, seen.reward.max()),
        played.not_finite + (~jnp.stack(finite).all()).astype(jnp.int32),
        jax.tree.map(lambda least, x: jnp.minimum(least, x.min(0)), played.least, met),
        jax.tree.map(lambda most, x: jnp.maximum(most, x.max(0)), played.greatest, met),
    )


class _Returned(NamedTuple):
    """What `reset` or `step` returned; its field names appear in messages."""

    state: Any
    outcome: Any  # the first observation, or a Step


def assert_same(
    first: tuple[Any, Any], second: tuple[Any, Any], message: str, tolerance: float = TOLERANCE
) -> None:
    """Raises Breach with `message` and the first leaf in which two results differ."""
    first, second = _Returned(*first), _Returned(*second)
    if jax.tree.structure(first) != jax.tree.structure(second):
        raise Breach(f"{message}: not even the structure is the same")
    for (name, a), (_, b) in zip(named(first), named(second), strict=True):
        a, b = _plain(a), _plain(b)
        if a.shape != b.shape or not np.allclose(a, b, tolerance, tolerance, equal_nan=True):
            raise Breach(f"{message}: {name.lstrip('.')} is {a!s:.80} and {b!s:.80}")


def named(tree: PyTree) -> list[tuple[str, Any]]:
    """The leaves with their names, such as `.position`."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in leaves]


def kind(value: Any) -> str:
    """What `value` is, in a few words."""
    if isinstance(value, tuple):
        return f"a {type(value).__name__} of {len(value)} values"
    return f"{value!r:.60} (a {type(value).__name__})"


def _plain(leaf: Any) -> np.ndarray:
    if jnp.issubdtype(jnp.asarray(leaf).dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf)
