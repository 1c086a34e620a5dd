"""The Pallas kernel: a block of environments per program, `num_steps` steps in a loop."""

import functools
import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from fastrl.kernels.fused_rollout.block import Carry, Kept, Keys, Record, one_step
from fastrl.kernels.fused_rollout.layout import Struct
from fastrl.kernels.fused_rollout.network import Layer, Network, Weights
from fastrl.kernels.fused_rollout.program import Program
from fastrl.kernels.scalarize_cells import KeyCell

# How the products of hidden layers are taken: in float32 without tensor cores, on tensor cores as
# three products of halves, with errors like float32's, or in one, with 10 bits of mantissa (as
# XLA does on such GPUs unless `jax_default_matmul_precision` says otherwise).
Products = Literal["float32", "tf32x3", "tf32"]
PRODUCTS = {
    "float32": jax.lax.DotAlgorithmPreset.F32_F32_F32,
    "tf32x3": jax.lax.DotAlgorithmPreset.TF32_TF32_F32_X3,
    "tf32": jax.lax.DotAlgorithmPreset.TF32_TF32_F32,
}


class Launch(NamedTuple):
    """How the kernel is launched; changes numbers by rounding only, coarsely with "tf32".

    What is None depends on the number of environments, or on JAX's precision of products.
    """

    block: int | None = None  # environments per program: a power of two of at least 16
    num_warps: int | None = None
    num_stages: int = 1
    products: Products | None = None  # of hidden layers
    interpret: bool = False  # run as ordinary JAX, for tests on any device

    def of(self, num_envs: int) -> "Launch":
        """The launch for so many environments: what was fastest on an H100 (docs)."""
        block, warps = next(sizes for most, *sizes in _SIZES if num_envs <= most)
        if self.block is not None:
            block, warps = self.block, max(1, self.block // 16)
        return self._replace(
            block=block,
            num_warps=self.num_warps or warps,
            products=self.products or _default_products(),
        )


_SIZES = ((8192, 16, 4), (32768, 64, 4), (math.inf, 128, 8))  # environments, block, warps


def _default_products() -> Products:
    """What XLA takes for a product of float32 on such a GPU: tf32, unless the user wants more."""
    asked = str(jax.config.values["jax_default_matmul_precision"])
    return "tf32" if asked in ("None", "default", "high", "tensorfloat32") else "float32"


class Inputs(NamedTuple):
    keys: Any  # uint32 [T, 6]: of policy, step and reset
    task: Any  # arrays [K]
    statistics: Any
    weights: Any
    state: Any  # arrays [K, N]
    observation: Any
    episode_return: Any  # [N]
    episode_length: Any


class Outputs(NamedTuple):
    carry: Any  # a Carry of arrays [K, N] and [N]
    record: Any  # a Record of arrays [T, K, N] and [T, N]


def call(program: Program, kept: Kept, launch: Launch, num_steps: int, inputs: Inputs) -> Outputs:
    """Runs the kernel. `N` need not be a multiple of the block: the last one is filled up."""
    num_envs = inputs.episode_return.shape[0]
    launch = launch.of(num_envs)
    block = _block(launch)
    full = -(-num_envs // block) * block
    padded = inputs._replace(
        **{name: _fill(getattr(inputs, name), full) for name in Inputs._fields[4:]}
    )
    shapes = _output_shapes(program, kept, num_steps, full)
    kernel = functools.partial(_kernel, program, kept, launch, num_steps)
    outputs = pl.pallas_call(
        kernel,
        out_shape=shapes,
        grid=(full // block,),
        in_specs=(_input_specs(padded, block),),
        out_specs=jax.tree.map(lambda s: _by_env(s, block), shapes),
        interpret=launch.interpret,
        compiler_params=triton.CompilerParams(
            num_warps=launch.num_warps, num_stages=launch.num_stages
        ),
        name="fused_rollout",
    )(padded)
    return jax.tree.map(lambda x: x[..., :num_envs], outputs)


def transposed_heads(weights: Weights) -> Weights:
    """A row of weights per output, as `network.load` expects them."""

    def head(layer: Layer) -> Layer:
        return Layer(layer.kernel.T, layer.bias)

    critic_head = None if weights.critic_head is None else head(weights.critic_head)
    return weights._replace(actor_head=head(weights.actor_head), critic_head=critic_head)


def _kernel(
    program: Program,
    kept: Kept,
    launch: Launch,
    num_steps: int,
    inputs: Inputs,
    carry_refs: Any,
    record_refs: Any,
) -> None:
    block = _block(launch)
    precision = None if launch.interpret else PRODUCTS[launch.products or "float32"]
    dot = functools.partial(triton.dot, precision=precision)
    network = Network(program.spec, inputs.weights, dot)
    task = program.task.cells(lambda i, row: inputs.task[i][row])
    statistics = program.statistics.cells(lambda i, row: inputs.statistics[i][row])
    env = (pl.program_id(0) * block + jnp.arange(block)).astype(jnp.uint32)

    def body(t: jax.Array, carry: Carry) -> Carry:
        words = [inputs.keys[t, i] for i in range(6)]
        keys = Keys(*(KeyCell(*words[i : i + 2]) for i in (0, 2, 4)))
        carry, record = one_step(program, network, kept, task, statistics, keys, env, carry)
        _store(record_refs, record, t)
        return carry

    carry = jax.lax.fori_loop(0, num_steps, body, _first(program, inputs, block))
    _store(carry_refs, carry)


def _block(launch: Launch) -> int:
    assert launch.block is not None
    return launch.block


def _first(program: Program, inputs: Inputs, block: int) -> Carry:
    def rows(refs: Any) -> list[list[jax.Array]]:
        return [[ref[k, :] for k in range(ref.shape[0])] for ref in refs]

    zeros = jnp.zeros((block,), jnp.float32)
    return Carry(
        rows(inputs.state), rows(inputs.observation),
        inputs.episode_return[:], inputs.episode_length[:], zeros, zeros, zeros,
        [zeros] * _metric_count(program),
    )  # fmt: skip


def _store(refs: Any, values: Any, *time: Any) -> None:
    """Writes vectors into refs; a list of rows into the one ref of its leaf."""
    for ref, value in zip(refs, values, strict=True):
        if isinstance(ref, (tuple, list)):
            _store(ref, value, *time)
        elif isinstance(value, list):
            for k, row in enumerate(value):
                ref[(*time, k, slice(None))] = row
        else:
            ref[(*time, slice(None))] = value


def _metric_count(program: Program) -> int:
    return sum(stored.shape[0] for stored in program.metrics.stored)


def _output_shapes(program: Program, kept: Kept, num_steps: int, n: int) -> Outputs:
    def rows(layout: Any, *time: int) -> list[Struct]:
        return [Struct((*time, s.shape[0], n), s.dtype) for s in layout.stored]

    each, every = Struct((n,), np.float32), Struct((num_steps, n), np.float32)
    carry = Carry(
        rows(program.state), rows(program.observation), each, Struct((n,), np.int32),
        each, each, each, [each] * _metric_count(program),
    )  # fmt: skip
    record = Record(
        rows(program.observation, num_steps),
        rows(program.action, num_steps),
        every,
        every if kept.value else (),
        every,
        Struct((num_steps, n), np.int8),
        every if kept.final_value else (),
        rows(program.observation, num_steps) if kept.next_observation else (),
    )
    return Outputs(carry, record)


def _input_specs(inputs: Inputs, block: int) -> Inputs:
    shared = jax.tree.map(_whole, inputs[:4])
    return Inputs(*shared, *jax.tree.map(lambda x: _by_env(x, block), inputs[4:]))


def _whole(x: Any) -> pl.BlockSpec:
    return pl.BlockSpec(x.shape, lambda program: (0,) * x.ndim)


def _by_env(x: Any, block: int) -> pl.BlockSpec:
    """A block of environments, which are on the last axis."""
    lead = x.shape[:-1]
    return pl.BlockSpec((*lead, block), lambda program: (*(0 for _ in lead), program))


def _fill(tree: Any, n: int) -> Any:
    """Copies of the last environment up to `n`: legal states, whose results are dropped."""

    def one(x: jax.Array) -> jax.Array:
        return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, n - x.shape[-1])], mode="edge")

    return jax.tree.map(one, tree)
