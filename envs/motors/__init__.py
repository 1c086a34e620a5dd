"""Electric motors: the tasks of gym-electric-motor as exact differential equations."""

import functools

from fastrl.envs.motors import controllers
from fastrl.envs.motors.drive import Drive
from fastrl.registry import register

__all__ = ["NAMES", "Drive", "controllers"]

NAMES = (
    "Cont-CC-PermExDc-v0",
    "Cont-TC-PermExDc-v0",
    "Cont-SC-PermExDc-v0",
    "Finite-CC-PermExDc-v0",
    "Cont-CC-SeriesDc-v0",
    "Cont-SC-SeriesDc-v0",
    "Finite-TC-SeriesDc-v0",
    "Cont-CC-ShuntDc-v0",
    "Finite-SC-ShuntDc-v0",
    "Cont-CC-ExtExDc-v0",
    "Finite-TC-ExtExDc-v0",
    "Cont-CC-PMSM-v0",
    "Cont-TC-PMSM-v0",
    "Cont-SC-PMSM-v0",
    "Finite-CC-PMSM-v0",
)
_MOTORS = {
    "PermExDc": "permanently excited DC motor",
    "SeriesDc": "series DC motor",
    "ShuntDc": "shunt DC motor",
    "ExtExDc": "externally excited DC motor",
    "PMSM": "permanent magnet synchronous motor",
}
_AIMS = {"CC": "currents", "TC": "torque", "SC": "speed"}
_ACTIONS = {"Cont": "duty cycles", "Finite": "switching states"}


def _register(name: str) -> None:
    actions, control, motor, _ = name.split("-")
    make = functools.partial(Drive, motor=motor, control=control, actions=actions)
    aim, means = _AIMS[control], _ACTIONS[actions]
    register(f"motor/{name}", make, f"Motor: {aim} of a {_MOTORS[motor]}, by {means}.")


for _name in NAMES:
    _register(_name)
