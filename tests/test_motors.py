"""The electric drives: their options, ends and messages, and the PI baseline."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastrl
from fastrl import config, registry
from fastrl.envs.motors import NAMES, Drive, controllers, machines
from fastrl.kernels import prng

KEY = prng.key(0)


def rolled(drive: Drive, actions: Any, params: Any = None) -> Any:
    """The steps under `actions` `[T, ...]`, from the start that KEY gives."""
    params = drive.default_params() if params is None else params

    def step(state: Any, action: Any) -> Any:
        return drive.step(KEY, state, action, params)

    start = drive.reset(KEY, params)[0]
    return jax.jit(lambda a: jax.lax.scan(step, start, a)[1])(jnp.asarray(actions))


class Aim:
    """References that a drive can follow: waves for currents and torque, slow ones for speed."""

    def __init__(self, name: str, bound: float, steps: int = 3000, **options: Any) -> None:
        self.name, self.bound, self.steps, self.options = name, bound, steps, options

    def drive(self) -> tuple[Drive, Any]:
        actions, control, motor = self.name.split("-")
        kind: dict[str, Any] = {"reference": "sinusoidal"} | self.options
        drive = Drive(motor=motor, control=control, actions=actions, **kind)
        params = drive.default_params()
        changes = {"length_low": 2e5, "length_high": 2e5}  # no jumps between sub-episodes
        if control == "SC":
            changes |= {"frequency_low": 0.2, "frequency_high": 1.0, "amplitude_low": 0.05,
                        "amplitude_high": 0.2, "offset_low": 0.2, "offset_high": 0.4}  # fmt: skip
        signals = {k: s._replace(**changes) for k, s in params.reference.items()}
        params = params._replace(reference=signals)
        return drive, params


# Bounds are about one and a half times what is measured, in shares of the quantity's limit.
QUICK_AIMS = [
    Aim("Cont-CC-PermExDc", 0.0025),
    Aim("Cont-TC-PermExDc", 0.002),
    Aim("Cont-SC-SeriesDc", 0.0003, 8000),
]
AIMS = [
    Aim("Cont-TC-PMSM", 0.001),
    Aim("Cont-SC-PermExDc", 0.0001, 10000),
    Aim("Cont-CC-SeriesDc", 0.0005),
    Aim("Cont-TC-SeriesDc", 0.0003),
    Aim("Cont-CC-ShuntDc", 0.0025),
    Aim("Cont-SC-ShuntDc", 0.0001, 10000),
    Aim("Cont-CC-ExtExDc", 0.0015),
    Aim("Cont-TC-ExtExDc", 0.002),
    Aim("Cont-SC-ExtExDc", 0.0001, 8000),
    Aim("Cont-CC-PMSM", 0.0008),
    Aim("Cont-CC-PMSM", 0.001, control_space="dq", dead_time=1),
    Aim("Cont-SC-PMSM", 0.0001, 8000),
    Aim("Finite-CC-PermExDc", 0.05),
    Aim("Finite-TC-SeriesDc", 0.002),
    Aim("Finite-CC-ShuntDc", 0.06),
    Aim("Finite-TC-ExtExDc", 0.05),
    Aim("Finite-CC-PMSM", 0.006),
    Aim("Finite-SC-PermExDc", 0.0001, 100000),
]
STANDING = (
    "Cont-TC-PMSM", "Cont-SC-PMSM", "Cont-CC-ShuntDc", "Cont-SC-ExtExDc", "Finite-CC-PermExDc",
    "Finite-TC-SeriesDc", "Finite-CC-PMSM",
)  # fmt: skip


def track(aim: Aim) -> None:
    drive, params = aim.drive()
    controller = controllers.cascade(drive)

    def play(key: Any) -> Any:
        return controllers.play(drive, controller, key, params, aim.steps)

    stepped, error = jax.jit(jax.vmap(play))(jax.random.split(prng.key(1), 8))
    assert not np.asarray(stepped.terminated).any()
    settled = np.asarray(error)[:, aim.steps // 2 :]
    assert settled.mean() < aim.bound


@pytest.mark.parametrize("aim", QUICK_AIMS, ids=lambda a: a.name)
def test_pi_controllers_track_current_torque_and_speed(aim: Aim) -> None:
    """Fails if a cascade leaves its reference behind: mean absolute error after settling."""
    track(aim)


@pytest.mark.slow
@pytest.mark.parametrize(
    "aim",  # a motor each; actions and controls are mixed
    [a if a.name in STANDING else pytest.param(a, marks=pytest.mark.full) for a in AIMS],
    ids=lambda a: f"{a.name}{a.options or ''}",
)
def test_pi_controllers_track_in_every_kind_of_task(aim: Aim) -> None:
    """As above, for all motors, both kinds of actions and all controls."""
    track(aim)


def test_an_action_waits_for_the_dead_time() -> None:
    """Fails if an action acts too early, too late or in another order."""
    actions = np.random.default_rng(0).uniform(-0.2, 0.3, (6, 1)).astype(np.float32)
    late = rolled(Drive(dead_time=2), actions)
    early = rolled(Drive(), np.concatenate([np.zeros((2, 1), np.float32), actions[:4]]))
    np.testing.assert_allclose(late.observation[:, :5], early.observation[:, :5], atol=1e-6)


def test_dq_actions_are_phase_actions_turned_half_a_step_ahead() -> None:
    """Fails if the rotor's coordinates are turned the wrong way or by another angle."""
    turned, plain = (Drive(motor="PMSM", control_space=space) for space in ("dq", "abc"))
    params = turned.default_params()
    ahead = machines.direction(jnp.float32(0.5 * params.tau * params.motor.p * params.load.omega))
    dq = (jnp.float32(0.1), jnp.float32(0.3))
    phases = jnp.stack(machines.to_phases(dq, ahead))
    observed = [rolled(turned, jnp.stack(dq)[None]), rolled(plain, phases[None])]
    np.testing.assert_allclose(observed[0].observation, observed[1].observation, atol=1e-6)
    u_d, u_q = (turned.quantities.index(u) for u in ("u_sd", "u_sq"))
    share = np.hypot(observed[0].observation[0, u_d], observed[0].observation[0, u_q])
    np.testing.assert_allclose(share, np.hypot(0.1, 0.3), rtol=1e-4)


@pytest.mark.parametrize(
    ("motor", "currents", "switches", "action"),
    [
        ("PermExDc", (50.0,), (2, 1), 1),
        pytest.param("PMSM", (100.0, 0.0), (2, 2, 2), 4, marks=pytest.mark.slow),
    ],
)
def test_exact_interlocking_lies_between_none_and_the_originals(
    motor: str, currents: tuple[float, ...], switches: tuple[int, ...], action: int
) -> None:
    """Fails if half bridges are off for another time than the interlocking time.

    Diodes hold a current up to be switched on against. For no time it is as without interlocking,
    for the whole step as the original leaves half bridges off, and for half of it midway.
    """
    params = Drive(motor=motor, actions="Finite").default_params()

    def current(kind: str, share: float) -> float:
        drive = Drive(motor=motor, actions="Finite", interlocking=kind)
        own = params._replace(interlocking_time=share * params.tau)
        state, _ = drive.reset(KEY, own)
        plant = state.plant._replace(currents=tuple(map(jnp.float32, currents)))
        before = tuple(map(jnp.int32, switches)) if kind != "none" else ()
        state = state._replace(plant=plant, switches=before)
        after, _ = jax.jit(drive.step)(KEY, state, jnp.int32(action), own)
        return float(after.plant.currents[0]) / float(params.limits.current)

    none, original = current("none", 0.0), current("original", 0.3)
    assert abs(none - original) > 5e-3
    np.testing.assert_allclose(current("exact", 0.0), none, atol=1e-6)
    np.testing.assert_allclose(current("exact", 1.0), original, atol=1e-6)
    np.testing.assert_allclose(current("exact", 0.5), 0.5 * (none + original), atol=1e-3)


def test_runge_kutta_converges_to_what_small_steps_give() -> None:
    """Fails if substeps do not add up to the control step, or a method is of a lower order."""
    action = np.array([[0.3]], np.float32)

    def current(**options: Any) -> float:
        observed = rolled(Drive(**options), action).observation
        return float(observed[0, Drive().quantities.index("i")])

    exact = current(substeps=16)
    assert abs(current() - exact) < 1e-6
    euler = [abs(current(solver="euler", substeps=n) - exact) for n in (1, 2, 4)]
    assert 1.8 < euler[0] / euler[1] < 2.2
    assert 1.8 < euler[1] / euler[2] < 2.2


def test_limits_terminate_and_the_time_limit_truncates() -> None:
    """Fails if both flags are raised, or a violation has another reward than the params say."""
    drive = Drive()
    params = drive.default_params()._replace(max_steps=1, violation_reward=-7.0)
    gentle, hard = (rolled(drive, [[duty]], params) for duty in (0.3, 1.0))
    assert (bool(gentle.terminated[0]), bool(gentle.truncated[0])) == (False, True)
    assert (bool(hard.terminated[0]), bool(hard.truncated[0])) == (True, False)
    assert float(hard.reward[0]) == -7.0
    assert -1.0 < float(gentle.reward[0]) < 0.0


def test_every_environment_can_have_params_of_its_own() -> None:
    """Fails if a number of the task is the same for a whole batch."""
    drive = Drive(control="SC")
    params = drive.default_params()
    light = params._replace(motor=params.motor._replace(j_rotor=0.01))
    both = jax.tree.map(lambda *x: jnp.asarray(np.stack(x)), params, light)
    actions = np.full((5, 1), 0.05, np.float32)
    batch = jax.vmap(lambda p: rolled(drive, actions, p).observation)(both)
    for own, task in zip(batch, (params, light), strict=True):
        np.testing.assert_allclose(own, rolled(drive, actions, task).observation, atol=1e-6)
    assert np.abs(batch[0] - batch[1]).max() > 1e-4


def test_state_filter_and_weights_choose_what_is_seen_and_rewarded() -> None:
    """Fails if quantities are out of order or a reference's weight is ignored."""
    drive = Drive(motor="PMSM", state_filter=("i_sq", "omega"))
    whole = Drive(motor="PMSM")
    params = drive.default_params()
    weights = {"i_sd": 0.0, "i_sq": 1.0}
    signals = {k: s._replace(weight=weights[k]) for k, s in params.reference.items()}
    params = params._replace(reference=signals)
    action = np.full((1, 3), 0.1, np.float32)
    few, all_ = rolled(drive, action, params), rolled(whole, action, params)
    places = [whole.quantities.index(name) for name in ("i_sq", "omega")]
    np.testing.assert_array_equal(few.observation[0, :2], all_.observation[0, places])
    assert few.observation.shape == (1, 4)
    _, start = drive.reset(KEY, params)
    error = abs(float(few.observation[0, 0]) - float(start[3])) / 2
    np.testing.assert_allclose(few.reward[0], -error, atol=1e-6)


def test_references_stay_within_their_bounds_and_change() -> None:
    """Fails if a generator leaves its range, stands still, or forgets to begin anew."""
    drive = Drive()
    params = drive.default_params()
    signal = params.reference["i"]._replace(length_low=20.0, length_high=40.0)
    params = params._replace(reference={"i": signal}, limits=params.limits._replace(current=1e9))
    start, _ = drive.reset(KEY, params)

    def step(state: Any, key: Any) -> Any:
        state, _ = drive.step(key, state, jnp.zeros(1), params)
        return state, state.reference["i"]

    keys = jax.random.split(KEY, 3000)
    _, record = jax.jit(lambda s, k: jax.lax.scan(step, s, k))(start, keys)
    value, sigma = np.asarray(record.value), np.asarray(record.sigma)
    assert (value >= signal.low).all()
    assert (value <= signal.high).all()
    draws = np.unique(sigma)
    assert 3000 / 40 <= len(draws) <= 3000 / 20 + 1
    assert 1e-2 <= draws.min() < 1.3e-2
    assert 0.08 < draws.max() <= 1e-1
    inside = (np.abs(value[1:]) < 0.3) & (np.abs(value[:-1]) < 0.3)
    walked = np.diff(value)[inside] / sigma[1:][inside]
    assert abs(walked.mean()) < 0.1
    assert abs(walked.std() - 1) < 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"motor": "SerieDc"}, "SeriesDc"),
        ({"control": "XC"}, "XC"),
        ({"converter": "B6C"}, "converter"),
        ({"motor": "PMSM", "converter": "4QC"}, "B6C"),
        ({"reference": "wien"}, "wiener"),
        ({"control_space": "dq"}, "control_space"),
        ({"dead_time": -1}, "dead_time=-1"),
        ({"substeps": 0}, "substeps=0"),
        ({"state_filter": ("i_q",)}, "i_q"),
    ],
)
def test_fields_that_make_no_drive_are_refused(options: dict[str, Any], message: str) -> None:
    """Fails if a wrong field is found out later, by a message that does not name it."""
    with pytest.raises(ValueError, match=message):
        Drive(**options)


def test_malformed_params_and_actions_are_refused() -> None:
    """Fails if numbers that no drive can have give NaN instead of a message that names them."""
    drive, finite = Drive(), Drive(actions="Finite")
    params = drive.default_params()
    state, _ = drive.reset(KEY, params)
    for wrong, message in (
        (params._replace(tau=0.0), "tau=0.0"),
        (params._replace(motor=params.motor._replace(l_a=-1.0)), "motor.l_a=-1.0"),
        (params._replace(supply=float("nan")), "supply=nan"),
        (params._replace(reference={}), "references are of"),
    ):
        with pytest.raises(ValueError, match=message):
            drive.reset(KEY, wrong)
    with pytest.raises(TypeError, match="Pmsm"):
        drive.reset(KEY, Drive(motor="PMSM").default_params())
    with pytest.raises(ValueError, match="shape"):
        drive.step(KEY, state, jnp.zeros(2), params)
    with pytest.raises(ValueError, match="outside"):
        finite.step(KEY, finite.reset(KEY, params)[0], jnp.int32(4), params)


def test_a_controller_that_cannot_see_is_refused() -> None:
    """Fails if a filtered observation is read as if it were whole."""
    with pytest.raises(ValueError, match="epsilon"):
        controllers.cascade(Drive(motor="PMSM", state_filter=("omega", "i_sd", "i_sq")))
    with pytest.raises(ValueError, match="a=1"):
        controllers.cascade(Drive(), a=1)


def test_pictures_show_the_error() -> None:
    """Fails if the picture does not depend on speed, current or reference."""
    drive = Drive(motor="PMSM")
    params = drive.default_params()
    state, _ = drive.reset(KEY, params)
    plant, signal = state.plant, state.reference["i_sq"]
    other = signal._replace(value=-signal.value)
    pictures = [
        drive.render(state, params),
        drive.render(state._replace(plant=plant._replace(omega=jnp.float32(-300.0))), params),
        drive.render(state._replace(reference=state.reference | {"i_sq": other}), params),
        drive.render(
            state._replace(plant=plant._replace(currents=(plant.omega, plant.omega))), params
        ),
    ]
    assert all(p.shape == (300, 480, 3) and p.dtype == np.uint8 for p in pictures)
    assert len({p.tobytes() for p in pictures}) == 4


def test_names_cover_all_motors_actions_and_controls() -> None:
    """Fails if a kind of task can't be made by name."""
    parts = [set(column) for column in zip(*(n.split("-") for n in NAMES), strict=True)]
    assert parts[0] == {"Cont", "Finite"}
    assert parts[1] == {"CC", "TC", "SC"}
    assert parts[2] == set(machines.MACHINES)
    assert {f"motor/{n}" for n in NAMES} <= set(registry.names())


@pytest.mark.slow
@pytest.mark.full
def test_ppo_beats_pi_from_the_committed_config() -> None:
    """Fails if the config no longer learns current control: three seeds."""
    run = config.load("ppo_motor_current")
    algorithm, hparams, task = config.build(run)
    train = jax.jit(fastrl.members(algorithm, 300_000))
    states, _ = train(jax.random.split(fastrl.key(0), 3), hparams, task)
    drive = algorithm.env
    baseline = fastrl.evaluate(controllers.policy(drive, a=2.0), (), episodes=32)
    assert -115 < baseline.mean_return < -80
    for member in range(3):
        state = jax.tree.map(lambda x, i=member: x[i], states)
        learned = fastrl.evaluate(algorithm, state, episodes=32)
        assert learned.terminated_share == 0.0
        assert learned.mean_return > 0.5 * baseline.mean_return
