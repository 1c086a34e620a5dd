"""The electric drives against gym-electric-motor 3.0.3, step by step.

The original's plant (speed, currents, angle), switches and references are put into our state, so
that both sides start from the same numbers; then the same action is played. Its solver is
`dopri5` with a relative tolerance of 1e-6, ours one Runge-Kutta step in float32, unless both use
Euler. All quantities are shares of their limits.
"""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import motors_oracle as oracle
import numpy as np
import pytest
from motors_oracle import CASES, Case, Played

from fastrl.config.build import change_params
from fastrl.envs.motors import Drive, references
from fastrl.envs.motors.drive import State
from fastrl.envs.motors.plant import Plant
from fastrl.kernels import prng

GOLDEN = Path(__file__).parent / "golden" / "motors.npz"
ONE_STEP, TRAJECTORY = 1e-5, 3e-5
STANDSTILL = 1e-4  # of one step across the kink of a load with static friction
QUICK = CASES[:2] + CASES[3:4] + CASES[8:9] + CASES[11:14]
BY_CASE = pytest.mark.parametrize("case", CASES, ids=[c.id for c in CASES])


def drive(case: Case) -> tuple[Drive, Any]:
    """Our environment for `case` and its params."""
    actions, control, motor = case.name.split("-")
    env = Drive(motor=motor, control=control, actions=actions, **case.options)
    changes: dict[str, Any] = {}
    for name, value in case.params.items():
        place, _, inner = name.rpartition(".")
        (changes.setdefault(place, {}) if place else changes)[inner] = value
    return env, change_params(env.default_params(), changes)


def put(env: Drive, state: State, plant: Any, switches: Any, reference: Any) -> State:
    """`state` with the original's numbers."""
    omega, *rest = plant
    angle = rest.pop() if env.machine.synchronous else ()
    values = zip(env.referenced, reference, strict=True)
    records = {name: state.reference[name]._replace(value=value) for name, value in values}
    return state._replace(
        plant=Plant(omega, tuple(rest), angle), switches=tuple(switches), reference=records
    )


@functools.cache
def replay(case_id: str) -> Any:
    """A compiled function of `forced` and the original's numbers: our steps."""
    env, params = drive(next(c for c in CASES if c.id == case_id))
    key = prng.key(0)

    def scalars(x: Any) -> tuple[Any, ...]:
        return tuple(x[i] for i in range(x.shape[0]))

    def step(forced: Any, state: State, now: Any) -> Any:
        first, plant, switches, reference, action = now
        restored = put(env, state, scalars(plant), scalars(switches), scalars(reference))
        free = restored._replace(plant=state.plant, switches=state.switches)
        state = jax.tree.map(lambda a, b: jnp.where(first | forced, a, b), restored, free)
        return env.step(key, state, action, params)

    def episode(forced: Any, *inputs: Any) -> Any:
        first = jnp.arange(inputs[0].shape[0]) == 0
        start = env.reset(key, params)[0]
        return jax.lax.scan(functools.partial(step, forced), start, (first, *inputs))[1]

    return jax.jit(jax.vmap(episode, (None, 0, 0, 0, 0)))


def stepped(case: Case, played: Played, *, forced: bool) -> Any:
    """Our steps, `[episodes, steps]`: from the original's plants, or freely from its first one."""
    env, _ = drive(case)
    kind = jnp.float32 if env.actions == "Cont" else jnp.int32
    inputs = (
        jnp.asarray(played.plant, jnp.float32),
        jnp.asarray(played.switches, jnp.int32),
        jnp.asarray(played.reference, jnp.float32),
        jnp.asarray(played.action, kind),
    )
    return replay(case.id)(jnp.bool_(forced), *inputs)


def errors(case: Case, played: Played, *, forced: bool) -> tuple[float, float]:
    """The greatest errors of observed quantities and rewards; flags are asserted to be equal.

    An angle is compared on its circle. Where static friction sets in, within 2 rad/s of
    standstill, fixed steps cross a kink: there errors are asserted to be below STANDSTILL. Where a
    current is within `2e-5` of its limit rounding may decide whether it is beyond; flag and
    reward are not compared there.
    """
    env, params = drive(case)
    step = stepped(case, played, forced=forced)
    names = env.quantities
    error = np.abs(np.asarray(step.observation)[..., : len(names)] - played.state)
    if "epsilon" in names:
        angle = names.index("epsilon")
        error[..., angle] = np.minimum(error[..., angle], 2 - error[..., angle])
    kink = played.valid & (np.abs(played.plant[..., 0]) < 2.0) & (params.load.a > 0)
    assert error[kink].max(initial=0.0) < STANDSTILL
    error[kink] = 0.0
    currents = played.state[..., [names.index(c) for c in env.machine.currents]]
    size = np.sqrt((currents**2).sum(-1)) if env.machine.synchronous else np.abs(currents)
    size = size if size.ndim == 2 else size.max(-1)
    clear = played.valid & (np.abs(size - 1) > 2e-5)
    assert clear.sum() >= 0.99 * played.valid.sum()
    np.testing.assert_array_equal(
        np.asarray(step.terminated)[clear], played.terminated[clear].astype(bool)
    )
    reward = np.abs(np.asarray(step.reward) - played.reward)
    return float(error[played.valid].max()), float(reward[clear].max())


def load(case: Case, kind: str) -> Played:
    with np.load(GOLDEN) as file:
        return Played(*(file[f"{kind}/{case.id}/{name}"] for name in Played._fields))


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=[] if c in QUICK else pytest.mark.slow, id=c.id) for c in CASES],
)
def test_recorded_steps_and_trajectories_are_the_originals(case: Case) -> None:
    """Fails if an equation, converter, limit, load or reward is another, or the state incomplete.

    One step from the original's plant each time, and trajectories from its first one.
    """
    assert max(errors(case, load(case, "forced"), forced=True)) < ONE_STEP
    assert max(errors(case, load(case, "free"), forced=False)) < TRAJECTORY


@pytest.mark.slow
@BY_CASE
def test_every_step_is_the_originals(case: Case) -> None:
    """As above on fresh transitions: 10,500 or more of each motor."""
    pytest.importorskip("gym_electric_motor", reason="pip install gym-electric-motor==3.0.3")
    forced = oracle.play(case, 7, 500, seed=7, forced=True)
    assert max(errors(case, forced, forced=True)) < ONE_STEP
    free = oracle.play(case, 5, 100, seed=8, forced=False)
    assert max(errors(case, free, forced=False)) < TRAJECTORY


def refer(kind: str, words: np.ndarray) -> np.ndarray:
    """Our references from uniform numbers `[steps, words]`."""
    generator = references.GENERATORS[kind]
    signal = Drive().default_params().reference["i"]._replace(
        length_low=oracle.LENGTHS[0], length_high=oracle.LENGTHS[1],
        frequency_low=oracle.FREQUENCIES[0], frequency_high=oracle.FREQUENCIES[1],
        sigma_low=oracle.SIGMAS[0], sigma_high=oracle.SIGMAS[1],
    )  # fmt: skip

    def advance(record: Any, row: Any) -> Any:
        record = generator.advance(tuple(row[: generator.words]), record, signal, 1e-4)
        return record, record.value

    rows = jnp.asarray(words, jnp.float32)
    first = generator.start(tuple(rows[0, : generator.start_words]), signal, 1e-4)
    _, values = jax.jit(lambda r: jax.lax.scan(advance, first, r))(rows[1:])
    return np.append(first.value, values)


def assert_refers(kind: str, words: np.ndarray, expected: np.ndarray) -> None:
    """Equal, but for at most three steps in 500 on which a wave jumps."""
    wrong = np.abs(refer(kind, words) - expected) > 1e-4
    assert wrong.sum() <= (0 if kind in ("wiener", "sinusoidal") else 3 * len(expected) / 500)
    assert np.ptp(expected) > 0.3


@pytest.mark.parametrize("kind", oracle.KINDS)
def test_recorded_references_are_the_originals(kind: str) -> None:
    """Fails if a reference's shape, range or end of a sub-episode is not the original's."""
    with np.load(GOLDEN) as file:
        assert_refers(kind, file[f"reference/{kind}/words"], file[f"reference/{kind}/values"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", oracle.KINDS)
def test_references_are_the_originals(kind: str) -> None:
    """As above, on fresh draws."""
    pytest.importorskip("gym_electric_motor", reason="pip install gym-electric-motor==3.0.3")
    assert_refers(kind, *oracle.refer(kind, 5000, seed=9))


@pytest.mark.parametrize("name", oracle.NAMES)
def test_names_limits_and_starts_are_the_originals(name: str) -> None:
    """Fails if a default is not the original's: quantities, limits, supply, step, references."""
    with np.load(GOLDEN) as file:
        facts = {k: file[f"task/{name}/{k}"] for k in oracle.FACTS}
    assert_standard(name, facts)


@pytest.mark.slow
@pytest.mark.parametrize("name", oracle.NAMES)
def test_all_tasks_are_the_originals(name: str) -> None:
    """As above, from the original itself."""
    pytest.importorskip("gym_electric_motor", reason="pip install gym-electric-motor==3.0.3")
    assert_standard(name, oracle.facts(name))


def assert_standard(name: str, facts: dict[str, np.ndarray]) -> None:
    env, params = drive(Case(name))
    signals = [params.reference[k] for k in env.referenced]
    ours = {
        "names": np.array(env.quantities),
        "start": np.asarray(env.reset(prng.key(0), params)[1])[: len(env.quantities)],
        "limits": np.array(params.limits),
        "numbers": np.array([params.supply, params.tau, params.violation_reward]),
        "load": np.array([params.load.a, params.load.b, params.load.c, params.load.omega]),
        "signals": np.array([[s.low, s.high, s.sigma_low, s.sigma_high] for s in signals]),
    }
    for key in oracle.FACTS:
        if key == "names":
            assert list(ours[key]) == list(facts[key])
        else:
            np.testing.assert_allclose(ours[key], facts[key], rtol=1e-6, atol=1e-7, err_msg=key)
