"""A control step: from an action to voltages, and from voltages to speed, currents and angle."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fastrl.envs.motors import converters, loads, machines, solvers
from fastrl.envs.motors.machines import Numbers
from fastrl.types import Array

Switches = tuple[Array, ...]  # int32, states of half bridges


class Plant(NamedTuple):
    """What the differential equations move."""

    omega: Array  # rad/s
    currents: tuple[Array, ...]  # amperes
    angle: Any  # of the rotor, electrical, within [-pi, pi); () in DC motors


def commands(drive: Any, action: Any, plant: Plant, params: Any) -> Numbers:
    """`action` as a number for each circuit or phase."""
    if drive.actions == "Cont":
        duties = tuple(action[i] for i in range(drive.action_space(params).shape[0]))
        if drive.control_space == "abc":
            return duties
        ahead = (0.5 + drive.dead_time) * params.tau * params.motor.p * plant.omega
        return machines.to_phases(duties, machines.direction(plant.angle + ahead))
    if drive.machine.synchronous:
        return tuple((action >> bit) & 1 for bit in (2, 1, 0))
    return (action,) if len(drive.machine.phases) == 1 else (action[0], action[1])


def control_step(
    drive: Any, plant: Plant, before: Switches, commands: Numbers, params: Any
) -> tuple[Plant, Numbers, Any, Switches]:
    """The plant after `tau`, the last voltages, the angle they were put on at, the switches."""
    circuit, angle = converters.CONVERTERS[drive.converter], plant.angle
    rotor, drawn = _flowing(drive, plant)
    if drive.actions == "Cont":
        dead = params.interlocking_time / params.tau
        shares = [circuit.average(*x, dead) for x in zip(commands, drawn, strict=True)]
        voltages = tuple(params.supply * share for share in shares)
        plant = _integrate(drive, plant, voltages, rotor, params.tau, params)
        return plant, voltages, angle, ()
    states = [circuit.states(command) for command in commands]
    if drive.interlocking == "none":
        voltages = _switched(drive, states, drawn, params)
        plant = _integrate(drive, plant, voltages, rotor, params.tau, params)
        return plant, voltages, angle, ()
    return _interlocked(drive, plant, before, states, params)


def _interlocked(
    drive: Any, plant: Plant, before: Switches, states: list[Any], params: Any
) -> tuple[Plant, Numbers, Any, Switches]:
    """A control step in two parts: until half bridges that change may be on again, and after.

    The original means to put them on then, but its comparison of times never does before the
    next control step.
    """
    rotor, drawn = _flowing(drive, plant)
    wanted = tuple(s for bridge in states for s in bridge)
    changing = converters.switching(wanted, before)
    any_change = jnp.any(jnp.stack(changing))
    first = tuple(
        jnp.where(change, converters.OFF, s) for change, s in zip(changing, wanted, strict=True)
    )
    voltages = _switched(drive, _by_circuit(drive, first), drawn, params)
    time = params.interlocking_time
    middle = _integrate(drive, plant, voltages, rotor, time, params)

    second = first if drive.interlocking == "original" else wanted
    rotor2, drawn = _flowing(drive, middle)
    voltages2 = _switched(drive, _by_circuit(drive, second), drawn, params)
    keep = lambda new, old: jnp.where(any_change, new, old)  # noqa: E731
    voltages, rotor, angle = jax.tree.map(
        keep, (voltages2, rotor2, middle.angle), (voltages, rotor, plant.angle)
    )
    plant = _integrate(drive, middle, voltages, rotor, params.tau - time, params)
    return plant, voltages, angle, second


def _by_circuit(drive: Any, states: Switches) -> list[Any]:
    bridges = len(converters.CONVERTERS[drive.converter].sides)
    return [states[i : i + bridges] for i in range(0, len(states), bridges)]


def _flowing(drive: Any, plant: Plant) -> tuple[Any, Numbers]:
    """The rotor's direction and the currents out of each circuit's converter."""
    drawn = drive.machine.drawn(plant.currents)
    if not drive.machine.synchronous:
        return (), drawn
    rotor = machines.direction(plant.angle)
    return rotor, machines.to_phases(drawn, rotor)


def _switched(drive: Any, states: list[Any], drawn: Numbers, params: Any) -> Numbers:
    """The voltages of half bridges in `states`."""
    circuit = converters.CONVERTERS[drive.converter]
    return tuple(
        params.supply * converters.output(circuit, converters.levels(circuit, bridge, current))
        for bridge, current in zip(states, drawn, strict=True)
    )


def _integrate(
    drive: Any, plant: Plant, voltages: Numbers, rotor: Any, time: Any, params: Any
) -> Plant:
    """`plant` after `time` under constant voltages."""
    machine, m = drive.machine, params.motor
    applied = machines.to_rotor(voltages, rotor) if machine.synchronous else voltages

    def slopes(now: Plant) -> Plant:
        omega = jnp.zeros_like(now.omega)
        if drive.load == "polynomial":
            torque = machine.torque(m, now.currents)
            omega = loads.acceleration(params.load, m.j_rotor, now.omega, torque)
        currents = machine.slopes(m, now.currents, now.omega, applied)
        return Plant(omega, currents, m.p * now.omega if machine.synchronous else ())

    return solvers.integrate(drive.solver, slopes, plant, time, drive.substeps)
