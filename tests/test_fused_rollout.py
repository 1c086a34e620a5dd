"""The fused rollout is `fastrl.vec.rollout` under the actor-critic, and says what it cannot fuse.

The kernel runs in interpret mode; that it compiles for a GPU is checked by lowering it for CUDA.
"""

import dataclasses
import functools
import re
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

import fastrl
from fastrl import distributions, normalize, reset
from fastrl.envs import classic
from fastrl.kernels import prng, scalarize_rules
from fastrl.kernels.fused_rollout import (
    FusionError,
    Kept,
    Launch,
    Samples,
    choose,
    fused_rollout,
    reference_rollout,
    supports,
)
from fastrl.networks import NetworkConfig, actor_critic
from fastrl.spaces import Box, Discrete, MultiDiscrete
from fastrl.types import Array, Key, Step
from fastrl.vec import VecEnv, rollout

N, T = 20, 24  # two blocks of 16, the second not full; several episodes
INTERPRET = Launch(block=16, interpret=True)
ALL = Kept(next_observation=True)
SMALL, TWO_LAYERS = NetworkConfig((16,)), NetworkConfig((32, 16))

# Short episodes in other worlds than the standard ones, ended by terminations too.
TASKS = {
    classic.CartPole(): {"max_steps": 7, "max_angle": 0.06, "mass_pole": 0.2, "gravity": 12.0},
    classic.MountainCar(): {"max_steps": 7, "goal_position": -0.42, "force": 0.002},
    classic.MountainCarContinuous(): {"max_steps": 5, "goal_position": -0.42, "force": 0.004},
    classic.Pendulum(max_torque=3.0): {"max_steps": 7, "mass": 1.3},
    classic.Acrobot(): {"max_steps": 7, "goal_height": -1.92, "torque": 2.0},
}
ENVS = pytest.mark.parametrize(
    "env",
    [
        env if isinstance(env, classic.CartPole) else pytest.param(env, marks=pytest.mark.slow)
        for env in TASKS
    ],
    ids=lambda env: type(env).__name__,
)


class Case(NamedTuple):
    """An environment with a policy of its own and running episodes."""

    env: Any
    task: Any
    network: NetworkConfig
    params: Any
    state: Any


def jitted(f: Any) -> Any:
    """`jax.jit(f)`, compiled in half the time."""
    return jax.jit(f, compiler_options={"xla_backend_optimization_level": 0})


def case(env: Any, network: NetworkConfig = TWO_LAYERS, **numbers: Any) -> Case:
    task = env.default_params()._replace(**numbers)
    spaces = env.observation_space(task), env.action_space(task)
    params = actor_critic(*spaces, network).init(prng.key(1))
    leaves, treedef = jax.tree.flatten(params)  # biases and heads that are not nearly zero
    keys = jax.random.split(prng.key(2), len(leaves))
    noise = [0.2 * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
    params = jax.tree.map(jnp.add, params, treedef.unflatten(noise))
    state = VecEnv(env, N, reset.fresh(env)).init(prng.key(3), task)
    state = state._replace(episode_return=jnp.linspace(0, 5, N), episode_length=jnp.arange(N))
    return Case(env, task, network, params, state)


def fused(c: Case, kept: Kept = ALL, **options: Any) -> Any:
    """The kernel's rollout of `T` steps: (params, key, state, task[, statistics])."""
    run = fused_rollout(c.env, c.network, kept=kept, launch=INTERPRET, **options)
    return jitted(functools.partial(run, num_steps=T))


def scanned(c: Case, **options: Any) -> Any:
    run = reference_rollout(c.env, c.network, kept=ALL, **options)
    return jitted(functools.partial(run, num_steps=T))


def oracle(c: Case, see: Any = lambda x: x) -> Any:
    """The same by the parts that learners use: `vec.rollout`, networks, distributions."""
    space = c.env.action_space(c.task)
    network = actor_critic(c.env.observation_space(c.task), space, c.network)

    def policy(key, observation):
        distribution, value = network.apply(c.params, see(observation))
        action = distribution.sample(key)
        extras = action, distribution.log_prob(action), value
        return distributions.to_environment(space, action), extras

    def keep(t: Any, extras: tuple[Any, Any, Any]) -> Samples:
        final_value = network.value(c.params, see(t.next_observation)) * t.truncated
        return Samples(
            t.observation, *extras, t.reward, t.terminated, t.truncated, final_value,
            t.next_observation,
        )  # fmt: skip

    def run(key, state, task):
        vec_env = VecEnv(c.env, N, reset.fresh(c.env))
        state, samples, metrics = rollout(vec_env, policy, key, state, task, T, keep)
        return state, samples, {k: tuple(m) for k, m in metrics.items()}

    return jitted(run)(prng.key(4), c.state, c.task)


def assert_same(got: Any, want: Any) -> None:
    """Structures, types, integers and truth equal; floats to rounding, over `T` steps."""
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        if jnp.issubdtype(a.dtype, jnp.floating):
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)
        else:
            np.testing.assert_array_equal(a, b)


@ENVS
def test_it_is_the_rollout_that_learners_use(env):
    c = case(env, **TASKS[env])
    got = fused(c)(c.params, prng.key(4), c.state, c.task)
    want = oracle(c)
    assert_same(got, want)
    samples = want[1]
    assert bool(samples.truncated.any())
    assert bool(samples.terminated.any()) or isinstance(env, classic.Pendulum)
    assert bool((samples.final_value[samples.truncated] != 0).all())
    assert int((samples.terminated | samples.truncated).sum(0).min()) > 1  # starts of its own


@ENVS
def test_every_classic_environment_lowers_for_cuda(env):
    assert supports(env, NetworkConfig((64, 64))) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["motor/Cont-CC-PermExDc-v0", "quadrotor/HoverOneD-v0", "memory/TMaze-v0"]
)
def test_other_families_lower_for_cuda(name):
    """Fails if PPO on a GPU would stop at the kernel of an environment that a scan could play."""
    assert supports(fastrl.make(name), SMALL) is None


@pytest.mark.slow
def test_observations_may_hold_what_is_alike_for_all():
    """Fails if an entry that depends on the task alone is no vector over the block."""
    c = case(fastrl.make("motor/Cont-CC-PermExDc-v0"))
    assert_same(fused(c)(c.params, prng.key(4), c.state, c.task), oracle(c))


class Params(NamedTuple):
    length: int = 5
    gains: Any = (0.5, 1.0, -0.5)


class State(NamedTuple):
    key: Key
    board: Array
    lit: Array
    time: Array


@dataclasses.dataclass(frozen=True)
class Medley:
    """What the classic environments have not: records, bytes, keys in the state, indices."""

    version: ClassVar[int] = 1

    def default_params(self) -> Params:
        return Params(gains=jnp.array([0.5, 1.0, -0.5]))

    def reset(self, key: Key, params: Params) -> tuple[State, Any]:
        board_key, key = jax.random.split(key)
        board = jax.random.normal(board_key, (3,))
        state = State(key, board, board[0] > 0, jax.random.randint(board_key, (), 0, 2))
        return state, self._observe(state)

    def step(self, key: Key, state: State, action: Array, params: Params) -> tuple[State, Step]:
        noise_key, kept_key = jax.random.split(state.key)
        board = state.board.at[action[1]].add(params.gains[action[1]])
        board = board + 0.1 * jax.random.normal(noise_key, (3,))
        lit = state.lit ^ (action[0] == 1)
        state = State(kept_key, board, lit, state.time + 1)
        terminated = jax.random.uniform(key) < 0.1
        truncated = (state.time >= params.length) & ~terminated
        reward = jnp.where(lit, board.max(), 0.0)
        metrics = {"lit": lit.astype(jnp.float32)}
        return state, Step(self._observe(state), reward, terminated, truncated, metrics)

    def observation_space(self, params: Params) -> Any:
        pixels = Box(0, 255, (2,), np.dtype(np.uint8))
        return {"board": Box(-np.inf, np.inf, (3,)), "pixels": pixels, "place": Discrete(3)}

    def action_space(self, params: Params) -> MultiDiscrete:
        return MultiDiscrete((2, 3))

    def _observe(self, state: State) -> Any:
        pixels = jnp.stack([state.lit * 255, state.time]).astype(jnp.uint8)
        return {"board": state.board, "pixels": pixels, "place": jnp.argmax(state.board)}


@pytest.mark.slow
def test_records_bytes_keys_indices_and_metrics():
    c = case(Medley(), NetworkConfig((16,), "relu"))
    got = fused(c)(c.params, prng.key(4), c.state, c.task)
    want = oracle(c)
    assert_same(got, want)
    assert_same(scanned(c)(c.params, prng.key(4), c.state, c.task), want)
    assert float(want[2]["lit"][1]) == N * T
    assert supports(c.env, c.network) is None


@pytest.mark.slow
def test_a_shared_torso_and_a_box_with_open_sides():
    c = case(toys.ReachPoint(), NetworkConfig((16, 16), "relu", shared_torso=True))
    assert_same(fused(c)(c.params, prng.key(4), c.state, c.task), oracle(c))
    assert supports(c.env, c.network) is None


@pytest.fixture(scope="module")
def cartpole():
    """A small case, and its rollout by the oracle."""
    c = case(classic.CartPole(), SMALL, max_steps=7)
    return c, oracle(c)


@pytest.mark.slow
def test_the_policy_sees_what_preprocessing_makes_of_observations():
    c = case(classic.Pendulum(), max_steps=7)
    statistics = normalize.init(c.env.observation_space(c.task))._replace(
        mean=jnp.array([0.1, -0.2, 0.5]), variance=jnp.array([0.5, 2.0, 9.0])
    )
    run = fused(c, preprocess=normalize.normalize)
    got = run(c.params, prng.key(4), c.state, c.task, statistics=statistics)
    assert_same(got, oracle(c, lambda x: normalize.normalize(statistics, x)))
    again = scanned(c, preprocess=normalize.normalize)
    assert_same(again(c.params, prng.key(4), c.state, c.task, statistics=statistics), got)


@pytest.mark.slow
def test_two_rollouts_in_a_row_and_members_under_vmap():
    c = case(classic.CartPole(), SMALL, max_steps=7)
    members = jax.tree.map(lambda x: jnp.stack([x, 1.5 * x]), c.params)
    keys = jax.random.split(prng.key(6), 2)

    def twice(run, params, key):
        first, second = jax.random.split(key)
        state, *_ = run(params, first, c.state, c.task, 9)
        return run(params, second, state, c.task, 5)

    kernel = fused_rollout(c.env, c.network, kept=ALL, launch=INTERPRET)
    scan = reference_rollout(c.env, c.network, kept=ALL)
    got = jitted(jax.vmap(lambda p, k: twice(kernel, p, k)))(members, keys)
    want = jitted(jax.vmap(lambda p, k: twice(scan, p, k)))(members, keys)
    assert_same(got, want)


@pytest.mark.slow
def test_what_is_not_kept_is_not_there_and_changes_nothing_else(cartpole):
    c, (state, samples, sums) = cartpole
    least = fused(c, Kept(value=False, final_value=False))
    dropped = {"value": (), "final_value": (), "next_observation": ()}
    got = least(c.params, prng.key(4), c.state, c.task)
    assert_same(got, (state, samples._replace(**dropped), sums))


def test_other_numbers_of_the_task_compile_nothing(cartpole):
    c, want = cartpole
    run = fused(c)
    run(c.params, prng.key(5), c.state, c.task._replace(max_steps=3, gravity=5.0))
    assert_same(run(c.params, prng.key(4), c.state, c.task), want)
    assert run._cache_size() == 1


@dataclasses.dataclass(frozen=True)
class Sorting(classic.CartPole):
    """An environment with what no kernel has, in `step` or in `reset`."""

    in_reset: bool = False

    def reset(self, key, params):
        state, observation = super().reset(key, params)
        return state, jnp.sort(observation) if self.in_reset else observation

    def step(self, key, state, action, params):
        state, step = super().step(key, state, action, params)
        if self.in_reset:
            return state, step
        return state, step._replace(observation=jnp.sort(step.observation))


@pytest.mark.parametrize(("in_reset", "function"), [(False, "step"), (True, "reset")])
def test_the_reason_names_function_primitive_and_line(in_reset, function):
    reason = supports(Sorting(in_reset=in_reset), NetworkConfig())
    assert reason is not None
    assert f"Sorting.{function} uses the primitive 'sort'" in reason
    assert "test_fused_rollout.py:" in reason
    chosen = choose(Sorting(in_reset=in_reset), NetworkConfig(), platform="gpu")
    assert chosen.reason == reason


@dataclasses.dataclass(frozen=True)
class Digamma(classic.CartPole):
    """An environment with a primitive that Triton has not."""

    def step(self, key, state, action, params):
        state, step = super().step(key, state, action, params)
        return state, step._replace(reward=jax.lax.digamma(3.0 + state.position))


def test_what_pallas_does_not_lower_is_a_reason_too(monkeypatch):
    assert "'digamma'" in str(supports(Digamma(), SMALL))
    monkeypatch.setitem(scalarize_rules.RULES, "digamma", scalarize_rules.RULES["tanh"])
    reason = supports(Digamma(), SMALL)  # now there is a rule, which promises too much
    assert reason is not None
    assert reason.startswith("Pallas does not lower")
    assert "digamma" in reason


@pytest.mark.parametrize(
    ("env", "network", "words"),
    [
        (classic.CartPole(), NetworkConfig((100,)), r"hidden_sizes=\(100,\)"),
        (classic.CartPole(), NetworkConfig(()), r"hidden_sizes=\(\)"),
        (classic.CartPole(), NetworkConfig((16,), "gelu"), "activation='gelu'"),
        (classic.CartPole(), NetworkConfig((16,), layer_norm=True), "no plain MLP"),
        (toys.MaskedChoice(), SMALL, "action mask"),
        (toys.Combination(), SMALL, "critic alone"),
        (toys.MaskedChoice(actions=100), SMALL, "mask"),
    ],
)
def test_networks_and_spaces_that_do_not_fit(env, network, words):
    assert re.search(words, str(supports(env, network)))


def test_on_a_cpu_the_choice_is_the_scan_and_it_works(cartpole):
    c, want = cartpole
    chosen = choose(c.env, c.network, kept=ALL)
    assert chosen.reason == "the kernel is for NVIDIA GPUs, this is cpu"
    run = jitted(functools.partial(chosen.rollout, num_steps=T))
    assert_same(run(c.params, prng.key(4), c.state, c.task), want)


def test_what_does_not_fit_is_refused_at_the_door():
    c = case(classic.CartPole(), SMALL)
    run = fused_rollout(c.env, c.network, launch=INTERPRET)
    with pytest.raises(TypeError, match="hash32"):
        run(c.params, jax.random.key(0, impl="threefry2x32"), c.state, c.task, T)
    with pytest.raises(ValueError, match=r"only reset\.fresh"):
        run(c.params, prng.key(0), c.state._replace(memory=jnp.zeros(3)), c.task, T)
    with pytest.raises(ValueError, match="block=24"):
        fused_rollout(c.env, c.network, launch=Launch(block=24))
    with pytest.raises(FusionError, match="hidden_sizes"):
        fused_rollout(c.env, NetworkConfig((7,)))(c.params, prng.key(0), c.state, c.task, T)
    actor = {k: v for k, v in c.params["params"].items() if not k.startswith("critic")}
    with pytest.raises(ValueError, match="no critic"):
        run({"params": actor}, prng.key(0), c.state, c.task, T)
