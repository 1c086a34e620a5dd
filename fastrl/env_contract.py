"""The contract of an environment, one function a clause; `fastrl.check_env` runs them.

A check takes a `Case`, returns what it saw, and raises `Breach` where the contract is broken
or `Doubt` where it may be on purpose. Messages name the value and the way out.
"""

import copy
import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fastrl import spaces
from fastrl.env_case import NUM_COMPARED, Breach, Case, Doubt, assert_same, kind, named
from fastrl.types import Key, Step

CheckFunction = Callable[[Case], str]

_ARGUMENTS = {
    "default_params": (),
    "reset": ("key", "params"),
    "step": ("key", "state", "action", "params"),
    "observation_space": ("params",),
    "action_space": ("params",),
}


def methods(case: Case) -> str:
    """All methods of `Env` are there and take what they must."""
    env = case.env
    if isinstance(env, type):
        raise Breach(f"{env.__name__} is a class: give an environment, {env.__name__}()")
    if absent := [m for m in _ARGUMENTS if not callable(getattr(env, m, None))]:
        written = "; ".join(f"{m}({', '.join(('self', *_ARGUMENTS[m]))})" for m in absent)
        raise Breach(f"methods are missing: write {written}")
    for name, arguments in _ARGUMENTS.items():
        signature = inspect.signature(getattr(env, name))
        wanted = f"{name}({', '.join(('self', *arguments))})"
        try:
            signature.bind(*arguments)
        except TypeError:
            taken = ", ".join(signature.parameters)
            raise Breach(f"{name} takes ({taken}): it must be {wanted}") from None
    if not isinstance(getattr(env, "version", None), int):
        raise Doubt("there is no version: write `version: ClassVar[int] = 1` in the class")
    return f"all there, version {env.version}"


def equality(case: Case) -> str:
    """Equal environments are equal and hash alike, so that compiled programs are found again."""
    env, way_out = case.env, "make it a @dataclasses.dataclass(frozen=True)"
    try:
        hash(env)
    except TypeError as error:
        hint = "fields must be hashable (tuples, not arrays or lists), arrays belong in Params"
        raise Breach(f"it can't be hashed ({error}): {way_out}; {hint}") from None
    twin = copy.copy(env)
    if twin != env or hash(twin) != hash(env):
        raise Breach(f"a copy of it is not equal to it, so every copy compiles anew: {way_out}")
    return "a copy is equal and hashes alike"


def parameters(case: Case) -> str:
    """Params are a pytree of numbers, all of them traced."""
    params = case.params
    for name, leaf in named(params):
        try:
            jnp.asarray(leaf)
        except (TypeError, ValueError):
            raise Breach(
                f"Params{name} is {leaf!r:.80}, no number: make Params a NamedTuple of numbers, "
                "and choices fields of the environment"
            ) from None
    for name in _static_numbers(params):
        raise Breach(
            f"Params.{name} is no leaf of the pytree, so every other value compiles anew: "
            "make it an ordinary field of a NamedTuple"
        )
    return f"traced numbers: {len(jax.tree.leaves(params))}"


def space(case: Case) -> str:
    """Spaces are known when a program is built, whatever numbers the params have then."""
    for name in ("observation_space", "action_space"):
        for leaf in jax.tree.leaves(getattr(case, name), is_leaf=spaces.is_leaf):
            if not spaces.is_leaf(leaf):
                raise Breach(
                    f"{name} holds {leaf!r:.80}: use Discrete, MultiDiscrete and Box of "
                    "fastrl.spaces, or a dict, tuple or NamedTuple of them"
                )
    static = (case.observation_space, case.action_space)
    traced: list[Any] = []

    def build(params: Any) -> tuple[()]:
        traced.extend((case.env.observation_space(params), case.env.action_space(params)))
        return ()

    way_out = "make what a space needs a field of the environment"
    try:
        jax.eval_shape(build, case.params)
    except jax.errors.JAXTypeError:
        raise Breach(
            f"a space needs the value of a parameter, which programs trace: {way_out}"
        ) from None
    if tuple(traced) != static:
        raise Breach(f"spaces differ with traced params: {way_out}")
    return f"observation {_words(static[0])}, action {_words(static[1])}"


def reset(case: Case) -> str:
    """`reset` returns a state and a member of the observation space."""
    returned = case.env.reset(case.key, case.params)
    if not isinstance(returned, tuple) or len(returned) != 2:
        raise Breach(f"reset returned {kind(returned)}: return (state, observation)")
    _observed(case, returned[1], "the first observation")
    return f"an observation and a state (arrays: {len(jax.tree.leaves(returned[0]))})"


def step(case: Case) -> str:
    """`step` returns a state and a `Step` of the right types."""
    state = case.env.reset(case.key, case.params)[0]
    action = spaces.sample(case.key, case.action_space)
    returned = case.env.step(case.key, state, action, case.params)
    wanted = "return (state, Step(observation, reward, terminated, truncated))"
    if not isinstance(returned, tuple) or len(returned) != 2:
        raise Breach(f"step returned {kind(returned)}: {wanted}")
    happened = returned[1]
    if missing := [f for f in Step._fields if not hasattr(happened, f)]:
        raise Breach(f"step returned {kind(happened)} without {', '.join(missing)}: {wanted}")
    _observed(case, happened.observation, "the observation of a step")
    _scalar("reward", happened.reward, jnp.float32, "jnp.float32(...) or .astype(jnp.float32)")
    for flag in ("terminated", "truncated"):
        _scalar(flag, getattr(happened, flag), jnp.bool_, "a comparison, or jnp.bool_(...)")
    if not isinstance(happened.metrics, dict):
        raise Breach(f"metrics is {kind(happened.metrics)}: return a dict of scalars")
    for name, value in happened.metrics.items():
        if jnp.shape(value) != ():
            raise Breach(f"metrics[{name!r}] has shape {jnp.shape(value)}: return scalars")
    return "a state, float32 reward and two flags"


def same_key(case: Case) -> str:
    """The key is the only source of chance."""
    first, second = (case.env.reset(case.key, case.params) for _ in range(2))
    way_out = "draw with jax.random from the key given, and keep nothing between calls"
    assert_same(first, second, f"two resets with the same key differ: {way_out}", tolerance=0.0)
    key, state, action, result = case.eager_steps[0]
    again = case.env.step(key, state, action, case.params)
    assert_same(result, again, f"two steps with the same key differ: {way_out}", tolerance=0.0)
    return "the same key gives the same result"


def compiled(case: Case) -> str:
    """`jax.jit` changes nothing."""
    jitted = case.jit_reset(case.key, case.params)
    assert_same(case.env.reset(case.key, case.params), jitted, "reset differs under jax.jit")
    for key, state, action, result in case.eager_steps:
        jitted = case.jit_step(key, state, action, case.params)
        assert_same(result, jitted, "step differs under jax.jit")
    return f"reset and {NUM_COMPARED} steps are equal with and without jax.jit"


def state_types(case: Case) -> str:
    """A step preserves the state's structure, shapes and types."""
    state = case.jit_reset(case.key, case.params)[0]
    action = spaces.sample(case.key, case.action_space)
    after = jax.eval_shape(case.jit_step, case.key, state, action, case.params)[0]
    if jax.tree.structure(state) != jax.tree.structure(after):
        raise Breach(
            f"the state is {jax.tree.structure(state)} after reset and "
            f"{jax.tree.structure(after)} after step: return the same structure"
        )
    for (name, a), (_, b) in zip(named(state), named(after), strict=True):
        if _type(a) != _type(b):
            raise Breach(
                f"state{name} is {_type(a)} after reset and {_type(b)} after step: make them "
                "alike, for example with jnp.float32(0) or jnp.int32(0) in reset"
            )
    return "a step preserves them"


def batched(case: Case) -> str:
    """`jax.vmap` is a loop."""
    n, keys = min(NUM_COMPARED, case.num_envs), case.keys
    actions = spaces.sample(case.key, case.action_space, (case.num_envs,))
    batch = case.starts
    stepped = jax.vmap(case.jit_step, (0, 0, 0, None))(keys, batch[0], actions, case.params)
    for i in range(n):
        one = jax.tree.map(lambda x, i=i: x[i], (batch, stepped, actions))
        alone = case.jit_reset(keys[i], case.params)
        assert_same(alone, one[0], "reset differs under jax.vmap")
        after = case.jit_step(keys[i], one[0][0], one[2], case.params)
        assert_same(after, one[1], "step differs under jax.vmap")
    return f"{n} environments at once are equal to one after the other"


def start_states(case: Case) -> str:
    """Episodes start in different states, or draw nothing."""
    leaves = jax.tree.leaves(case.starts)
    own_keys = [x for x in leaves if jnp.issubdtype(x.dtype, jax.dtypes.prng_key)]
    leaves = [np.asarray(x) for x in leaves if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key)]
    if any((x != x[:1]).any() for x in leaves):
        return f"{case.num_envs} starts differ"
    jaxpr = jax.make_jaxpr(case.env.reset)(case.key, case.params).jaxpr
    draws = any(jaxpr.invars[0] is v for eqn in jaxpr.eqns for v in eqn.invars)
    if draws and not own_keys:
        raise Breach(
            f"{case.num_envs} starts are identical although reset draws from its key: "
            "does what is drawn reach the state?"
        )
    raise Doubt("every episode has the same start: right if the task is meant so")


def retracing(case: Case) -> str:
    """Other states and other numbers in params compile nothing."""
    traces = 0

    def counted(key: Key, state: Any, action: Any, params: Any) -> Any:
        nonlocal traces
        traces += 1
        return case.env.step(key, state, action, params)

    stepped = jax.jit(counted)  # only traced: what would be compiled shows then
    state, action = case.jit_reset(case.key, case.params)[0], case.eager_steps[0][2]
    after, _ = case.jit_step(case.key, state, action, case.params)
    stepped.trace(case.key, state, action, case.params)
    stepped.trace(case.key, after, action, case.params)
    if traces > 1:
        raise Breach("a second step was traced again: the state changes its types")
    stepped.trace(case.key, after, action, jax.tree.map(_other, case.params))
    if traces > 1:
        raise Breach("other numbers in params were traced again: keep the types of its leaves")
    return "one trace serves all states and params"


def rollout(case: Case) -> str:
    """Random actions are accepted, in a scan over a batch."""
    played = case.played
    return f"{case.num_steps} random steps of {case.num_envs} environments, {played.ends} ends"


def flags(case: Case) -> str:
    """`terminated` and `truncated` are never true together."""
    if count := int(case.played.both):
        raise Breach(
            f"terminated and truncated were both true {count} times: a time limit in a terminal "
            "state is a termination, truncated = (time >= limit) & ~terminated"
        )
    return "terminated and truncated never together"


def observations(case: Case) -> str:
    """All observations are members of the observation space."""
    for extreme in (case.played.least, case.played.greatest):
        if why := spaces.explain(case.observation_space, jax.device_get(extreme)):
            raise Breach(f"an observation is outside the observation space: {_short(why)}")
    if count := int(case.played.not_finite):
        raise Breach(f"{count} steps had an observation that is not finite")
    return "all within the observation space"


def rewards(case: Case) -> str:
    """Rewards are finite."""
    if count := int(case.played.bad_rewards):
        raise Breach(f"{count} rewards are not finite: look for divisions by 0 and overflows")
    least, greatest = float(case.played.least_reward), float(case.played.greatest_reward)
    return f"all finite, from {least:.4g} to {greatest:.4g}"


def episode_ends(case: Case) -> str:
    """Episodes end within the steps that were played."""
    terminated, truncated = int(case.played.terminated), int(case.played.truncated)
    if not terminated + truncated:
        raise Doubt(f"no end seen in {case.num_steps} steps: right if episodes are longer")
    longest = int(case.played.longest)
    return f"{terminated} terminated, {truncated} truncated, longest {longest} steps"


def speed(case: Case) -> str:
    """How fast it steps on this machine."""
    return f"{case.steps_per_second or 0:,.0f} steps/s in one scan, {case.num_envs} at a time"


def pictures(case: Case) -> str:
    """`render`, if there is one, draws a uint8 picture."""
    if not hasattr(case.env, "render"):
        return "there is no render method, which is optional"
    image = case.env.render(case.env.reset(case.key, case.params)[0], case.params)
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        raise Breach(f"render returned {kind(image)}: return a NumPy array of uint8")
    if image.ndim != 3 or image.shape[2] != 3:
        raise Breach(f"render returned shape {image.shape}: return [height, width, 3]")
    return f"{image.shape[1]} by {image.shape[0]} pixels"


CHECKS: tuple[tuple[str, CheckFunction, bool], ...] = (  # name, check, do later ones need it
    ("methods", methods, True),
    ("equality", equality, False),
    ("params", parameters, True),
    ("spaces", space, True),
    ("reset", reset, True),
    ("step", step, True),
    ("same key", same_key, True),
    ("jit", compiled, True),
    ("state types", state_types, True),
    ("vmap", batched, True),
    ("start states", start_states, False),
    ("retracing", retracing, False),
    ("rollout", rollout, True),
    ("flags", flags, False),
    ("observations", observations, False),
    ("rewards", rewards, False),
    ("episode ends", episode_ends, False),
    ("speed", speed, False),
    ("render", pictures, False),
)


def _observed(case: Case, observation: Any, what: str) -> None:
    observation = jax.tree.map(jnp.asarray, observation)
    if why := spaces.explain(case.observation_space, observation):
        raise Breach(f"{what} is no member of the observation space: {_short(why)}")


def _scalar(name: str, value: Any, dtype: Any, way_out: str) -> None:
    value = jnp.asarray(value)
    if value.shape != () or value.dtype != dtype:
        raise Breach(
            f"{name} is {_type(value)}, it must be {jnp.dtype(dtype).name}[]: write {way_out}"
        )


def _type(array: Any) -> str:
    weak = ", weakly typed" if getattr(array, "weak_type", False) else ""
    return f"{array.dtype}{list(array.shape)}{weak}"


def _static_numbers(params: Any) -> list[str]:
    """The fields of a dataclass whose numbers are part of the pytree's structure."""
    if not dataclasses.is_dataclass(params) or isinstance(params, type):
        return []
    structure = jax.tree.structure(params)
    return [
        f.name
        for f in dataclasses.fields(params)
        if f.init
        and isinstance(number := getattr(params, f.name), float)
        and jax.tree.structure(dataclasses.replace(params, **{f.name: number + 1})) != structure
    ]


def _other(leaf: Any) -> Any:
    """Another number of the same type; whole numbers stay, they may count something."""
    return leaf * 1.01 if jnp.issubdtype(jnp.result_type(leaf), jnp.floating) else leaf


def _words(space: Any) -> str:
    return _short(str(spaces.tree_map(lambda s: f"{type(s).__name__}{list(s.shape)}", space)))


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 240 else text[:240] + " ..."
