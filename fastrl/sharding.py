"""One program on several devices: the environment axis is sharded, the rest is replicated.

Functions inside algorithms call `shard_envs` on what has an environment axis; outside a mesh
it does nothing.  Means are taken over the global batch, so numbers do not depend on the
number of devices but for the order of summation.
"""

from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXIS = "env"


def mesh(num_devices: int) -> Mesh:
    """A mesh of the first `num_devices` devices.

    Raises ValueError if there are fewer, and says how CPUs get more.
    """
    devices = jax.devices()
    if num_devices < 1 or num_devices > len(devices):
        raise ValueError(
            f"devices={num_devices}: this process has {len(devices)} ({jax.default_backend()}). "
            "On CPU call fastrl.use_cpu_devices(n) before the first JAX computation, "
            "or set the variable JAX_NUM_CPU_DEVICES=n"
        )
    return jax.make_mesh(
        (num_devices,), (AXIS,), axis_types=(AxisType.Auto,), devices=devices[:num_devices]
    )


def shard_envs(tree: Any, num_envs: int, axis: int = 0) -> Any:
    """Asks the compiler to lay `tree` out by environment (`axis`) over the mesh in force.

    Leaves without that axis, of length `num_envs`, are left to the compiler.
    """
    ambient = jax.sharding.get_abstract_mesh()
    if ambient.empty or AXIS not in ambient.axis_names:
        return tree
    spec = PartitionSpec(*([None] * axis), AXIS)

    def constrain(x: Any) -> Any:
        if getattr(x, "ndim", 0) <= axis or x.shape[axis] != num_envs:
            return x
        return jax.lax.with_sharding_constraint(x, NamedSharding(ambient, spec))

    return jax.tree.map(constrain, tree)


def replicate(tree: Any) -> Any:
    """Asks the compiler to keep a copy of `tree` on each device of the mesh in force."""
    ambient = jax.sharding.get_abstract_mesh()
    if ambient.empty:
        return tree
    return jax.lax.with_sharding_constraint(tree, NamedSharding(ambient, PartitionSpec()))


def use_cpu_devices(count: int) -> None:
    """Makes this process see `count` CPU devices. Call it before the first JAX computation.

    Raises RuntimeError if JAX has started already.
    """
    if count < 1:
        raise ValueError(f"use_cpu_devices({count}): needs at least 1")
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError as error:
        raise RuntimeError(
            f"use_cpu_devices({count}) came too late: call it at the top of the script, "
            "before anything runs on JAX"
        ) from error
