"""What every registered algorithm keeps: one line of `CASES` each, as small as it gets."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastrl
from fastrl import algorithms, sharding

ITERATIONS = 4  # of which the first two are saved, and the rest resumed


class Case(NamedTuple):
    env: str
    config: dict[str, Any]  # fields of the algorithm's Config: tiny, and several episodes long
    moved: str = "learning_rate"  # a number of `hparams`, by its path, that must not compile again
    params: dict[str, Any] = {"max_steps": 7}  # noqa: RUF012 - of the task: both ends occur
    quick: bool = False  # whether it stands for the others in the quick tests


ON_POLICY = {"num_envs": 32, "num_steps": 8, "hidden_sizes": (8,)}
REPLAY = {
    "num_envs": 32, "num_steps": 2, "num_rounds": 4, "num_updates": 2, "batch_size": 16,
    "buffer_size": 512, "learning_starts": 64, "hidden_sizes": (8,),
}  # fmt: skip
PROPS = {
    "num_minibatches": 2, "num_epochs": 2, "buffer_rollouts": 2, "behaviour_steps": 4,
    "behaviour_epochs": 2,
}  # fmt: skip
SQIRL = {
    "k": 2, "num_episodes": 32, "horizon": 8, "num_epochs": 2, "batch_size": 64,
    "hidden_sizes": (8,),
}  # fmt: skip

RECURRENT = {"batch_size": 8, "n_step": 2, "burn_in": 1, "sequence_length": 3, "memory_size": 4}
STREAM = {"num_steps": 32, "hidden_sizes": (8,), "initializer": "dense"}
# Sorted by name; what the algorithm has of its own goes on top of ON_POLICY or REPLAY.
CASES = {
    "a2c": Case("CartPole-v1", ON_POLICY),
    "avg": Case("Pendulum-v1", {"num_steps": 32, "hidden_sizes": (8,)}),
    "crossq": Case("Pendulum-v1", REPLAY | {"critic_hidden_sizes": (8,)}),
    "ddpg": Case("Pendulum-v1", REPLAY),
    "disco_agent": Case("CartPole-v1", ON_POLICY | {"model_size": 4, "head_sizes": (8,)}),
    "dqn": Case("CartPole-v1", REPLAY | {"prioritised": True, "n_step": 3}, quick=True),
    "dyna": Case(
        "CartPole-v1",
        {"num_steps": 32, "learning_starts": 8, "hidden_sizes": (8,), "batch_size": 8, "grids": 6},
    ),
    "impala": Case("CartPole-v1", ON_POLICY | {"policy_lag": 3, "num_epochs": 2}),
    "intrinsic": Case("CartPole-v1", ON_POLICY, moved="agent.learning_rate"),
    "lpg_agent": Case("CartPole-v1", ON_POLICY),
    "policy_gradient": Case(
        "CartPole-v1", {"num_trajectories": 32, "horizon": 10, "hidden_sizes": (8,)}
    ),
    "ppo": Case("CartPole-v1", ON_POLICY | {"num_minibatches": 2}, quick=True),
    "ppo_memory": Case("CartPole-v1", ON_POLICY | {"num_minibatches": 2, "memory_size": 8}),
    "pqn": Case("CartPole-v1", ON_POLICY | {"num_minibatches": 2}),
    "props": Case("CartPole-v1", ON_POLICY | PROPS),
    "r2d2": Case("CartPole-v1", REPLAY | RECURRENT),
    "redq": Case("Pendulum-v1", REPLAY | {"num_critics": 3, "policy_delay": 2, "dropout": True}),
    "reinforce": Case("CartPole-v1", ON_POLICY),
    "relic": Case(
        "CartPole-v1",
        ON_POLICY | {"num_minibatches": 2, "num_updates": 2, "memory_size": 8, "layers": 1},
    ),
    "sac": Case("Pendulum-v1", REPLAY),
    "sac_discrete": Case("CartPole-v1", REPLAY),
    "sqirl": Case("CartPole-v1", SQIRL),
    "stream_ac": Case("Pendulum-v1", STREAM),
    "stream_q": Case("CartPole-v1", STREAM),
    "stream_q_memory": Case("CartPole-v1", STREAM | {"memory_size": 4}),
    "stream_sarsa": Case("CartPole-v1", STREAM),
    "stream_td": Case("CartPole-v1", STREAM | {"optimizer": "intentional"}),
    "stream_td_memory": Case("CartPole-v1", STREAM | {"cell": "gru", "memory_size": 4}),
    "subpo": Case("CartPole-v1", {"num_trajectories": 32, "horizon": 10, "hidden_sizes": (8,)}),
    "td3": Case("Pendulum-v1", REPLAY | {"optimism": True}),
}


def of_all(test: Any) -> Any:
    """`test` for every case, slow for those that are not `quick`."""
    names = [n if c.quick else pytest.param(n, marks=pytest.mark.slow) for n, c in CASES.items()]
    return pytest.mark.parametrize("name", names)(test)


def of_some(*kept: str) -> Any:
    """A test of those `kept`, slow; of the others, which share their code, in the full suite."""
    full = pytest.mark.full
    names = [n if n in kept else pytest.param(n, marks=full) for n in CASES]
    return lambda test: pytest.mark.slow(pytest.mark.parametrize("name", names)(test))


@functools.cache
def built(name: str) -> tuple[Any, Any]:
    """The algorithm and its task."""
    case, module = CASES[name], algorithms.module(name)
    env = fastrl.make(case.env)
    algorithm = module.make(env, module.Config(**case.config))
    return algorithm, env.default_params()._replace(**case.params)


@functools.cache
def program(name: str, vmapped: bool = False) -> Any:
    """The whole training, jitted: (key, hparams, task) -> (state, metrics)."""
    algorithm, _ = built(name)
    training = fastrl.run(algorithm, ITERATIONS * algorithm.steps_per_iteration)
    return jax.jit(jax.vmap(training, (0, None, None)) if vmapped else training)


@functools.cache
def trained(name: str, seed: int = 0) -> Any:
    """The state at the end of `run`."""
    algorithm, task = built(name)
    return program(name)(jax.random.key(seed), algorithm.default_hparams, task)[0]


def numbers(state: Any) -> list[np.ndarray]:
    """The leaves, keys as their words."""
    words = lambda x: jax.random.key_data(x) if _is_key(x) else x  # noqa: E731
    return [np.asarray(words(x)) for x in jax.tree.leaves(state)]


def _is_key(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def halved(record: Any, field: str, *rest: str) -> Any:
    """A record with half the number that the path leads to."""
    value = getattr(record, field)
    return record._replace(**{field: halved(value, *rest) if rest else 0.5 * value})


def assert_equal(a: Any, b: Any, tolerance: float = 0.0) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(numbers(a), numbers(b), strict=True):
        if tolerance and np.issubdtype(x.dtype, np.floating):
            np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)
        else:
            np.testing.assert_array_equal(x, y)


def test_every_algorithm_is_here():
    """One that is registered and not listed is not tested."""
    assert sorted(CASES) == algorithms.names()


@of_some("ppo", "dqn", "ppo_memory", "r2d2", "sac", "stream_q")
def test_train_is_run_and_a_resumed_run_is_the_whole(name, tmp_path):
    """State that is not saved, a key drawn on the host, or a buffer that is not restored."""
    algorithm, task = built(name)
    steps = algorithm.steps_per_iteration
    options = {"progress": False, "eval_every": 0, "log_every": 2 * steps}
    fastrl.train(
        algorithm, None, task, steps=2 * steps, seed=0, run_dir=tmp_path,
        checkpoint_every=2 * steps, **options,
    )  # fmt: skip
    whole = fastrl.train(
        algorithm, steps=ITERATIONS * steps, resume=True, run_dir=tmp_path, progress=False
    )
    assert_equal(whole, trained(name))


@of_all
def test_other_numbers_compile_nothing(name):
    """A hyper-parameter, seed or number of the task that is baked into the program."""
    algorithm, task = built(name)
    trained(name)
    hparams = algorithm.default_hparams
    moved = halved(hparams, *CASES[name].moved.split("."))
    before = program(name)._cache_size()
    state, _ = program(name)(jax.random.key(5), moved, task._replace(max_steps=9))
    assert program(name)._cache_size() == before
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(algorithm.parameters(state)))


@of_all
def test_the_numbers_change_what_is_learned(name):
    """Without updates all of the other tests would pass."""
    algorithm, task = built(name)
    start = algorithm.parameters(jax.jit(algorithm.init)(
        fastrl.key(0), algorithm.default_hparams, task
    ))  # fmt: skip
    end = algorithm.parameters(trained(name))
    changed = [np.abs(a - b).max() > 0 for a, b in zip(numbers(start), numbers(end), strict=True)]
    assert np.mean(changed) > 0.5


@of_some("ppo", "dqn")
def test_vmapped_seeds_equal_single_runs(name):
    """A reduction over the wrong axis, or state that members share."""
    algorithm, task = built(name)
    keys = jnp.stack([jax.random.key(0), jax.random.key(1)])
    both, _ = program(name, vmapped=True)(keys, algorithm.default_hparams, task)
    for i in range(2):
        assert_equal(jax.tree.map(lambda x, i=i: x[i], both), trained(name, i), 2e-3)


@of_some("ppo", "dqn")
def test_four_devices_give_the_numbers_of_one(name):
    """Means per shard, or data that an update sees only a part of."""
    algorithm, task = built(name)
    training = fastrl.run(algorithm, ITERATIONS * algorithm.steps_per_iteration)
    with jax.set_mesh(sharding.mesh(4)):
        state, _ = jax.jit(training)(jax.random.key(0), algorithm.default_hparams, task)
    assert_equal(state, trained(name), 1e-5)


@of_all
def test_it_acts_on_any_batch(name):
    """Shapes or types that the environment does not take, with a key and without."""
    algorithm, task = built(name)
    state, env = trained(name), algorithm.env
    for batch in ((), (3,)):
        observation = fastrl.spaces.zeros(env.observation_space(task), batch)
        for key in (None, jax.random.key(0)):
            carry = algorithm.initial_carry(batch)
            action, _ = algorithm.act(state, carry, observation, key)
            expected = fastrl.spaces.zeros(env.action_space(task), batch)
            assert jnp.shape(action) == expected.shape
            assert jnp.asarray(action).dtype == expected.dtype
