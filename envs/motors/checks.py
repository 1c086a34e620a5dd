"""What is passed to a drive, checked where it comes in: errors name the value and the way out."""

from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from fastrl import door, spaces
from fastrl.envs.motors import tasks
from fastrl.envs.motors.converters import CONVERTERS
from fastrl.envs.motors.machines import MACHINES
from fastrl.envs.motors.references import GENERATORS
from fastrl.envs.motors.solvers import SOLVERS

_POSITIVE = ("l_a", "l_e", "l_d", "l_q", "j_rotor", "j_load", "omega", "torque", "current",
             "voltage", "supply", "tau", "frequency_low", "sigma_low")  # fmt: skip


def check_fields(drive: Any) -> None:
    """Raises ValueError, naming the field, its value and the nearest known ones."""
    door.choice("motor", drive.motor, tuple(MACHINES))
    door.choice("control", drive.control, tasks.CONTROLS)
    door.choice("actions", drive.actions, tasks.ACTIONS)
    synchronous = MACHINES[drive.motor].synchronous
    known = ("B6C",) if synchronous else tuple(k for k in CONVERTERS if k != "B6C")
    door.choice(f"converter (of a {drive.motor})", drive.converter, known)
    door.choice("load", drive.load, ("speed", "polynomial"))
    door.choice("reference", drive.reference, tuple(GENERATORS))
    turning = synchronous and drive.actions == "Cont"
    frames = ("abc", "dq") if turning else ("abc",)
    door.choice("control_space (dq: of a PMSM with Cont)", drive.control_space, frames)
    door.choice("interlocking", drive.interlocking, ("none", "original", "exact"))
    door.choice("solver", drive.solver, tuple(SOLVERS))
    door.integer("dead_time", drive.dead_time, 0, 1000)
    door.integer("substeps", drive.substeps, 1, 1000)
    door.number("reward_power", drive.reward_power, 0.0)
    for name in drive.state_filter:
        door.choice("state_filter", name, drive.quantities)


def check_params(drive: Any, params: Any) -> None:
    """Raises ValueError or TypeError for concrete numbers that no drive can have."""
    door.record("params", params, tasks.Params)
    door.record("params.motor", params.motor, type(MACHINES[drive.motor].params))
    if set(params.reference) != set(drive.referenced):
        raise ValueError(
            f"params.reference is of {sorted(params.reference)}, this drive's references are of "
            f"{sorted(drive.referenced)}"
        )
    door.time_limits(params)
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        if isinstance(leaf, Tracer):
            continue
        value = np.asarray(leaf)
        if not np.isfinite(value).all():
            raise ValueError(f"params.{name}={leaf!r}: needs a finite number")
        if name.rsplit(".", 1)[-1] in _POSITIVE and name != "load.omega" and (value <= 0).any():
            raise ValueError(f"params.{name}={leaf!r}: must be above 0")


def check_action(drive: Any, action: Any) -> None:
    """Raises ValueError for an action of another shape, or a concrete one that is none."""
    space = drive.action_space(None)
    if jax.numpy.shape(action) != space.shape:
        raise ValueError(
            f"action has shape {jax.numpy.shape(action)}: a {drive.actions} {drive.motor} takes "
            f"{space.shape}"
        )
    if isinstance(action, Tracer):
        return
    if drive.actions == "Cont" and not np.isfinite(action).all():
        raise ValueError(f"action={action!r}: needs finite numbers")
    if drive.actions == "Finite":
        why = spaces.explain(space, np.asarray(action, np.int32))
        if why:
            raise ValueError(f"action={action!r}: {why}")
