"""Worlds that change over the life of a stream: `Changing`, `PermutedObservations`, `lifelong`.

What is now depends on the age of the stream in steps, over all episodes: `params.age`, that at
the start of the episode, and the steps since then.  A change may come in the middle of an episode.

`lifelong` is the Reset that lets a stream age: each episode starts at the age that was reached.
Learners take it for these worlds by default.  With any other Reset every episode starts at
`params.age`, 0 unless set, which is how a policy is evaluated on the world of a certain age:
`evaluate(..., params=params._replace(age=30_000))`.

    env = Changing(CartPole(), {"gravity": (9.8, 20.0)}, period=10_000)
    algorithm = stream_q.make(env)
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastrl import door
from fastrl.envs import checks
from fastrl.kernels import permutation as permutations
from fastrl.registry import unknown
from fastrl.spaces import Box, Discrete, Space
from fastrl.transforms.base import Transform, leaf_spaces, map_spaces
from fastrl.transforms.episode import check_count
from fastrl.types import (
    Action,
    Array,
    Env,
    Key,
    Observation,
    Pool,
    PyTree,
    Reset,
    ResetFactory,
    Step,
)


class Life(NamedTuple):
    """The State of these transforms."""

    env: Any
    time: Array  # int32, steps of this episode


def lifelong(env: Env) -> Reset:
    """Every episode starts at the age that the stream has reached, by `env.reset` there.

    For environments with a `Changing` or `PermutedObservations` anywhere in them, and learners of
    any number of environments: they age together.  Raises ValueError where nothing ages.
    """
    if not _ages(env):
        raise ValueError(
            f"lifelong: nothing in {type(env).__name__} changes with age: put a Changing or "
            "PermutedObservations around it"
        )

    def init(key: Key, params: Any, num_envs: int) -> PyTree:
        return jnp.int32(-1)  # the first draw is at age 0, and then there is one at every step

    def draw(key: Key, memory: PyTree, params: Any, done: Array) -> Pool:
        age = memory + 1
        aged = jax.tree.map(jnp.asarray, at_age(env, params, age))
        keys = jax.random.split(key, done.shape[0])
        state, observation = jax.vmap(env.reset, (0, None))(keys, aged)
        each = jax.tree.map(lambda x: jnp.broadcast_to(x, (*done.shape, *x.shape)), aged)
        return Pool(age, each, state, observation)

    return Reset(init, draw, per_env_params=True)


class ChangingParams(NamedTuple):
    env: Any
    variants: dict[str, Any]  # [M] each: what the numbers of `env` are, variant by variant
    period: int | Array  # steps from one variant to the next
    age: int | Array = 0
    seed: int | Array = 0


@dataclasses.dataclass(frozen=True)
class Changing(Transform):
    """Numbers of `env`'s params go through `variants`, a new one every `period` steps.

    `variants` names numbers of the params and gives `M` values of each: `{"goal": (0, 3)}` (of an
    inner transform `{"env.gravity": ...}`).  `how` says what is between two variants: "switch",
    nothing, or "drift", a straight line from one to the next.  They come in a cycle, or with
    `order="random"` each is drawn by chance, from the `seed` of the params.
    """

    variants: Any
    period: int = 10_000
    how: Literal["switch", "drift"] = "switch"
    order: Literal["cycle", "random"] = "cycle"

    own_state: ClassVar[bool] = True
    own_params: ClassVar[bool] = True
    default_reset: ClassVar[ResetFactory] = staticmethod(lifelong)

    def _check(self) -> None:
        check_count(self, "period")
        door.choice("how", self.how, ("switch", "drift"))
        door.choice("order", self.order, ("cycle", "random"))
        given = self.variants.items() if isinstance(self.variants, Mapping) else self.variants
        variants = tuple((str(name), tuple(values)) for name, values in given)
        object.__setattr__(self, "variants", variants)
        sizes = {len(values) for _, values in variants}
        if len(sizes) != 1 or 0 in sizes or not all(np.isfinite(v).all() for _, v in variants):
            raise ValueError(
                f"Changing(variants={dict(variants)}): needs as many finite numbers of each name"
            )
        for name, _ in variants:
            _number(self.env.default_params(), name)

    def default_params(self) -> ChangingParams:
        inner = self.env.default_params()
        variants = {
            name: np.asarray(values, jnp.asarray(_number(inner, name)).dtype)
            for name, values in self.variants
        }
        return ChangingParams(inner, variants, self.period)

    def current(self, params: ChangingParams, time: Array | int = 0) -> Any:
        """The params of `env`, `time` steps into an episode."""
        age = jnp.asarray(params.age + time)
        stage, rest = age // params.period, age % params.period
        now, following = self._variant(params, stage), self._variant(params, stage + 1)
        inner = params.env
        for name, values in params.variants.items():
            values = jnp.asarray(values)
            value = values[now]
            if self.how == "drift":
                share = rest / params.period
                value = value + share * (values[following] - value)
                rounds = jnp.issubdtype(values.dtype, jnp.integer)
                value = jnp.round(value) if rounds else value
            inner = _replaced(inner, name.split("."), value.astype(values.dtype))
        return inner

    def reset(self, key: Key, params: ChangingParams) -> tuple[Life, Observation]:
        state, observation = self.env.reset(key, self.current(params))
        return Life(state, jnp.int32(0)), observation

    def step(
        self, key: Key, state: Life, action: Action, params: ChangingParams
    ) -> tuple[Life, Step]:
        checks.step(self, action, params)  # before the params of now are put together
        inner, step = self.env.step(key, state.env, action, self.current(params, state.time))
        return Life(inner, state.time + 1), step

    def _variant(self, params: ChangingParams, stage: Array) -> Array:
        """Which variant it is in a stage."""
        count = len(self.variants[0][1])
        if self.order == "cycle":
            return stage % count
        key = jax.random.fold_in(jax.random.key(params.seed), stage)
        return jax.random.randint(key, (), 0, count)


class PermutedParams(NamedTuple):
    env: Any
    period: int | Array  # steps from one permutation to the next
    age: int | Array = 0
    seed: int | Array = 0


@dataclasses.dataclass(frozen=True)
class PermutedObservations(Transform):
    """The entries of observations change places, anew every `period` steps.

    Of a Box the entries are permuted, of a Discrete observation the numbers; what the world does
    stays, and so does all that an agent needs to know but for where it finds it.  At first they
    are as `env` has them; the permutations are drawn from the `seed` of the params.
    """

    period: int = 10_000

    own_state: ClassVar[bool] = True
    own_params: ClassVar[bool] = True
    default_reset: ClassVar[ResetFactory] = staticmethod(lifelong)

    def _check(self) -> None:
        check_count(self, "period")
        space = self.env.observation_space(self.env.default_params())
        if not any(map(_permutable, leaf_spaces(space))):
            raise ValueError(
                f"PermutedObservations needs a Box of several entries or Discrete, not {space}"
            )

    def default_params(self) -> PermutedParams:
        return PermutedParams(self.env.default_params(), self.period)

    def reset(self, key: Key, params: PermutedParams) -> tuple[Life, Observation]:
        state, observation = self.env.reset(key, params.env)
        return Life(state, jnp.int32(0)), self._seen(observation, params, 0)

    def step(
        self, key: Key, state: Life, action: Action, params: PermutedParams
    ) -> tuple[Life, Step]:
        inner, step = self.env.step(key, state.env, action, params.env)
        time = state.time + 1
        seen = self._seen(step.observation, params, time)
        return Life(inner, time), step._replace(observation=seen)

    def observation_space(self, params: PermutedParams) -> Space:
        def widened(space: Space) -> Space:
            if not (isinstance(space, Box) and _permutable(space)):
                return space
            low, high = (np.asarray(b) for b in space.bounds())
            return Box(low.min().item(), high.max().item(), space.shape, space.dtype)

        return map_spaces(widened, self.env.observation_space(params.env))

    def _seen(self, observation: Observation, params: PermutedParams, time: Array | int) -> Any:
        stage = (params.age + time) // params.period
        key = jax.random.fold_in(jax.random.key(params.seed), stage)

        def permuted(space: Space, x: Array) -> Array:
            if not _permutable(space):
                return x
            size = space.n if isinstance(space, Discrete) else x.size
            order = permutations.permutation(key, size, 1)
            order = jnp.where(stage == 0, jnp.arange(size), order)
            if isinstance(space, Discrete):
                return order[x].astype(space.dtype)
            return x.reshape(-1)[order].reshape(x.shape)

        return map_spaces(permuted, self.env.observation_space(params.env), observation)


def at_age(env: Any, params: Any, age: Array | int) -> Any:
    """`params` of `env` with `age` as the age of everything in it that changes."""
    if not isinstance(env, Transform):
        return params
    inner = at_age(env.env, env.inner_params(params), age)
    params = params._replace(env=inner) if env.own_params else inner
    return params._replace(age=age) if isinstance(env, _AGING) else params


_AGING = (Changing, PermutedObservations)


def _ages(env: Any) -> bool:
    return isinstance(env, _AGING) or (isinstance(env, Transform) and _ages(env.env))


def _permutable(space: Space) -> bool:
    if isinstance(space, Discrete):
        return space.n > 1
    return isinstance(space, Box) and int(np.prod(space.shape)) > 1


def _number(params: Any, name: str) -> Any:
    """The number called `name` in a record of params. Raises ValueError, naming what there is."""
    at = params
    for part in name.split("."):
        fields = getattr(at, "_fields", ())
        if part not in fields:
            raise ValueError(f"Changing(variants={{{name!r}: ...}}): " + unknown(
                "number of the params", part, fields
            ))  # fmt: skip
        at = getattr(at, part)
    if np.ndim(at) or hasattr(at, "_fields"):
        raise ValueError(f"Changing(variants={{{name!r}: ...}}): {name} is no single number")
    return at


def _replaced(params: Any, path: list[str], value: Array) -> Any:
    """`params` with `value` at the place that `path` leads to."""
    name, *rest = path
    inner = _replaced(getattr(params, name), rest, value) if rest else value
    return params._replace(**{name: inner})
