"""Members on a leading axis: many seeds, hyper-parameters and tasks in one program.

What batches well depends on the platform.  A GPU or TPU wants `vmap`.  On a CPU, `vmap` turns
the many small matrix products of a training into batched ones, which run at half speed on
several cores (and in jaxlib 0.10 can deadlock in XLA's thread pool); one member after the
other (`lax.map`), on one XLA device per core, is fastest.  Where a member is so small that most of
its time is spent between operations, as in the streams of `fastrl.streaming`, blocks of members
side by side are faster still: an Algorithm says how many (`Algorithm.side_by_side`), as many as
a core's cache holds.  The numbers are the same.
"""

import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec

from fastrl import door
from fastrl.metrics import Metrics
from fastrl.run import axes, run
from fastrl.types import Algorithm, HParamsT, Key, StateT

Batching = Literal["auto", "vmap", "map", "sharded"]
AXIS = "member"


def members(
    algorithm: Algorithm[HParamsT, StateT],
    steps: float,
    batching: Batching = "auto",
    block: int | None = None,
) -> Callable[[Key, HParamsT, Any], tuple[StateT, Metrics]]:
    """The function `(keys [M], hparams, task) -> (states, metrics)` of `M` trainings; jit it.

    Leaves of `hparams` and `task` that have a leading axis, of length `M`, give each member its
    own; scalars are shared.  The leaves that come back have the axis `[M]` in front.

    `batching`: "vmap"; "map", one block of members after the other; "sharded", over all devices
    of this process and one block after the other on each (`M` must divide evenly); "auto" takes
    vmap on GPU and TPU, and on CPU sharded where it can, else map.  `block` members at most are
    vmapped together in "map" and "sharded"; by default what suits the algorithm, mostly 1.

    Raises ValueError for another batching, or where leading axes disagree.
    """
    one = run(algorithm, steps)
    most = algorithm.side_by_side if block is None else door.integer("block", block, 1)

    def training(keys: Key, hparams: HParamsT, task: Any) -> tuple[StateT, Metrics]:
        count = _count(keys, hparams, task)
        in_axes = (0, axes(hparams), axes(task))
        return _batched(one, in_axes, (keys, hparams, task), choose(batching, count), most)

    return training


def batched(
    one: Callable[[Any], Any], count: int, batching: Batching = "auto", block: int = 1
) -> Callable[[Any], Any]:
    """`one` of each of `count` members, such as states: leaves `[M, ...]` go in and come out."""
    how = choose(batching, count)
    return lambda tree: _batched(one, (0,), (tree,), how, block)


def choose(batching: Batching, count: int) -> Batching:
    """What "auto" stands for, for `count` members on this process' devices."""
    devices = jax.device_count()
    if batching not in ("auto", "vmap", "map", "sharded"):
        raise ValueError(f"batching={batching!r}: choose auto, vmap, map or sharded")
    if batching == "sharded" and count % devices:
        raise ValueError(f"batching='sharded': {count} members on {devices} devices: not even")
    if batching != "auto":
        return batching
    if jax.default_backend() != "cpu":
        return "vmap"
    return "sharded" if devices > 1 and count % devices == 0 else "map"


def _batched(
    one: Callable[..., Any], in_axes: Any, args: Any, batching: Batching, most: int
) -> Any:
    match batching:
        case "vmap":
            return jax.vmap(one, in_axes)(*args)
        case "map":
            return _map(one, in_axes, args, most)
        case _:
            return _sharded(one, in_axes, args, most)


def block_size(count: int, most: int) -> int:
    """Members in a block where `count` of them go in blocks of about the same size."""
    return math.ceil(count / math.ceil(count / most))


def _map(one: Callable[..., Any], in_axes: Any, args: Any, most: int) -> Any:
    """`one` on each block of members in turn, as one compiled loop."""
    flat, treedef = jax.tree.flatten(args)
    flat_axes = treedef.flatten_up_to(_spread(in_axes, args))
    mapped = [x for x, axis in zip(flat, flat_axes, strict=True) if axis == 0]

    def body(rows: list[Any]) -> Any:
        rows_left = iter(rows)
        whole = [next(rows_left) if a == 0 else x for x, a in zip(flat, flat_axes, strict=True)]
        return one(*jax.tree.unflatten(treedef, whole))

    size = block_size(jnp.shape(mapped[0])[0], most)
    return jax.lax.map(body, mapped, batch_size=size if size > 1 else None)


def _sharded(one: Callable[..., Any], in_axes: Any, args: Any, most: int) -> Any:
    """Members spread over the devices, one block after the other on each."""
    mesh = jax.make_mesh((jax.device_count(),), (AXIS,), axis_types=(AxisType.Auto,))
    member, shared = PartitionSpec(AXIS), PartitionSpec()
    spread = _spread(in_axes, args)
    specs = jax.tree.map(lambda axis: member if axis == 0 else shared, spread)
    local = jax.shard_map(
        lambda *args: _map(one, in_axes, args, most),
        mesh=mesh, in_specs=specs, out_specs=member, check_vma=False,
    )  # fmt: skip
    return local(*args)


def _spread(in_axes: Any, args: Any) -> Any:
    """One axis, 0 or -1 for none, for every leaf of `args`."""
    return jax.tree.map(
        lambda axis, sub: jax.tree.map(lambda _: -1 if axis is None else axis, sub),
        in_axes, args, is_leaf=lambda x: x is None,
    )  # fmt: skip


def _count(keys: Key, hparams: Any, task: Any) -> int:
    leaves = [x for x in jax.tree.leaves((keys, hparams, task)) if jnp.ndim(x)]
    sizes = sorted({x.shape[0] for x in leaves})
    if keys.ndim != 1 or len(sizes) != 1:
        raise ValueError(
            f"members: keys have shape {keys.shape} and the leading axes are {sizes}: "
            "pass keys [M] and, where members differ, hparams or task leaves [M]"
        )
    return sizes[0]
