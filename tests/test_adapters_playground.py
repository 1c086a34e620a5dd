"""The MuJoCo Playground adapter, with a small module that stands in for it and for real.

Playground's own tests are slow: they need the package and compile MJX.
"""

import dataclasses
import functools
import re
import subprocess
import sys
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from fastrl import reset, spaces
from fastrl.check_env import check_env
from fastrl.envs.adapters.playground import Playground, from_playground
from fastrl.kernels import prng
from fastrl.vec import VecEnv, rollout

N, T = 3, 12


@struct.dataclass
class Options:
    gravity: Any


@struct.dataclass
class Model:
    """The parts of mjx.Model that the adapter scales."""

    opt: Options
    geom_friction: Any
    actuator_gear: Any

    def tree_replace(self, changes: dict[str, Any]) -> "Model":
        opt = dataclasses.replace(self.opt, gravity=changes.pop("opt.gravity"))
        return dataclasses.replace(self, opt=opt, **changes)


@struct.dataclass
class Record:
    """The fields of Playground's State."""

    data: Any
    obs: Any
    reward: Any
    done: Any
    metrics: Any
    info: Any


class Config(dict):
    """As much of a ConfigDict as the adapter uses."""

    __getattr__ = dict.__getitem__


class Ball:
    """A ball that falls from about 1 and is pushed up; ends on the ground, blows up beyond 50."""

    action_size = 2

    def __init__(self, config: Config) -> None:
        self.config = config
        gravity = jnp.array([0.0, 0.0, -0.1])
        self._mjx_model = Model(Options(gravity), jnp.ones((1, 3)), jnp.ones((2, 6)))

    @property
    def mjx_model(self) -> Model:
        return self._mjx_model

    def reset(self, key: Any) -> Record:
        key, height_key = jax.random.split(key)
        height = 1.0 + 0.1 * jax.random.uniform(height_key)
        info = {"rng": key, "steps": 0, "hot": jnp.array(False)}
        return Record({"height": height}, self.see(height), jnp.zeros(()), jnp.zeros(()),
                      {"reward/height": jnp.zeros(()), "map": jnp.zeros(3)}, info)  # fmt: skip

    def step(self, record: Record, action: Any) -> Record:
        model = self.mjx_model
        push = 0.1 * (action * model.actuator_gear[:, 0]).sum()
        height = record.data["height"] + model.opt.gravity[2] * model.geom_friction[0, 0] + push
        height = jnp.where(height > 50.0, jnp.nan, height)
        info = record.info | {
            "rng": jax.random.split(record.info["rng"])[0],
            "steps": record.info["steps"] + 1,
        }
        metrics = record.metrics | {"reward/height": height}
        done = (height < 0.0).astype(float)
        return Record({"height": height}, self.see(height), height, done, metrics, info)

    def see(self, height: Any) -> Any:
        if not self.config.two_views:
            return height[None]
        return {"state": height[None], "privileged_state": jnp.stack([height, -height])}


@pytest.fixture(autouse=True)
def playground(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module called mujoco_playground in the place of the real one."""

    def load(name: str, config: Config, config_overrides: dict[str, Any]) -> Any:
        for key, value in config_overrides.items():
            if key not in config:
                raise KeyError(f"{key} is no key of the config")
            config[key] = value
        if name == "Robot":
            raise FileNotFoundError("mujoco_menagerie")
        return Ball(config) if name == "Ball" else object()

    registry: Any = types.ModuleType("mujoco_playground.registry")
    registry.ALL_ENVS, registry.load = ("Ball", "Robot", "Other"), load
    registry.get_default_config = lambda name: Config(
        episode_length=5, action_repeat=1, impl="warp", two_views=False
    )
    module: Any = types.ModuleType("mujoco_playground")
    module.registry = registry
    monkeypatch.setitem(sys.modules, "mujoco_playground", module)
    monkeypatch.setitem(sys.modules, "mujoco_playground.registry", registry)


BALL, VIEWS = Playground("Ball"), Playground("Ball", {"two_views": True})
REPEATED = Playground("Ball", {"action_repeat": 2})


@functools.cache
def program(env: Playground) -> Any:
    """(key, params, push) -> transitions `[T, N]` under a constant push, compiled."""
    batch = VecEnv(env, N, reset.default(env)(env))

    def run(key: Any, params: Any, push: Any) -> Any:
        def policy(key: Any, observation: Any) -> Any:
            return jnp.full((N, 2), push), ()

        state = batch.init(key, params)
        return rollout(batch, policy, key, state, params, T)[1][0]

    return jax.jit(run)


def play(env: Playground, push: float, **changes: Any) -> Any:
    params = jax.tree.map(jnp.asarray, env.default_params()._replace(**changes))
    return jax.device_get(program(env)(prng.key(0), params, push))


def test_the_time_limit_is_a_truncation_and_the_ground_a_termination() -> None:
    """Fails if ends are mixed up, or the last observation is the next episode's first."""
    seen = play(BALL, 0.5)  # which holds the ball where it is
    assert not seen.terminated.any()
    np.testing.assert_array_equal(np.argwhere(seen.truncated[:, 0])[:, 0], [4, 9])
    np.testing.assert_allclose(seen.next_observation, seen.observation, atol=1e-6)
    seen = play(BALL, -1.0)  # the ground in 4 steps
    heights = seen.next_observation[..., 0]
    np.testing.assert_array_equal(seen.terminated, heights < 0)
    assert seen.terminated[3].all()
    assert not seen.truncated.any()
    limit = play(BALL, -1.0, max_steps=4)  # both at once: the task's own end
    assert limit.terminated[3].all()
    assert not limit.truncated.any()


def test_physics_follows_the_params() -> None:
    """Fails if a factor does not reach the model, or all of them reach the wrong place."""
    first = lambda **changes: float(play(BALL, 0.3, **changes).reward[0, 0])  # noqa: E731
    height = first() - (-0.1 + 0.06)
    assert first(gravity=2.0) == pytest.approx(height - 0.2 + 0.06, abs=1e-6)
    assert first(friction=3.0) == pytest.approx(height - 0.3 + 0.06, abs=1e-6)
    assert first(strength=0.0) == pytest.approx(height - 0.1, abs=1e-6)


def test_physics_that_blew_up_ends_the_episode() -> None:
    """Fails if a number that is none reaches a learner."""
    seen = play(BALL, 200.0)
    assert seen.terminated[1].all()
    assert (seen.reward[1] == 0).all()
    assert (seen.next_observation[1] == 0).all()
    assert np.isfinite(seen.next_observation).all()


def test_an_action_is_repeated_as_the_configuration_says() -> None:
    """Fails if the reward of a repetition is lost, or the limit counts other steps."""
    assert REPEATED.default_params().max_steps == 3
    seen = play(REPEATED, 0.5)
    np.testing.assert_allclose(seen.reward, 2 * seen.observation[..., 0], rtol=1e-5)
    np.testing.assert_array_equal(np.argwhere(seen.truncated[:, 0])[:, 0], [2, 5, 8, 11])


def test_the_privileged_state_is_the_critics() -> None:
    """Fails if the actor sees what only the critic may, or the record has another name for it."""
    space = VIEWS.observation_space(VIEWS.default_params())
    assert space == {"state": spaces.Box(-jnp.inf, jnp.inf, (1,)),
                     "critic": spaces.Box(-jnp.inf, jnp.inf, (2,))}  # fmt: skip
    seen = play(VIEWS, 0.0)
    np.testing.assert_array_equal(seen.observation["critic"][..., :1], seen.observation["state"])


def test_records_survive_being_packed() -> None:
    """Fails if a counter, flag or key is lost between steps, or becomes a float."""
    state, _ = BALL.reset(prng.key(0), BALL.default_params())
    step: Any = None
    for _ in range(3):
        state, step = BALL.step(prng.key(1), state, jnp.zeros(2), BALL.default_params())
    record = BALL.unpack(state)
    assert int(record.info["steps"]) == 3
    assert record.info["steps"].dtype == jnp.int32
    assert record.info["hot"].dtype == jnp.bool_
    assert jnp.issubdtype(record.info["rng"].dtype, jax.dtypes.prng_key)
    assert float(record.data["height"]) == float(step.observation[0])
    assert set(step.metrics) == {"reward/height"}


def test_it_keeps_the_contract() -> None:
    """Fails if the adapter breaks what learners rely on."""
    report = check_env(VIEWS, num_envs=4, num_steps=10)
    assert report.ok, str(report)


def test_environments_compare_by_value() -> None:
    """Fails if equal environments compile twice, or other options share a program."""
    env = from_playground("Ball", two_views=True)
    assert env == VIEWS
    assert hash(env) == hash(VIEWS)
    assert env != BALL
    assert reset.default(env) is reset.pool


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: from_playground("Bal"), ValueError, "did you mean 'Ball'"),
        (lambda: from_playground("Ball", gravity=3), ValueError, "gravity is no key"),
        (lambda: from_playground("Robot"), RuntimeError, "downloads from github.com"),
        (lambda: from_playground("Other"), ImportError, "has no reset, step, action_size"),
        (lambda: Playground("Ball", ["x"]), ValueError, "must be a dictionary"),
    ],
)
def test_what_does_not_fit_is_named(build: Any, error: type[Exception], message: str) -> None:
    """Fails if a slip or another version gives a traceback from inside Playground."""
    with pytest.raises(error, match=re.escape(message)):
        build()


def test_playground_stays_out_until_it_is_used() -> None:
    """Fails if `import fastrl` needs Playground, or its absence is not explained."""
    script = """
import sys
sys.modules["mujoco_playground"] = None  # as if it were not installed
from fastrl.envs.adapters import Playground
try:
    Playground("CartpoleBalance").default_params()
except ImportError as error:
    print(error)
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert "pip install playground" in done.stdout


@pytest.mark.slow
def test_steps_equal_playgrounds_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if a number of the real CartpoleBalance differs from Playground's own step."""
    for name in ("mujoco_playground", "mujoco_playground.registry"):
        monkeypatch.delitem(sys.modules, name)
    registry = pytest.importorskip("mujoco_playground").registry
    raw = registry.load("CartpoleBalance", config_overrides={"impl": "jax"})
    env, key = from_playground("CartpoleBalance"), prng.key(3)
    params, action = env.default_params(), jnp.full(1, 0.3)

    def ours(key: Any) -> Any:
        state, _ = env.reset(key, params)
        state, _ = env.step(key, state, action, params)
        step = env.step(key, state, action, params)[1]
        return step.observation, step.reward

    def theirs(key: Any) -> Any:
        with jax.numpy_rank_promotion("allow"):
            after = raw.step(raw.step(raw.reset(key), action), action)
        return after.obs, after.reward

    for a, b in zip(jax.jit(ours)(key), jax.jit(theirs)(key), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
