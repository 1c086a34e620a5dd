"""The brax adapter: brax's own dynamics, our ends of episodes."""

import base64
import functools
import json
import re
import subprocess
import sys
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brax_oracle import brax_trajectory

from fastrl import registry, reset, sharding
from fastrl.check_env import check_env
from fastrl.envs.adapters import brax
from fastrl.envs.adapters.brax import Brax
from fastrl.kernels import prng
from fastrl.vec import VecEnv, rollout

N, T = 16, 12
PENDULUM = Brax("inverted_pendulum")


@functools.cache
def play(env: Brax = PENDULUM) -> Callable[[Any, Any, Any, Any], Any]:
    """`T` steps of `N` environments with actions `push + noise * uniform(-1, 1)`.

    (key, params, push, noise) -> (start, end, transitions `[T, N, ...]`, metrics), compiled.
    """
    vec_env = VecEnv(env, N, reset.default(env)(env))
    shape = (N, *env.action_space(env.default_params()).shape)

    def steps(key: Any, params: Any, push: Any, noise: Any) -> Any:
        init_key, roll_key = jax.random.split(key)
        first = vec_env.init(init_key, params)

        def policy(key: Any, observation: Any) -> tuple[Any, Any]:
            return push + noise * jax.random.uniform(key, shape, minval=-1.0), ()

        last, (seen, _), metrics = rollout(vec_env, policy, roll_key, first, params, T)
        return first, last, seen, metrics

    return jax.jit(steps)


def params(**changes: Any) -> brax.Params:
    """The default task, as arrays: other numbers must not compile again."""
    return jax.tree.map(jnp.asarray, brax.Params()._replace(**changes))


def brax_step(env: Brax) -> Any:
    """The shapes of a step; makes brax's own environment."""
    state, _ = jax.eval_shape(env.reset, prng.key(0), params())
    return jax.eval_shape(env.step, prng.key(0), state, jnp.zeros(8), params())


def printed(script: str) -> str:
    """What `script` writes to its outputs, run in a Python of its own."""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    return done.stdout + done.stderr


def others_full(names: Any, *kept: str) -> list[Any]:
    """Parameters of which all but those `kept` run with the full suite only."""
    marks = (pytest.mark.full, pytest.mark.slow)
    return [n if n in kept else pytest.param(n, marks=marks) for n in names]


def test_a_rollout_keeps_the_contract() -> None:
    """Fails if shapes, ends or starts of the batch are not what learners rely on."""
    first, last, seen, metrics = play()(prng.key(0), params(max_steps=5), 0.0, 0.1)
    assert seen.observation.shape == (T, N, 4)
    assert seen.action.shape == (T, N, 1)
    assert jax.tree.map(jnp.shape, first) == jax.tree.map(jnp.shape, last)
    # nothing falls within 5 steps of weak pushes: every end is the time limit's
    assert not seen.terminated.any()
    np.testing.assert_array_equal(np.argwhere(seen.truncated[:, 0])[:, 0], [4, 9])
    starts = np.concatenate([seen.observation[t] for t in (0, 5, 10)])
    assert (np.abs(starts) <= 0.011).all()
    assert len(np.unique(starts, axis=0)) > 2 * N
    # the transition holds the true last observation, not the next episode's first
    assert (seen.next_observation[4] != seen.observation[5]).any(-1).all()
    assert metrics["episode_length"].total == 5 * metrics["episode_length"].weight
    np.testing.assert_allclose(seen.reward, 1.0)


def test_a_fall_is_a_termination() -> None:
    """Fails if the pole may lie down, or if a fall at the time limit is called a truncation."""
    *_, seen, _ = play()(prng.key(0), params(), 1.0, 0.0)
    ends = np.asarray(seen.terminated)
    assert ends.any(0).all()
    assert not seen.truncated.any()
    np.testing.assert_array_equal(np.abs(seen.next_observation[..., 1]) > 0.2, ends)
    length = int(ends[:, 0].argmax()) + 1
    *_, cut, _ = play()(prng.key(0), params(max_steps=length), 1.0, 0.0)
    assert cut.terminated[length - 1, 0]
    assert not cut.truncated[length - 1, 0]


def test_physics_follows_the_params() -> None:
    """Fails if gravity or strength do not reach brax, or if other values compile again."""
    run = play()
    still = run(prng.key(0), params(), 0.0, 0.0)[2].next_observation
    pushed = run(prng.key(0), params(), 0.0, 1.0)[2].next_observation
    weak = run(prng.key(0), params(strength=0.0), 0.0, 1.0)[2].next_observation
    floating = run(prng.key(0), params(gravity=0.0), 0.0, 1.0)[2].next_observation
    assert run._cache_size() == 1  # type: ignore[attr-defined]
    np.testing.assert_allclose(weak, still, atol=1e-6)
    assert np.abs(pushed - still).max() > 1e-2
    assert np.abs(pushed - floating).max() > 1e-4


def test_physics_that_blew_up_ends_the_episode() -> None:
    """Fails if something not finite, or absurdly large, reaches a learner or its statistics."""
    state, _ = jax.jit(PENDULUM.reset)(prng.key(0), params())
    bad = jnp.stack([state.physics, state.physics * jnp.nan, state.physics * 1e30])
    step = jax.jit(jax.vmap(PENDULUM.step, (None, 0, None, None)))
    states = brax.State(bad, jnp.ones(3, jnp.int32))
    _, result = step(prng.key(1), states, jnp.zeros(1), params(max_steps=2))
    np.testing.assert_array_equal(result.terminated, [False, True, True])
    np.testing.assert_array_equal(result.truncated, [True, False, False])
    np.testing.assert_array_equal(result.reward, [1.0, 0.0, 0.0])
    np.testing.assert_array_equal(result.observation[1:], np.zeros((2, 4)))


def test_environments_compare_by_value() -> None:
    """Fails if equal environments would compile twice, or different ones share a program."""
    env = registry.make("brax/hopper", backend="mjx", options={})
    assert env == Brax("hopper", "mjx")
    assert hash(env) == hash(Brax("hopper", "mjx"))
    assert env != Brax("hopper")
    assert reset.default(env) is reset.pool
    options = {"healthy_z_range": [0.5, 2.0], "healthy_reward": 2.0}
    one = Brax("hopper", options=options)
    two = Brax("hopper", options=list(reversed(list(options.items()))))
    assert one == two
    assert hash(one) == hash(two)
    assert registry.find(one) == ("brax/hopper", {"options": one.options})


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: registry.make("brax/hoper"), "did you mean 'brax/hopper'"),
        (lambda: Brax("half_cheetah"), "did you mean 'halfcheetah'"),
        (lambda: Brax("ant", "generalised"), "did you mean 'generalized'"),
        (lambda: registry.make("brax/ant", backend=3), "unknown brax backend 3"),
        (lambda: registry.make("brax/ant", back="mjx"), "did you mean 'backend'"),
        (lambda: Brax("ant", options={"healthy": 1}), "did you mean 'healthy_reward'"),
        (lambda: Brax("reacher", options={"healthy_reward": 1}), "known: 'n_frames'"),
        (lambda: Brax("ant", options=["healthy_reward"]), "must be a dictionary"),
        (lambda: Brax("ant", options={"healthy_reward": {}}), "a number or a list of numbers"),
        (lambda: Brax("ant", options={"n_frames": 0}), "n_frames=0"),
        (
            lambda: brax_step(Brax("ant", options={"use_contact_forces": True})),
            "brax/ant does not take {'use_contact_forces': True}",
        ),
        (lambda: PENDULUM.render_html([], brax.Params()), "no states"),
    ],
)
def test_bad_names_and_options_say_what_is_right(build: Callable, message: str) -> None:
    """Fails if a slip gives a traceback from inside brax."""
    with pytest.raises(ValueError, match=re.escape(message)):
        build()


def test_brax_stays_out_until_it_is_used() -> None:
    """Fails if `import fastrl` or naming a brax environment pays for brax, or cannot do without."""
    script = """
import sys
sys.modules["brax"] = None  # as if it were not installed
import fastrl
env = fastrl.make("brax/ant")
try:
    env.action_space(env.default_params())
except ImportError as error:
    print(error)
assert "mujoco" not in sys.modules
"""
    assert "pip install brax" in printed(script)


def test_using_brax_prints_nothing() -> None:
    """Fails if notices of brax, jaxopt or mujoco reach the user, or stop a strict session."""
    script = """
import warnings; warnings.simplefilter("error")
import jax, fastrl
env = fastrl.make("brax/halfcheetah")
jax.eval_shape(env.reset, jax.random.key(0), env.default_params())
"""
    assert printed(script) == ""


def test_render_html_plays_the_states() -> None:
    """Fails if the page lacks the trajectory or plays it at another speed."""
    state, _ = jax.jit(PENDULUM.reset)(prng.key(0), params())
    page = PENDULUM.render_html([state] * 7, params())
    encoded = max(re.findall(r"[A-Za-z0-9+/=]{200,}", page), key=len)
    scene = json.loads(zlib.decompress(base64.b64decode(encoded)))
    assert len(scene["states"]["x"]) == 7
    assert scene["opt"]["timestep"] == pytest.approx(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("name", others_full(["inverted_pendulum", "hopper"], "hopper"))
def test_steps_equal_brax(name: str) -> None:
    """Fails if a step from the same state under the same action differs from brax's own step."""
    env = Brax(name)
    start, states, actions, expected = brax_trajectory(name, env.backend, steps=300, batch=4)
    mine, observation = jax.jit(jax.vmap(env.reset, (0, None)))(start.keys, params())
    np.testing.assert_allclose(observation, start.observation, atol=1e-6)
    np.testing.assert_allclose(mine.physics, start.physics, atol=1e-5)
    physics = jnp.asarray(states.reshape(-1, states.shape[-1]))
    flat = brax.State(physics, jnp.zeros(1200, jnp.int32))
    step = jax.jit(jax.vmap(env.step, (None, 0, 0, None)))
    after, result = step(prng.key(0), flat, actions.reshape(1200, -1), params())
    scale = 1 + np.abs(expected.observation)
    assert (np.abs(result.observation - expected.observation) / scale).max() < 1e-3
    np.testing.assert_allclose(result.reward, expected.reward, rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(result.terminated, expected.done)
    assert expected.done.any()
    assert not expected.done.all()
    np.testing.assert_array_equal(result.truncated, np.zeros(1200, bool))
    np.testing.assert_allclose(after.physics, expected.physics, rtol=1e-2, atol=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("name", others_full(brax.NAMES, "inverted_pendulum"))
def test_every_task_runs(name: str) -> None:
    """Fails if a task cannot be stepped, or leaves its spaces."""
    env = Brax(name)
    _, _, seen, metrics = play(env)(prng.key(0), params(max_steps=10), 0.0, 1.0)
    assert seen.observation.shape[2:] == env.observation_space(params()).shape
    assert np.isfinite(seen.next_observation).all()
    assert np.abs(seen.next_observation).max() < brax.LIMIT / 10
    assert not (seen.terminated & seen.truncated).any()
    assert (seen.terminated | seen.truncated).any(0).all()
    assert all(np.isfinite(m.total) for m in metrics.values())


@pytest.mark.slow
@pytest.mark.parametrize("backend", others_full(brax.BACKENDS))
def test_every_backend_runs(backend: str) -> None:
    """Fails if a backend's state does not survive being packed, or friction breaks its contacts."""
    env = Brax("inverted_pendulum" if backend == "mjx" else "hopper", backend)
    *_, seen, _ = play(env)(prng.key(0), params(friction=0.5), 0.0, 1.0)
    assert np.isfinite(seen.next_observation).all()
    assert (seen.observation[1] != seen.observation[0]).any(-1).all()


@pytest.mark.slow
@pytest.mark.full
def test_checker_finds_no_fault() -> None:
    """Fails if the adapter breaks the contract that every environment keeps."""
    report = check_env(PENDULUM, num_envs=16, num_steps=100)
    assert report.ok, str(report)


@pytest.mark.slow
@pytest.mark.full
def test_sharded_rollouts_are_the_same() -> None:
    """Fails if several devices change what happens, or a mesh in force spoils what is kept."""
    twin = Brax("inverted_pendulum", options={"n_frames": 4})  # equal physics, built in the mesh
    with jax.set_mesh(sharding.mesh(2)):
        shared = play(twin)(prng.key(0), params(), 0.0, 1.0)
    assert len(shared[1].env.physics.sharding.device_set) == 2
    alone, again = (play(e)(prng.key(0), params(), 0.0, 1.0) for e in (PENDULUM, twin))
    for a, b, c in zip(*map(jax.tree.leaves, (alone[2], shared[2], again[2])), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
        np.testing.assert_array_equal(a, c)
