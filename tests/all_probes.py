"""Six probes as tasks of one environment, so that a learner compiles once for all of them.

What each of them tells is said in `fastrl.envs.probe`.
"""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import fastrl
from fastrl.envs import probe
from fastrl.spaces import Box, Discrete
from fastrl.types import Array, Key, Step

PROBES = (
    probe.Value(), probe.ValueFromObservation(), probe.Discount(), probe.Policy(),
    probe.PolicyFromObservation(),
)  # fmt: skip
NAMES = [type(p).__name__ for p in PROBES] + ["TimeLimit"]


class Params(NamedTuple):
    which: int = 0  # an index into NAMES


class State(NamedTuple):
    seen: probe.Seen  # of PROBES
    counted: probe.TimeLimitState  # of TimeLimit


@dataclasses.dataclass(frozen=True)
class AllProbes:
    version: ClassVar[int] = 1

    def default_params(self) -> Params:
        return Params()

    def reset(self, key: Key, params: Params) -> tuple[State, Array]:
        seen = [p.reset(key, probe.NoParams())[0].shown for p in PROBES] + [jnp.float32(0.0)]
        state = State(probe.Seen(jnp.stack(seen)[params.which]), probe.TimeLimitState(jnp.int32(0)))
        return state, state.seen.shown[None]

    def step(self, key: Key, state: State, action: Array, params: Params) -> tuple[State, Step]:
        outcomes = [p.step(key, state.seen, action, probe.NoParams()) for p in PROBES]
        counted, limit = probe.TimeLimit().step(key, state.counted, action, probe.TimeLimitParams())
        outcomes.append((state.seen, limit))
        chosen = lambda *xs: jnp.stack(xs)[params.which]  # noqa: E731
        seen, step = jax.tree.map(chosen, *outcomes)
        return State(seen, counted), step

    def observation_space(self, params: Params) -> Box:
        return Box(-1.0, 1.0, (1,))

    def action_space(self, params: Params) -> Discrete:
        return Discrete(2)


def check(algorithm: Any, hparams: Any, steps: int, tolerance: float = 0.04) -> None:
    """Trains `algorithm`, made for `AllProbes()`, on every probe; asserts values and returns.

    The value of a learner with memory is that of an episode's first observation.
    """
    gamma, memory = float(hparams.gamma), jax.tree.leaves(algorithm.initial_carry(()))
    program = jax.jit(fastrl.run(algorithm, steps))
    wrong = []
    for i, name in enumerate(NAMES):
        task = Params(which=i)
        state, _ = program(jax.random.key(i), hparams, task)
        value = lambda o, state=state: float(  # noqa: E731
            algorithm.value(state, jnp.array([o], jnp.float32))
        )
        expected = {
            "Value": {0.0: 1.0}, "ValueFromObservation": {1.0: 1.0, -1.0: -1.0},
            "Discount": {0.0: gamma} | ({} if memory else {1.0: 1.0}),
            "TimeLimit": {0.0: 1 / (1 - gamma)},
        }.get(name, {})  # fmt: skip
        wrong += [
            (name, o, value(o), v)
            for o, v in expected.items()
            if not np.isclose(value(o), v, atol=tolerance * max(1.0, abs(v)))
        ]
        if "Policy" in name:
            for o in (1.0, -1.0) if name == "PolicyFromObservation" else (0.0,):
                carry = algorithm.initial_carry(())
                action, _ = algorithm.act(state, carry, jnp.array([o], jnp.float32), None)
                wrong += [(name, o, int(action))] if int(action) != int(o >= 0) else []
    assert not wrong, wrong
