"""An electric drive: supply, converter, motor and load, and references to be followed.

The tasks of gym-electric-motor 3.0.3 (P. Balakrishna et al., "gym-electric-motor (GEM): A Python
toolbox for the simulation of electric drive systems", JOSS 6(58), 2021), for all combinations of
its DC motors and its PMSM. A control step holds the voltages that the action chooses and
integrates the motor's equations; in a PMSM it holds them in coordinates that turn with the rotor.
"""

import dataclasses
import math
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastrl.envs.motors import converters, machines, tasks
from fastrl.envs.motors.checks import check_action, check_fields, check_params
from fastrl.envs.motors.machines import Numbers
from fastrl.envs.motors.plant import Plant, commands, control_step
from fastrl.envs.motors.references import GENERATORS
from fastrl.envs.motors.tasks import Params
from fastrl.spaces import Box, Discrete, MultiDiscrete, Space
from fastrl.types import Array, Key, Step


class State(NamedTuple):
    plant: Plant
    switches: tuple[Array, ...]  # int32, of the half bridges, where interlocking matters
    waiting: tuple[Any, ...]  # actions yet to act, the oldest first
    reference: dict[str, Any]  # a record of the generator for each quantity, with its `value`
    time: Array  # int32, steps taken


@dataclasses.dataclass(frozen=True)
class Drive:
    """Observation: quantities by their limits, then references. Action: duty cycles or states.

    Reward: minus the weighted sum of the errors' absolute values, by the length of the quantity's
    range, to a power. Terminates beyond the limit of a current, with `violation_reward`; a time
    limit truncates.
    """

    motor: str = "PermExDc"
    control: str = "CC"
    actions: str = "Cont"
    converter: str = ""  # of each circuit: 1QC, 2QC, 4QC (the default); B6C for a PMSM
    load: str = ""  # "speed" (constant; default of CC and TC) or "polynomial" (of SC)
    reference: str = "wiener"  # or any of references.GENERATORS
    control_space: str = "abc"  # or "dq": continuous actions in the rotor's coordinates
    dead_time: int = 0  # control steps until an action acts
    interlocking: str = "none"  # of finite actions; "original" or "exact", see the docs
    solver: str = "rk4"  # or "euler"
    substeps: int = 1  # of the solver, for each control step
    reward_power: float = 1.0
    state_filter: tuple[str, ...] = ()  # quantities that are observed; () is all of them
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        machine = machines.MACHINES.get(self.motor)
        for name, default in (
            ("converter", "B6C" if machine and machine.synchronous else "4QC"),
            ("load", "polynomial" if self.control == "SC" else "speed"),
        ):
            object.__setattr__(self, name, getattr(self, name) or default)
        object.__setattr__(self, "state_filter", tuple(self.state_filter))
        check_fields(self)

    @property
    def machine(self) -> machines.Machine:
        return machines.MACHINES[self.motor]

    @property
    def referenced(self) -> tuple[str, ...]:
        """The quantities that have a reference, in the order of the observation."""
        return tasks.referenced(self.control, self.motor)

    @property
    def observed(self) -> tuple[str, ...]:
        """The quantities in the observation, before the references."""
        return self.state_filter or self.quantities

    @property
    def quantities(self) -> tuple[str, ...]:
        """All quantities, in the original's order."""
        machine = self.machine
        if machine.synchronous:
            currents = ("i_a", "i_b", "i_c", *machine.currents)
            voltages = (*machine.phases, "u_sd", "u_sq", "epsilon")
        else:
            currents, voltages = machine.currents, machine.phases
        last = ("u_sup", "i_sum") if self.motor == "ShuntDc" else ("u_sup",)
        return ("omega", "torque", *currents, *voltages, *last)

    def default_params(self) -> Params:
        return tasks.default_params(
            self.motor, self.control, self.actions, self.converter, self.load
        )

    def observation_space(self, params: Params) -> Box:
        return Box(-math.inf, math.inf, (len(self.observed) + len(self.referenced),))

    def action_space(self, params: Params) -> Space:
        circuit, phases = converters.CONVERTERS[self.converter], len(self.machine.phases)
        if self.actions == "Cont":
            return Box(circuit.low, 1.0, (2 if self.control_space == "dq" else phases,))
        if self.machine.synchronous:
            return Discrete(circuit.actions**phases)
        return (
            Discrete(circuit.actions) if phases == 1 else MultiDiscrete((circuit.actions,) * phases)
        )

    def reset(self, key: Key, params: Params) -> tuple[State, Array]:
        check_params(self, params)
        generator = GENERATORS[self.reference]
        drawn = _words(key, generator.start_words, len(self.referenced))
        reference = {
            name: generator.start(words, params.reference[name], params.tau)
            for name, words in zip(self.referenced, drawn, strict=True)
        }
        zero, phases = jnp.float32(0), len(self.machine.phases)
        angle = zero if self.machine.synchronous else ()
        currents = (zero,) * len(self.machine.currents)
        plant = Plant(jnp.asarray(params.load.omega, jnp.float32), currents, angle)
        idle, bridges = (), 0
        if self.actions == "Finite" and self.interlocking != "none":
            bridges = phases * len(converters.CONVERTERS[self.converter].sides)
        if self.dead_time:
            idle = (jnp.int32(0) if self.actions == "Finite" else zero,) * phases
        switches = (jnp.int32(converters.OFF),) * bridges
        state = State(plant, switches, (idle,) * self.dead_time, reference, jnp.int32(0))
        # Half bridges rest at the lower end, from the middle of the supply where they have one.
        resting = -converters.CONVERTERS[self.converter].middle * params.supply + zero
        values = self._values(plant, (resting,) * phases, angle, params)
        return state, self._observe(values, reference)

    def step(self, key: Key, state: State, action: Any, params: Params) -> tuple[State, Step]:
        check_action(self, action)
        check_params(self, params)
        now = commands(self, action, state.plant, params)
        active, *waiting = (*state.waiting, now)
        plant, voltages, angle, switches = control_step(
            self, state.plant, state.switches, active, params
        )
        values = self._values(plant, voltages, angle, params)
        reference = state.reference
        violated = self._violated(values)
        reward = jnp.where(violated, params.violation_reward, self._reward(values, state, params))

        generator = GENERATORS[self.reference]
        drawn = _words(key, generator.words, len(self.referenced))
        reference = {
            name: generator.advance(words, reference[name], params.reference[name], params.tau)
            for name, words in zip(self.referenced, drawn, strict=True)
        }
        time = state.time + 1
        if self.machine.synchronous:
            plant = plant._replace(angle=_wrapped(plant.angle))
        state = State(plant, switches, tuple(waiting), reference, time)
        truncated = (time >= params.max_steps) & ~violated
        observation = self._observe(values, reference)
        return state, Step(observation, reward.astype(jnp.float32), violated, truncated)

    def render(self, state: State, params: Params) -> np.ndarray:
        """Dials, and bars of what is controlled beside its reference: uint8 `[300, 480, 3]`."""
        from fastrl.envs.motors import pictures

        return pictures.picture(self, state, params)

    def _values(
        self, plant: Plant, voltages: Numbers, angle: Any, params: Params
    ) -> dict[str, Array]:
        """All quantities, by their limits. `angle` is that at which the voltages were put on."""
        machine, limits = self.machine, params.limits
        names = dict(zip(machine.currents, plant.currents, strict=True))
        volts = dict(zip(machine.phases, voltages, strict=True))
        values = {
            "omega": plant.omega / limits.omega,
            "torque": machine.torque(params.motor, plant.currents) / limits.torque,
        }
        if machine.synchronous:
            rotor = machines.direction(angle)
            phases = machines.to_phases(plant.currents, rotor)
            names |= dict(zip(("i_a", "i_b", "i_c"), phases, strict=True))
            volts |= dict(zip(("u_sd", "u_sq"), machines.to_rotor(voltages, rotor), strict=True))
            values["epsilon"] = _wrapped(plant.angle) / math.pi
        values |= {name: current / limits.current for name, current in names.items()}
        values |= {name: voltage / limits.voltage for name, voltage in volts.items()}
        values["u_sup"] = jnp.ones_like(plant.omega)
        if self.motor == "ShuntDc":
            values["i_sum"] = values["i_a"] + values["i_e"]
        return values

    def _observe(self, values: dict[str, Array], reference: dict[str, Any]) -> Array:
        seen = [values[name] for name in self.observed]
        return jnp.stack(seen + [reference[name].value for name in self.referenced])

    def _violated(self, values: dict[str, Array]) -> Array:
        currents = [values[name] for name in self.machine.currents]
        if self.machine.synchronous:
            return currents[0] ** 2 + currents[1] ** 2 > 1.0
        beyond = [jnp.abs(current) > 1.0 for current in currents]
        return beyond[0] | beyond[-1]

    def _reward(self, values: dict[str, Array], state: State, params: Params) -> Array:
        """Against the reference that was observed before the step."""
        total = jnp.zeros_like(values["omega"])
        for name in self.referenced:
            length = 1 - tasks.lowest(name, self.machine, self.converter)
            error = jnp.abs(values[name] - state.reference[name].value) / length
            weighted = error if self.reward_power == 1 else error**self.reward_power
            total = total + params.reference[name].weight * weighted
        return params.bias - total


def _words(key: Key, words: int, signals: int) -> list[tuple[Array, ...]]:
    """`words` uniform numbers for each of `signals` references, in one draw. Consumes `key`."""
    if not words:
        return [()] * signals
    drawn = jax.random.uniform(key, (words * signals,))
    return [tuple(drawn[i * words + j] for j in range(words)) for i in range(signals)]


def _wrapped(angle: Array) -> Array:
    """The same angle within [-pi, pi)."""
    return angle - 2 * math.pi * jnp.floor((angle + math.pi) / (2 * math.pi))
