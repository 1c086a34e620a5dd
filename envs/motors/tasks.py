"""The standard tasks: what gym-electric-motor's `Cont-CC-PermExDc-v0` and its kin are made of.

A task is a motor, an action space (`Cont` or `Finite`) and what is controlled: currents (`CC`),
torque (`TC`) or speed (`SC`). Numbers are the defaults of gym-electric-motor 3.0.3 (envs/).
"""

from typing import Any, NamedTuple

from fastrl.envs.motors.converters import CONVERTERS
from fastrl.envs.motors.loads import Load
from fastrl.envs.motors.machines import MACHINES, Limits, Machine
from fastrl.envs.motors.references import Signal
from fastrl.types import Scalar

CONTROLS = ("CC", "TC", "SC")
ACTIONS = ("Cont", "Finite")


class Params(NamedTuple):
    """The numbers of a task, in SI units. `motor` holds those of the machine's equations."""

    motor: Any
    limits: Limits
    load: Load
    reference: dict[str, Signal]  # of each quantity that has one
    supply: Scalar = 60.0  # volts, of an ideal source
    tau: Scalar = 1e-4  # seconds, a control step
    interlocking_time: Scalar = 0.0  # seconds
    violation_reward: Scalar = -10.0  # at the end of an episode, in place of the reward
    bias: Scalar = 0.0  # of the reward
    max_steps: int = 10_000


_SIGMAS = {  # of the Wiener process; others have those of `Signal`
    ("Cont", "CC", "PermExDc"): (1e-2, 1e-1),
    ("Finite", "CC", "PermExDc"): (1e-2, 1e-1),
    ("Cont", "TC", "PermExDc"): (1e-2, 1e-1),
    ("Finite", "TC", "PermExDc"): (1e-2, 1e-1),
    ("Cont", "SC", "PermExDc"): (1e-3, 5e-2),
    ("Finite", "SC", "PermExDc"): (1e-3, 5e-3),
    ("Cont", "SC", "SeriesDc"): (1e-3, 2e-2),
    ("Finite", "SC", "SeriesDc"): (1e-3, 5e-3),
    ("Cont", "SC", "ShuntDc"): (1e-3, 3e-2),
    ("Finite", "SC", "ShuntDc"): (1e-3, 5e-3),
}
_LOADS = {  # of speed control
    ("Cont", "PermExDc"): Load(j_load=1e-4),
    ("Finite", "PermExDc"): Load(j_load=1e-3),
    ("Cont", "SeriesDc"): Load(0.01, 0.05, 0.0, 1e-4),
    ("Finite", "SeriesDc"): Load(0.15, 0.05, 0.0, 1e-4),
    ("Cont", "ShuntDc"): Load(0.05, 0.01, 0.0, 1e-4),
    ("Finite", "ShuntDc"): Load(0.05, 0.01, 0.0, 1e-4),
    ("Cont", "ExtExDc"): Load(j_load=1e-4),
    ("Finite", "ExtExDc"): Load(j_load=1e-4),
    ("Cont", "PMSM"): Load(0.01, 0.01),
    ("Finite", "PMSM"): Load(0.01, 0.01),
}


def referenced(control: str, motor: str) -> tuple[str, ...]:
    """The quantities that have a reference."""
    if control == "TC":
        return ("torque",)
    if control == "SC":
        return ("omega",)
    currents = MACHINES[motor].currents
    return currents[:1] if motor == "ShuntDc" else currents


def lowest(name: str, machine: Machine, converter: str) -> float:
    """-1 if a quantity can be negative, else 0."""
    positive = CONVERTERS[converter].positive
    if name in machine.one_sided:
        return 0.0
    kind = "u" if name == "omega" else "i" if name == "torque" else name[0]
    return 0.0 if kind in positive else -1.0


def share_of_limit(name: str, machine: Machine) -> float:
    """The nominal value of `name` by its limit."""
    kind = name if name in ("omega", "torque") else "current"
    return getattr(machine.nominal, kind) / getattr(machine.limits, kind)


def default_params(motor: str, control: str, actions: str, converter: str, load: str) -> Params:
    """The numbers of the task of this name in gym-electric-motor."""
    machine, task = MACHINES[motor], (actions, control, motor)
    sigmas = _SIGMAS.get(task, (1e-3, 1e-1))
    names = referenced(control, motor)
    signals = {}
    for name in names:
        share, low = share_of_limit(name, machine), lowest(name, machine, converter)
        if task == ("Cont", "TC", "ShuntDc"):
            share, low = 0.8, 0.0
        signal = Signal(share * low, share, 1 / len(names))
        signals[name] = signal._replace(sigma_low=sigmas[0], sigma_high=sigmas[1])
    speed = 230.0 if task == ("Cont", "TC", "ShuntDc") else 100.0
    return Params(
        machine.params,
        machine.limits,
        Load(omega=speed) if load == "speed" else _LOADS[actions, motor],
        signals,
        supply=_supply(*task),
        tau=1e-4 if actions == "Cont" else 1e-5,
    )


def _supply(actions: str, control: str, motor: str) -> float:
    if motor == "PMSM":
        return 300.0 if (actions, control) == ("Cont", "CC") else 420.0
    return 420.0 if motor == "SeriesDc" and actions == "Finite" and control != "SC" else 60.0
