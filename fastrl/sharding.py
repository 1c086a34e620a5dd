"""One program on several devices: the environment axis is sharded, the rest is replicated.

Functions inside algorithms call `shard_envs` on what has an environment axis, `collect` on a
rollout that is to be learned from and `shard_batch` on its minibatches; outside a mesh all of
them do nothing.  Means are taken over the global batch.

On CPU the numbers are the same bit for bit on any number of devices.  Rollouts are sharded in
whole blocks of `CPU_BLOCK` environments, because XLA's matrix products round the rows of an
incomplete block in another way; updates are computed by every device on the whole batch, which
is also faster than an exchange of gradients at every minibatch.
"""

import warnings
from typing import Any

import jax
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

AXIS = "env"
CPU_BLOCK = 8


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


def shard_envs(tree: Any, num_envs: int) -> Any:
    """Asks the compiler to lay `tree` out by environment, its first axis, over the mesh in force.

    Leaves without that axis, of length `num_envs`, are left to the compiler.  Where the
    environments do not divide into equal shares (on CPU into shares of whole blocks) every
    device computes all of them.
    """
    ambient = _ambient()
    if ambient is None:
        return tree
    if num_envs % _unit(ambient):
        return replicate(tree)
    by_env = NamedSharding(ambient, PartitionSpec(AXIS))

    def constrain(x: Any) -> Any:
        if getattr(x, "ndim", 0) == 0 or x.shape[0] != num_envs:
            return x
        return jax.lax.with_sharding_constraint(x, by_env)

    return jax.tree.map(constrain, tree)


def warn_if_replicated(num_envs: int) -> None:
    """Warns where `shard_envs` replicates, and names the number of environments that helps."""
    ambient = _ambient()
    if ambient is not None and num_envs % _unit(ambient):
        warnings.warn(
            f"num_envs={num_envs} on {ambient.size} devices: every device computes all "
            f"environments and nothing is gained; use a multiple of {_unit(ambient)}",
            stacklevel=3,
        )


def collect(rollout: Any) -> Any:
    """Lays a rollout out for an update: on CPU a copy on every device, elsewhere as it is."""
    return replicate(rollout) if _on_cpu() else rollout


def shard_batch(tree: Any) -> Any:
    """A minibatch `[B, ...]`: sharded by row, on CPU a copy on every device."""
    ambient = _ambient()
    if ambient is None or _on_cpu():
        return replicate(tree)
    by_row = NamedSharding(ambient, PartitionSpec(AXIS))
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, by_row), tree)


def replicate(tree: Any) -> Any:
    """Asks the compiler for a copy of `tree` on every device of the mesh in force."""
    ambient = _ambient()
    if ambient is None:
        return tree
    return jax.lax.with_sharding_constraint(tree, NamedSharding(ambient, PartitionSpec()))


def _ambient() -> AbstractMesh | None:
    ambient = jax.sharding.get_abstract_mesh()
    return None if ambient.empty or AXIS not in ambient.axis_names else ambient


def is_sharded() -> bool:
    """Whether a mesh of several devices is in force."""
    ambient = _ambient()
    return ambient is not None and ambient.size > 1


def _unit(ambient: AbstractMesh) -> int:
    return ambient.size * (CPU_BLOCK if _on_cpu() else 1)


def _on_cpu() -> bool:
    return jax.default_backend() == "cpu"


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
