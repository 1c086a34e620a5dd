"""Gymnasium's environments in fastrl: a true function of the state, and every end right."""

import dataclasses
import re
import subprocess
import sys
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastrl
from fastrl import ppo, registry, reset, spaces
from fastrl.envs.adapters.gymnasium import Gymnasium, State, from_gymnasium
from fastrl.envs.adapters.gymnasium_link import linked
from fastrl.kernels import prng
from fastrl.transforms import FrameStack
from fastrl.vec import VecEnv, rollout

CARTPOLE = Gymnasium("CartPole-v1")
SHORT = Gymnasium("CartPole-v1", max_steps=12)  # random play meets both kinds of end
N, T = 4, 40


class Drift(gymnasium.Env):
    """Chance in every step, records as spaces, whole numbers from 3 on; ends both ways at once."""

    observation_space = gymnasium.spaces.Dict(
        {
            "where": gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64),
            "count": gymnasium.spaces.Discrete(100, start=-1),
            "bits": gymnasium.spaces.MultiBinary((2, 2)),
        }
    )
    action_space = gymnasium.spaces.Tuple(
        (gymnasium.spaces.Discrete(3, start=5), gymnasium.spaces.Box(-1, 1, (2,), np.float64))
    )

    def __init__(self, both: bool = True) -> None:
        self.both, self.count, self.where = both, 0, np.zeros(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.count, self.where = 0, self.np_random.normal(size=2)
        return self.see(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        assert self.action_space.contains(action), action
        self.count += 1
        self.where = self.where + self.np_random.normal(size=2) + action[1] * (action[0] - 5)
        over = self.count == 9
        return self.see(), float(self.count), over and self.both, over, {}

    def see(self) -> Any:
        bits = np.array([[1, 0], [self.count % 2, 1]], np.int8)
        return {"where": self.where, "count": np.int64(self.count - 1), "bits": bits}


def make_drift(**options: Any) -> gymnasium.Env:
    return Drift(**options)


DRIFT = Gymnasium(make_drift, max_steps=20)


def play(env: Any, steps: int = T) -> Any:
    """Random play: the last state of the batch and the transitions `[T, N, ...]`."""
    batch = VecEnv(env, N, reset.fresh(env))
    space = env.action_space(())

    def program(key: Any) -> Any:
        state = batch.init(key, env.default_params())

        def policy(key: Any, observation: Any) -> tuple[Any, Any]:
            return spaces.sample(key, space, (N,)), ()

        state, (seen, _), _ = rollout(batch, policy, key, state, env.default_params(), steps)
        return state, seen

    return jax.device_get(jax.jit(program)(prng.key(0)))


def equal(a: Any, b: Any) -> None:
    """Every leaf, to the bit."""
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_array_equal(x, y)


def test_episodes_are_gymnasiums_own() -> None:
    """Fails if a number, an end or a last observation is not what Gymnasium gives to the letter."""
    _, seen = play(SHORT)
    terminated, truncated = 0, 0
    for i in range(N):
        theirs = gymnasium.make("CartPole-v1", max_episode_steps=12)
        batch = VecEnv(SHORT, N, reset.fresh(SHORT))
        start = jax.device_get(batch.init(prng.key(0), ()))
        first = theirs.reset(seed=int(start.env.ticket[i, 0]))[0]
        np.testing.assert_array_equal(seen.observation[0, i], first)
        for t in range(T):
            observation, reward, ends, cut, _ = theirs.step(int(seen.action[t, i]))
            np.testing.assert_array_equal(seen.next_observation[t, i], observation)
            assert seen.reward[t, i] == reward
            assert (bool(seen.terminated[t, i]), bool(seen.truncated[t, i])) == (ends, cut)
            if ends or cut:
                break
    done = seen.terminated | seen.truncated
    terminated, truncated = seen.terminated.sum(), seen.truncated.sum()
    assert terminated > 0
    assert truncated > 0
    following = seen.observation[1:]
    np.testing.assert_array_equal(following[~done[:-1]], seen.next_observation[:-1][~done[:-1]])
    assert (following[done[:-1]] != seen.next_observation[:-1][done[:-1]]).any(-1).all()


def test_starts_differ_between_environments_and_episodes() -> None:
    """Fails if simulators are seeded alike, or an episode begins where an earlier one did."""
    _, seen = play(SHORT)
    done = (seen.terminated | seen.truncated)[:-1]
    starts = np.concatenate([seen.observation[0], seen.observation[1:][done]])
    assert len(np.unique(starts, axis=0)) == len(starts) > 2 * N
    assert (np.abs(starts) <= 0.05).all()


def test_a_step_is_a_function_of_state_and_action() -> None:
    """Fails if what happened between has an effect: old states, branches, repetitions."""
    step = jax.jit(DRIFT.step)
    key, action = prng.key(0), (jnp.int32(2), jnp.array([0.5, -0.5]))
    other = (jnp.int32(0), jnp.array([1.0, 1.0]))
    state, _ = DRIFT.reset(key, ())
    trail = [(state, step(key, state, action, ()))]
    for _ in range(5):
        state = trail[-1][1][0]
        trail.append((state, step(key, state, action, ())))
    for state, result in reversed(trail):  # each of them has moved on meanwhile
        equal(step(key, state, action, ()), result)
    branch = [step(key, trail[3][0], a, ())[1].reward for a in (action, other, action)]
    assert len({float(r) for r in branch}) == 1
    moved = [step(key, trail[3][0], a, ())[1].observation["where"] for a in (action, other)]
    assert not np.array_equal(*moved)


def test_another_process_goes_on_exactly() -> None:
    """Fails if a state means nothing where its simulator is unknown: no run could be resumed."""
    step = jax.jit(jax.vmap(DRIFT.step, (None, 0, 0, None)))
    state, seen = play(DRIFT, steps=13)
    actions = jax.tree.map(lambda x: x[-1], seen.action)
    here = step(prng.key(1), state.env, actions, ())
    linked(DRIFT).hosts._live.clear()  # as a new process finds it
    there = step(prng.key(1), state.env, actions, ())
    equal(here, there)
    assert (np.asarray(state.env.ticket)[:, 2] > 0).all()


def test_both_flags_are_a_termination_and_a_limit_is_a_truncation() -> None:
    """Fails if a learner would bootstrap from a terminal state, or not from one that was cut."""
    _, seen = play(DRIFT, steps=20)
    ends = np.arange(20) % 9 == 8
    np.testing.assert_array_equal(seen.terminated, np.repeat(ends[:, None], N, 1))
    assert not seen.truncated.any()
    _, seen = play(Gymnasium(make_drift, {"both": False}, max_steps=5), steps=20)
    np.testing.assert_array_equal(seen.truncated[:, 0], np.arange(20) % 5 == 4)
    assert not seen.terminated.any()


def test_spaces_and_values_are_translated() -> None:
    """Fails if an entry of a record is mixed up, or whole numbers that begin elsewhere shift."""
    assert DRIFT.observation_space(()) == {
        "bits": spaces.MultiDiscrete((2, 2, 2, 2)),
        "count": spaces.Discrete(100),
        "where": spaces.Box(-np.inf, np.inf, (2,)),
    }
    assert DRIFT.action_space(()) == (spaces.Discrete(3), spaces.Box(-1.0, 1.0, (2,)))
    assert CARTPOLE.action_space(()) == spaces.Discrete(2)
    theirs: Any = gymnasium.make("CartPole-v1").observation_space
    np.testing.assert_array_equal(
        CARTPOLE.observation_space(()).bounds(), (theirs.low, theirs.high)
    )
    _, seen = play(DRIFT, steps=9)
    np.testing.assert_array_equal(seen.observation["count"][:, 0], np.arange(9))
    np.testing.assert_array_equal(seen.next_observation["bits"][0, 0], [1, 0, 1, 1])


def test_a_finished_episode_stays_finished() -> None:
    """Fails if a simulator is stepped past its end, which evaluation does with spare copies."""
    key, action = prng.key(0), (jnp.int32(0), jnp.zeros(2))
    state, _ = DRIFT.reset(key, ())
    step: Any = None
    for _ in range(9):
        state, step = DRIFT.step(key, state, action, ())
    assert bool(step.terminated)
    for _ in range(3):
        state, step = DRIFT.step(key, state, action, ())
        assert (bool(step.terminated), float(step.reward)) == (True, 0.0)


def test_simulators_are_used_again() -> None:
    """Fails if every episode, or every offered start, keeps a simulator of its own for good."""
    made = []

    def make() -> gymnasium.Env:
        made.append(None)
        return Drift()

    play(FrameStack(Gymnasium(make, max_steps=20), 2), steps=100)
    assert len(made) < 8 * N


class Clock(Drift):
    """Draws its count, and counts how often it is stepped."""

    steps = 0

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__()
        self.metadata, self.render_mode = {"render_modes": ["rgb_array"]}, render_mode

    def step(self, action: Any) -> Any:
        Clock.steps += self.render_mode is not None
        return super().step(action)

    def render(self) -> Any:
        assert self.render_mode == "rgb_array"
        return np.full((2, 3, 3), 10 * self.count + abs(int(self.where[0])) % 10, np.uint8)


def make_clock(**options: Any) -> gymnasium.Env:
    return Clock(**options)


def test_any_state_can_be_drawn() -> None:
    """Fails if a picture is that of another state, or a film plays every frame from the start."""
    env = from_gymnasium(make_clock, max_steps=20, drawn=True)
    key, action = prng.key(0), (jnp.int32(2), jnp.array([1.0, 1.0]))
    states, places = [env.reset(key, ())[0]], []
    for _ in range(6):
        state, step = env.step(key, states[-1], action, ())
        states.append(state)
        places.append(abs(int(step.observation["where"][0])) % 10)
    frames = [int(env.render(s, ())[0, 0, 0]) for s in states]  # type: ignore[attr-defined]
    assert frames[1:] == [10 * (t + 1) + place for t, place in enumerate(places)]
    assert Clock.steps == 6
    assert int(env.render(states[2], ())[0, 0, 0]) == frames[2]  # type: ignore[attr-defined]
    assert not hasattr(CARTPOLE, "render")


def test_threads_change_nothing() -> None:
    """Fails if rows of a batch are mixed up between threads."""
    equal(play(DRIFT), play(Gymnasium(make_drift, max_steps=20, threads=3)))


def test_members_under_vmap_are_the_ones_alone() -> None:
    """Fails if a second batch axis mixes simulators up."""
    env, action = DRIFT, (jnp.zeros(3, jnp.int32), jnp.ones((3, 2)))
    step = jax.vmap(env.step, (0, 0, 0, None))

    def run(key: Any) -> Any:
        keys = jax.random.split(key, 3)
        state, _ = jax.vmap(env.reset, (0, None))(keys, ())
        state, _ = step(keys, state, action, ())
        return step(keys, state, action, ())

    keys = jax.random.split(prng.key(3), 2)
    both = jax.jit(jax.vmap(run))(keys)
    for i in range(2):
        equal(jax.tree.map(lambda x, i=i: x[i], both), jax.jit(run)(keys[i]))


def test_without_replay_a_state_is_stepped_once() -> None:
    """Fails if a simulator that has moved on gives wrong numbers instead of an error."""
    env = Gymnasium(make_drift, max_steps=20, replay=False)
    equal(play(env)[1], play(DRIFT)[1])
    state, _ = env.reset(prng.key(0), ())
    assert state.actions == []
    action = (jnp.int32(0), jnp.zeros(2))
    env.step(prng.key(0), state, action, ())
    with pytest.raises(Exception, match="replay=False keeps nothing"):
        jax.block_until_ready(env.step(prng.key(0), state, action, ()))


def test_config_and_registry_name_it() -> None:
    """Fails if a run on it could not be described in its folder, and so not be loaded."""
    env = registry.make("gymnasium/CartPole-v1", options={"sutton_barto_reward": True})
    assert registry.find(env) == (
        "gymnasium/CartPole-v1", {"options": (("sutton_barto_reward", True),)},
    )  # fmt: skip
    assert env == from_gymnasium("CartPole-v1", sutton_barto_reward=True)
    assert hash(env) == hash(from_gymnasium("CartPole-v1", sutton_barto_reward=True))
    assert reset.default(env) is reset.fresh


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: from_gymnasium("CartPole-v9"), "CartPole-v9"),
        (lambda: from_gymnasium("CartPole-v1", sutton=1), "sutton"),
        (lambda: from_gymnasium("CartPole-v1", max_steps=0), "max_steps=0"),
        (lambda: from_gymnasium("CartPole-v1", threads=0), "threads=0"),
        (lambda: from_gymnasium(make_drift), "give max_steps, or replay=False"),
        (lambda: from_gymnasium("CartPole-v1", drawn=True, replay=False), "needs replay=True"),
        (lambda: Gymnasium("CartPole-v1", ["sutton"]), "must be a dictionary"),
        (lambda: Gymnasium(3), "needs an id such as 'CartPole-v1'"),  # type: ignore[arg-type]
        (lambda: from_gymnasium(make_text, max_steps=3), "no fixed shape"),
    ],
)
def test_what_does_not_fit_is_named(build: Any, message: str) -> None:
    """Fails if a slip gives a traceback from inside Gymnasium, or none at all."""
    with pytest.raises(ValueError, match=re.escape(message)):
        build()


def make_text() -> gymnasium.Env:
    env = Drift()
    env.observation_space = gymnasium.spaces.Text(5)  # type: ignore[assignment]
    return env


def test_what_fails_on_the_host_is_told() -> None:
    """Fails if an error in a simulator ends as a crash without a word about its cause."""

    class Old(Drift):
        def step(self, action: Any) -> Any:
            return super().step(action)[:4]

    def make() -> gymnasium.Env:
        return Old()

    env = Gymnasium(make, replay=False)
    state, _ = env.reset(prng.key(0), ())
    with pytest.raises(Exception, match="returned 4 values"):
        jax.block_until_ready(env.step(prng.key(0), state, (jnp.int32(0), jnp.zeros(2)), ()))


@pytest.mark.parametrize(
    ("module", "message"),
    [("None", "pip install gymnasium"), ("Old()", "this needs 1.1 or newer")],
)
def test_a_missing_or_old_gymnasium_is_named(module: str, message: str) -> None:
    """Fails if `import fastrl` needs Gymnasium, or an old one ends in an AttributeError."""
    script = f"""
import sys
class Old:
    __version__ = "0.29.1"
sys.modules["gymnasium"] = {module}
import fastrl
env = fastrl.make("gymnasium/CartPole-v1")
try:
    env.action_space(())
except ImportError as error:
    print(error)
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert message in done.stdout


TINY = ppo.Config(num_envs=4, num_steps=8, num_minibatches=2, num_epochs=1, hidden_sizes=(8,))


def train(steps: int, **options: Any) -> Any:
    algorithm = ppo.make(SHORT, TINY)
    return fastrl.train(algorithm, steps=steps, seed=1, progress=False, **options)


@pytest.mark.slow
def test_training_equals_run_and_a_resumed_one_bit_for_bit(tmp_path: Any) -> None:
    """Fails if the host's chunks, evaluations, or a new set of simulators change a number."""
    algorithm = ppo.make(SHORT, TINY)
    whole, _ = jax.jit(fastrl.run(algorithm, 640))(prng.key(1), algorithm.default_hparams, ())
    equal(train(640), whole)
    train(320, run_dir=tmp_path / "run", eval_episodes=3)
    linked(SHORT).hosts._live.clear()  # as a new process finds it
    equal(train(640, run_dir=tmp_path / "run", resume=True), whole)


@pytest.mark.slow
def test_ppo_learns_gymnasiums_cartpole() -> None:
    """Fails if anything between Gymnasium and the learner is off: PPO balances the pole."""
    algorithm = ppo.make(CARTPOLE, ppo.Config(num_envs=32, num_steps=64))
    hparams = ppo.HParams(learning_rate=2.5e-3, gamma=0.98, gae_lambda=0.8, anneal_steps=120_000)
    state = fastrl.train(algorithm, hparams, steps=120_000, seed=0, progress=False)
    evaluation = fastrl.evaluate(algorithm, state, episodes=16)
    assert evaluation.mean_return >= 475, evaluation
    native = fastrl.evaluate(algorithm, state, fastrl.make("CartPole-v1"), episodes=64)
    assert native.mean_return >= 475, native


@pytest.mark.slow
@pytest.mark.full
def test_several_devices_give_the_same_numbers() -> None:
    """Fails if sharded environments deadlock, or step another simulator than their own."""
    algorithm = ppo.make(SHORT, dataclasses.replace(TINY, num_envs=16))
    one, two = (
        fastrl.train(algorithm, steps=1280, devices=devices, progress=False) for devices in (1, 2)
    )
    np.testing.assert_array_equal(one.env.env.ticket[:, 2], two.env.env.ticket[:, 2])
    for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(two.params), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_state_is_small() -> None:
    """Fails if an episode's actions take more room than one byte each where they can."""
    state, _ = CARTPOLE.reset(prng.key(0), ())
    assert isinstance(state, State)
    assert sum(x.nbytes for x in jax.tree.leaves(state)) == 5 * 4 + 500
