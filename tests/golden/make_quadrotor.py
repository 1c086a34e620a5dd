"""Records gym-pybullet-drones' quadrotors into `quadrotor.npz`, for tests/test_quadrotor_parity.py.

Made with gym-pybullet-drones 2.1.0 at commit 90b178aba69b (it is not on PyPI: clone
https://github.com/utiasDSL/gym-pybullet-drones), pybullet 3.2.7, gymnasium 1.4.0, numpy 2.4.6,
scipy 1.17.1, setuptools below 81, in an environment of their own:

    PYTHONPATH=gym-pybullet-drones python make_quadrotor.py

A case is a number of trajectories from random states under random actions. Kept are the states
at the start, half-way and at the end, and every action, reward and flag; numbers are float32,
and the original starts from what float32 holds.
"""

# The original is installed in an environment of its own.
# pyright: reportMissingImports=false, reportArgumentType=false, reportPossiblyUnboundVariable=false

import contextlib
import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pybullet as p
from gym_pybullet_drones.control.DSLPIDControl import DSLPIDControl
from gym_pybullet_drones.envs.HoverAviary import HoverAviary
from gym_pybullet_drones.envs.MultiHoverAviary import MultiHoverAviary
from gym_pybullet_drones.utils.enums import ActionType, DroneModel, Physics


class Case(NamedTuple):
    """`name` is physics/model/action/number of drones."""

    physics: str
    model: str
    action: str
    drones: int
    trajectories: int
    low: tuple[float, float, float] = (-1.2, -1.2, 0.3)  # of start positions
    high: tuple[float, float, float] = (1.2, 1.2, 1.8)
    speed: float = 1.0  # metres a second, half the width of start velocities
    rate: float = 2.0  # radians a second, the same
    steps: int = 20

    @property
    def name(self) -> str:
        return f"{self.physics}/{self.model}/{self.action}/{self.drones}"


NEAR_GROUND = {"low": (-1.0, -1.0, 0.12), "high": (1.0, 1.0, 0.3), "speed": 0.2, "rate": 0.5}
STACKED = {"low": (-0.1, -0.1, 0.3), "high": (0.1, 0.1, 1.6), "speed": 0.2, "rate": 0.5}
SHORT = {"speed": 0.3, "rate": 0.5, "steps": 10}  # at 30 Hz the PID magnifies every rounding
CASES = [
    Case("dyn", "cf2x", "motors", 1, 200),
    Case("dyn", "cf2p", "motors", 1, 100),
    Case("dyn", "racer", "motors", 1, 40),
    Case("dyn", "cf2x", "rpm", 1, 60),
    Case("dyn", "cf2x", "rpm", 2, 50),
    Case("dyn", "cf2x", "one_d_rpm", 1, 20),
    Case("dyn", "cf2x", "vel", 1, 60, **SHORT),
    Case("dyn", "cf2x", "pid", 1, 60, **SHORT),
    Case("dyn", "cf2x", "one_d_pid", 1, 40, **SHORT),
    Case("pyb", "cf2x", "rpm", 1, 30),
    Case("pyb", "cf2p", "motors", 1, 30, (-1.0, -1.0, 5.0), (1.0, 1.0, 9.0)),
    Case("pyb", "racer", "motors", 1, 20, (-1.0, -1.0, 5.0), (1.0, 1.0, 9.0)),
    Case("pyb_gnd", "cf2x", "rpm", 1, 30, **NEAR_GROUND),
    Case("pyb_drag", "cf2x", "rpm", 1, 30, speed=4.0),
    Case("pyb_dw", "cf2x", "rpm", 2, 30, **STACKED),
    Case("pyb_gnd_drag_dw", "cf2x", "rpm", 2, 30, **STACKED),
]


def build(case: Case) -> Any:
    """The original environment; "motors" takes `_normalizedActionToRPM` for its actions."""
    single = case.drones == 1
    base = HoverAviary if single else MultiHoverAviary

    class Motors(base):
        def _preprocessAction(self, action: np.ndarray) -> np.ndarray:  # noqa: N802
            self.action_buffer.append(action)
            return self._normalizedActionToRPM(action)

    act = ActionType.RPM if case.action == "motors" else ActionType(case.action)
    with contextlib.redirect_stdout(io.StringIO()):
        return (Motors if case.action == "motors" else base)(
            drone_model=DroneModel(case.model), physics=Physics(case.physics), act=act,
            **({} if single else {"num_drones": case.drones}),
        )  # fmt: skip


def draw_start(case: Case, rng: np.random.Generator) -> np.ndarray:
    """Random states, float32 `[D, 13]`: position, quaternion, velocity, rates of the body."""
    d = case.drones
    position = rng.uniform(case.low, case.high, (d, 3))
    angles = rng.uniform((-0.45, -0.45, -3.0), (0.45, 0.45, 3.0), (d, 3))
    if case.physics != "dyn" or case.action in ("vel", "pid", "one_d_pid"):
        angles *= 0.3
    quaternion = np.array([p.getQuaternionFromEuler(a) for a in angles])
    velocity = rng.uniform(-case.speed, case.speed, (d, 3))
    rates = rng.uniform(-case.rate, case.rate, (d, 3))
    return np.hstack([position, quaternion, velocity, rates]).astype(np.float32)


def restore(env: Any, start: np.ndarray) -> None:
    """Puts the drones into the states `start`, with motors at hovering speed."""
    for i, row in enumerate(start.astype(np.float64)):
        position, quaternion, velocity, rates = np.split(row, [3, 7, 10])
        quaternion = quaternion / np.linalg.norm(quaternion)
        rotation = np.array(p.getMatrixFromQuaternion(quaternion)).reshape(3, 3)
        client = {"physicsClientId": env.CLIENT}
        p.resetBasePositionAndOrientation(env.DRONE_IDS[i], position, quaternion, **client)
        p.resetBaseVelocity(env.DRONE_IDS[i], velocity, rotation @ rates, **client)
        if env.PHYSICS == Physics.DYN:
            env.rpy_rates[i] = rates
    env.step_counter = 0
    env.last_clipped_action = np.full((len(start), 4), env.HOVER_RPM)
    for controller in getattr(env, "ctrl", []):
        controller.reset()
    env._updateAndStoreKinematicInformation()


def snapshot(env: Any) -> np.ndarray:
    """`[D, 13]`: position, quaternion, velocity, angular velocity in the world's frame."""
    return np.hstack([env.pos, env.quat, env.vel, env.ang_v])


def play(env: Any, case: Case, rng: np.random.Generator) -> tuple[Any, ...] | None:
    """One trajectory; None if anything was touched, which the model here knows nothing of."""
    start = draw_start(case, rng)
    restore(env, start)
    shape = env.action_space.shape
    actions, rewards, flags, states = [], [], [], []
    for _ in range(case.steps):
        quantised = rng.integers(-127, 128, shape).astype(np.int8)
        observation, reward, terminated, truncated, _ = env.step(quantised / 127.0)
        actions.append(quantised)
        rewards.append(reward)
        flags.append((terminated, truncated))
        states.append(snapshot(env))
        np.testing.assert_array_equal(observation[:, :3], env.pos.astype(np.float32))
        touched = case.physics != "dyn" and p.getContactPoints(physicsClientId=env.CLIENT)
        if touched or (case.physics != "dyn" and env.pos[:, 2].min() < 0.09):
            return None
    kept = np.array([states[case.steps // 2 - 1], states[-1]])
    return start, np.array(actions), np.array(rewards), np.array(flags), kept, observation[:, 12:]


def record(case: Case, seed: int) -> dict[str, np.ndarray]:
    """All trajectories of a case, under names that begin with the case's."""
    rng, env, played = np.random.default_rng(seed), build(case), []
    while len(played) < case.trajectories:
        one = play(env, case, rng)
        if one is not None:
            played.append(one)
    env.close()
    start, actions, rewards, flags, states, buffers = (
        np.array(x) for x in zip(*played, strict=True)
    )
    found = {
        "start": start, "actions": actions, "rewards": rewards.astype(np.float32),
        "flags": flags, "states": states.astype(np.float32), "buffers": buffers[:2],
    }  # fmt: skip
    print(f"{case.name}: {actions[..., 0, 0].size} steps, {flags.any(-1).sum()} ends")
    return {f"{case.name}/{k}": x for k, x in found.items()}


def controller_calls(model: str, seed: int) -> dict[str, np.ndarray]:
    """Random inputs of the PID controller, call after call, and its answers."""
    rng, sequences, calls = np.random.default_rng(seed), 12, 8
    with contextlib.redirect_stdout(io.StringIO()):
        controller = DSLPIDControl(drone_model=DroneModel(model))
    inputs, outputs = [], []
    for _ in range(sequences):
        controller.reset()
        for _ in range(calls):
            angles = rng.uniform(-0.3, 0.3, 3)
            quaternion = np.array(p.getQuaternionFromEuler(angles))
            body = np.hstack([rng.uniform(-1, 1, 3), quaternion, rng.uniform(-1, 1, 3)])
            target = np.hstack([body[:3] + rng.uniform(-0.3, 0.3, 3), rng.uniform(-1, 1, 4)])
            body, target = body.astype(np.float32), target.astype(np.float32)
            rpm, _, _ = controller.computeControl(
                1 / 30, body[:3].astype(float), body[3:7].astype(float), body[7:].astype(float),
                np.zeros(3), target[:3].astype(float), np.array([0, 0, float(target[6])]),
                target[3:6].astype(float),
            )  # fmt: skip
            inputs.append(np.hstack([body, target]))
            outputs.append(rpm)
    shaped = {"inputs": np.array(inputs), "rpm": np.array(outputs, np.float32)}
    return {f"controller/{model}/{k}": x.reshape(sequences, calls, -1) for k, x in shaped.items()}


def angles_table() -> dict[str, np.ndarray]:
    """Quaternions, some of them pointing straight up or down, and Bullet's angles of them."""
    rng = np.random.default_rng(7)
    quaternions = rng.normal(size=(300, 4))
    quaternions /= np.linalg.norm(quaternions, axis=1, keepdims=True)
    for i, pitch in enumerate((np.pi / 2, -np.pi / 2) * 10):
        quaternions[i] = p.getQuaternionFromEuler(
            (*rng.uniform(-3, 3, 1), pitch, rng.uniform(-3, 3))
        )
    quaternions = quaternions.astype(np.float32)
    angles = [p.getEulerFromQuaternion(q.astype(float)) for q in quaternions]
    return {"angles/quaternions": quaternions, "angles/angles": np.array(angles, np.float32)}


def starts_and_length() -> dict[str, np.ndarray]:
    """First observations, and how long an episode of hovering lasts."""
    found = {}
    for case in (CASES[3], CASES[4]):
        env = build(case)
        observation, _ = env.reset(seed=0)
        found[f"reset/{case.drones}"] = observation.astype(np.float32)
        found[f"targets/{case.drones}"] = np.atleast_2d(env.TARGET_POS).astype(np.float32)
        env.close()
    env = build(CASES[3])
    env.reset(seed=0)
    length, truncated = 0, False
    while not truncated:
        length, truncated = length + 1, env.step(np.zeros((1, 4)))[3]
    return found | {"length": np.array(length), "hover_rpm": np.array(env.HOVER_RPM)}


def main() -> None:
    """Writes the file."""
    found = starts_and_length() | angles_table()
    for seed, model in enumerate(("cf2x", "cf2p")):
        found |= controller_calls(model, seed)
    for seed, case in enumerate(CASES):
        found |= record(case, seed)
    path = Path(__file__).with_name("quadrotor.npz")
    np.savez_compressed(path, **found)
    print(f"{path.name}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
