"""Whether an environment and a network can be fused, and why not; the choice that follows."""

import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastrl.kernels.fused_rollout import heads, network
from fastrl.kernels.fused_rollout.block import Kept
from fastrl.kernels.fused_rollout.kernel import Launch
from fastrl.kernels.fused_rollout.layout import Struct
from fastrl.kernels.fused_rollout.program import FusionError, Preprocess, build
from fastrl.kernels.fused_rollout.rollout import Rollout, fused_rollout, reference_rollout
from fastrl.kernels.scalarize_keys import key_struct
from fastrl.spaces import Box


class Choice(NamedTuple):
    """A rollout and why it is not the fused one; `reason` is None if it is."""

    rollout: Rollout
    reason: str | None


class _State(NamedTuple):
    env: Any
    observation: Any
    episode_return: Any
    episode_length: Any


def supports(
    env: Any,
    spec: network.NetworkSpec,
    *,
    task: Any = None,
    preprocess: Preprocess | None = None,
    statistics: Any = (),
    launch: Launch | None = None,
) -> str | None:
    """Why `env` with a network of this shape cannot be fused; None if it can.

    Traces `step` and `reset`, and lowers a kernel of two steps for CUDA, which needs no GPU and
    takes about a second.  The reason names the primitive that has no form in the kernel, whether
    `step` or `reset` uses it, and the line.  What `env` itself raises is passed on.
    """
    launch = (launch or Launch())._replace(interpret=False)
    task = env.default_params() if task is None else task
    try:
        build(env, spec, task, preprocess, statistics)
    except FusionError as error:
        return str(error)
    rollout = fused_rollout(env, spec, preprocess=preprocess, launch=launch)
    params = _params(env, spec, task)
    state = _state(env, task, launch.block or 64)

    def program(params: Any, key: Any, state: Any, task: Any, statistics: Any) -> Any:
        return rollout(params, key, state, task, 2, statistics)

    traced = jax.jit(program).trace(params, key_struct(), state, task, statistics)
    try:
        with warnings.catch_warnings():  # JAX 0.11 calls its Triton lowering deprecated
            warnings.simplefilter("ignore", DeprecationWarning)
            traced.lower(lowering_platforms=("cuda",))
    except Exception as error:  # Pallas raises what its rules raise, of any type
        return f"Pallas does not lower the kernel for CUDA: {_first_line(error)}"
    return None


def choose(
    env: Any,
    spec: network.NetworkSpec,
    *,
    task: Any = None,
    kept: Kept | None = None,
    preprocess: Preprocess | None = None,
    statistics: Any = (),
    launch: Launch | None = None,
    platform: str | None = None,
) -> Choice:
    """The fused rollout on an NVIDIA GPU that can have it, else the XLA scan and the reason.

    `platform` is "gpu" or another name of a backend, by default that of JAX's first device.
    """
    platform = platform or jax.default_backend()
    if platform not in ("gpu", "cuda"):
        reason = f"the kernel is for NVIDIA GPUs, this is {platform}"
    else:
        reason = supports(
            env, spec, task=task, preprocess=preprocess, statistics=statistics, launch=launch
        )
    if reason is None:
        fused = fused_rollout(env, spec, kept=kept, preprocess=preprocess, launch=launch)
        return Choice(fused, None)
    return Choice(reference_rollout(env, spec, kept=kept, preprocess=preprocess), reason)


def _params(env: Any, spec: network.NetworkSpec, task: Any) -> Any:
    observation_space, action_space = env.observation_space(task), env.action_space(task)
    sizes = heads.num_inputs(observation_space), heads.num_outputs(action_space)
    return network.flax_structs(spec, *sizes, isinstance(action_space, Box))


def _state(env: Any, task: Any, num_envs: int) -> _State:
    def start(keys: Any, task: Any) -> Any:
        return jax.vmap(env.reset, (0, None))(keys, task)

    state, observation = jax.eval_shape(start, key_struct((num_envs,)), task)
    sums = Struct((num_envs,), np.float32), Struct((num_envs,), jnp.int32)
    return _State(state, observation, *sums)


def _first_line(error: Exception) -> str:
    """Of the cause, where Pallas has put its own text around it."""
    inner = error.__cause__ or error
    lines = [line for line in str(inner).splitlines() if line.strip()]
    return f"{type(inner).__name__}: {lines[0] if lines else ''}"
