"""Members on a leading axis: many seeds, hyper-parameters and tasks in one program.

What batches well depends on the platform.  A GPU or TPU wants `vmap`.  On a CPU, `vmap` turns
the many small matrix products of a training into batched ones, which run at half speed on
several cores (and in jaxlib 0.10 can deadlock in XLA's thread pool); one member after the
other (`lax.map`), on one XLA device per core, is fastest.  The numbers are the same.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec

from fastrl.metrics import Metrics
from fastrl.run import axes, run
from fastrl.types import Algorithm, HParamsT, Key, StateT

Batching = Literal["auto", "vmap", "map", "sharded"]
AXIS = "member"


def members(
    algorithm: Algorithm[HParamsT, StateT], steps: float, batching: Batching = "auto"
) -> Callable[[Key, HParamsT, Any], tuple[StateT, Metrics]]:
    """The function `(keys [M], hparams, task) -> (states, metrics)` of `M` trainings; jit it.

    Leaves of `hparams` and `task` that have a leading axis, of length `M`, give each member its
    own; scalars are shared.  The leaves that come back have the axis `[M]` in front.

    `batching`: "vmap"; "map", one member after the other; "sharded", over all devices of this
    process and one after the other on each (`M` must divide evenly); "auto" takes vmap on GPU
    and TPU, and on CPU sharded where it can, else map.

    Raises ValueError for another batching, or where leading axes disagree.
    """
    one = run(algorithm, steps)

    def training(keys: Key, hparams: HParamsT, task: Any) -> tuple[StateT, Metrics]:
        count = _count(keys, hparams, task)
        in_axes = (0, axes(hparams), axes(task))
        match choose(batching, count):
            case "vmap":
                return jax.vmap(one, in_axes)(keys, hparams, task)
            case "map":
                return _map(one, in_axes, (keys, hparams, task))
            case _:
                return _sharded(one, in_axes, (keys, hparams, task))

    return training


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


def _map(one: Callable[..., Any], in_axes: Any, args: Any) -> Any:
    """`one` on each member in turn, as one compiled loop."""
    flat, treedef = jax.tree.flatten(args)
    flat_axes = treedef.flatten_up_to(_spread(in_axes, args))
    mapped = [x for x, axis in zip(flat, flat_axes, strict=True) if axis == 0]

    def body(rows: list[Any]) -> Any:
        rows_left = iter(rows)
        whole = [next(rows_left) if a == 0 else x for x, a in zip(flat, flat_axes, strict=True)]
        return one(*jax.tree.unflatten(treedef, whole))

    return jax.lax.map(body, mapped)


def _sharded(one: Callable[..., Any], in_axes: Any, args: Any) -> Any:
    """Members spread over the devices, one after the other on each."""
    mesh = jax.make_mesh((jax.device_count(),), (AXIS,), axis_types=(AxisType.Auto,))
    member, shared = PartitionSpec(AXIS), PartitionSpec()
    spread = _spread(in_axes, args)
    specs = jax.tree.map(lambda axis: member if axis == 0 else shared, spread)
    local = jax.shard_map(
        lambda *args: _map(one, in_axes, args),
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
