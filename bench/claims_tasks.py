"""The tasks on which `claims.py` measures: students, processes, walks."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import fastrl
from fastrl import ppo
from fastrl.effective_horizon import MDP, Analysis
from fastrl.envs.coverage import Coverage, InformativePath
from fastrl.envs.coverage.walk import MOVES
from fastrl.envs.tabular import Lock, RandomMDP, Tabular
from fastrl.envs.tabular.tabular import Params

POINTS, EPISODES = 10, 10  # of a training: when students are evaluated, on how many episodes


@dataclasses.dataclass(frozen=True)
class Student:
    """A learner on a task, from whose teacher snapshots are taken."""

    name: str
    env: Any
    make: Callable[[Any, Any], Any]  # (env, reset) -> Algorithm
    hparams: Any
    steps: int
    teacher_steps: int
    visit: int
    longest: int
    status: Any = None
    rewind: Any = None


def students() -> Iterator[Student]:
    """PPO, and SAC and TD3 where this version of fastrl has them."""
    rewind = lambda s: s._replace(time=jnp.zeros_like(s.time))  # noqa: E731
    car = ppo.Config(num_envs=16, num_steps=64, num_minibatches=4, normalize_observation=True,
                     normalize_reward=True)  # fmt: skip
    yield Student(
        "PPO, MountainCar-v0", fastrl.make("MountainCar-v0"),
        lambda env, reset: ppo.make(env, car, reset=reset),
        ppo.HParams(learning_rate=1e-3, gae_lambda=0.98, entropy_coefficient=0.0), 100_000,
        400_000, 100, 200, rewind=rewind,
    )  # fmt: skip
    yield Student(
        "PPO, Acrobot-v1", fastrl.make("Acrobot-v1"),
        lambda env, reset: ppo.make(
            env, ppo.Config(num_envs=16, num_steps=64, num_minibatches=8), reset=reset
        ),
        ppo.HParams(learning_rate=1e-3), 60_000, 200_000, 100, 500, rewind=rewind,
    )  # fmt: skip
    for name in ("sac", "td3"):
        module = getattr(fastrl, name, None)
        if module is not None:
            yield _continuous(name, module, rewind)


def _continuous(name: str, module: Any, rewind: Any) -> Student:
    """An off-policy learner on the continuous mountain car, grouped by how near the goal is."""
    env = fastrl.make("MountainCarContinuous-v0")
    config = module.Config()
    return Student(
        f"{name.upper()}, MountainCarContinuous-v0", env,
        lambda env, reset: module.make(env, config, reset=reset), module.HParams(), 10_000, 40_000,
        100, 999, status=lambda state, observation: observation[..., 0], rewind=rewind,
    )  # fmt: skip


def checkpoints(algorithm: Any, case: Student, budget: int, seeds: int) -> np.ndarray:
    """Mean returns `[seeds, POINTS]` in the unchanged task, after each part of a training."""
    iterations = max(1, budget // POINTS // algorithm.steps_per_iteration)
    task = case.env.default_params()

    def episode(key: Any, state: Any) -> Any:
        def body(carry: Any, key: Any) -> Any:
            env_state, observation, going = carry
            action, _ = algorithm.act(state, (), observation, None)
            env_state, step = case.env.step(key, env_state, action, task)
            reward = jnp.where(going, step.reward, 0.0)
            return (
                env_state,
                step.observation,
                going & ~(step.terminated | step.truncated),
            ), reward

        start = *case.env.reset(key, task), jnp.bool_(True)
        return jax.lax.scan(body, start, jax.random.split(key, case.longest))[1].sum()

    def part(state: Any, key: Any) -> Any:
        step = lambda state, _: (algorithm.step(state, case.hparams, task)[0], None)  # noqa: E731
        state = jax.lax.scan(step, state, None, iterations)[0]
        keys = jax.random.split(key, EPISODES)
        return state, jax.vmap(episode, (0, None))(keys, state).mean()

    def training(key: Any) -> Any:
        init_key, play_key = jax.random.split(key)
        state = algorithm.init(init_key, case.hparams, task)
        return jax.lax.scan(part, state, jax.random.split(play_key, POINTS))[1]

    keys = jax.random.split(fastrl.key(0), seeds)
    return np.asarray(jax.jit(lambda k: jax.lax.map(training, k))(keys))


STATES, ACTIONS, HORIZON = 8, 2, 8  # of all processes, so that one program serves them
SOLVER_STEPS = 40_000


def processes() -> list[MDP]:
    """Stochastic processes of various depth, in tables of one size."""
    from fastrl import effective_horizon as eh

    locks = [
        Lock(length=length, way_out=way_out, slip=0.1, horizon=HORIZON)
        for length in (2, 3, 4, 5) for way_out in (0.05, 0.2, 0.35)
    ]  # fmt: skip
    drawn = [RandomMDP(STATES, ACTIONS, HORIZON, seed=seed) for seed in range(4)]
    return [_padded(eh.of(env)) for env in (*locks, *drawn)]


def _padded(mdp: MDP) -> MDP:
    """With states that are never met, up to `STATES`."""
    more = STATES - len(mdp.start)
    transitions = np.zeros((STATES, ACTIONS, STATES))
    transitions[: len(mdp.start), :, : len(mdp.start)] = mdp.transitions
    transitions[len(mdp.start) :, :, 0] = 1.0
    rewards = np.pad(mdp.rewards, ((0, more), (0, 0)))
    return MDP(transitions, rewards, np.pad(mdp.start, (0, more)), mdp.horizon)


def solvers() -> Iterator[tuple[str, Any, Any]]:
    """PPO and DQN on processes of that size."""
    env = Tabular(STATES, ACTIONS, HORIZON)
    config = ppo.Config(num_envs=8, num_steps=HORIZON, num_epochs=4, num_minibatches=1,
                        hidden_sizes=(32,))  # fmt: skip
    hparams = ppo.HParams(learning_rate=3e-3, gamma=1.0, entropy_coefficient=0.01)
    yield "PPO", ppo.make(env, config), hparams
    dqn = getattr(fastrl, "dqn", None)
    if dqn is not None:
        replay = dqn.Config(
            num_envs=8, num_steps=1, num_rounds=HORIZON, batch_size=64, buffer_size=16_000,
            learning_starts=500, hidden_sizes=(32,),
        )  # fmt: skip
        yield "DQN", dqn.make(env, replay), dqn.HParams(gamma=1.0)._replace(learning_rate=1e-3)


def times_to_solve(
    algorithm: Any, hparams: Any, suite: list[MDP], analyses: list[Analysis], steps: int, seed: int
) -> np.ndarray:
    """Steps until the mean return covers nine tenths of the way from random to optimal play."""
    tables = [np.stack([getattr(m, n) for m in suite]) for n in ("transitions", "rewards")]
    task = Params(*(jnp.asarray(x, jnp.float32) for x in tables))
    keys = jax.random.split(jax.random.key(seed), len(suite))
    run = _members(algorithm, steps)
    metrics = jax.device_get(run(keys, hparams, task)[1])
    heights = np.asarray(metrics["episode_return"].total) / np.maximum(
        np.asarray(metrics["episode_return"].weight), 1
    )
    over = max(1, 512 // algorithm.steps_per_iteration)
    times = np.full(len(suite), float(steps))
    for i, (row, a) in enumerate(zip(heights, analyses, strict=True)):
        threshold = a.random_return + 0.9 * (a.optimal_return - a.random_return)
        smooth = np.convolve(row, np.ones(over) / over, "valid")
        above = np.flatnonzero(smooth >= threshold)
        if above.size:
            times[i] = (above[0] + over) * algorithm.steps_per_iteration
    return times


@functools.lru_cache
def _members(algorithm: Any, steps: int) -> Any:
    return jax.jit(fastrl.members(algorithm, steps))


def walks() -> dict[str, Any]:
    """Grids on which every walk can be tried."""
    return {
        "coverage 5x5": Coverage(5, 5, horizon=8, radius=0, start=12),
        "informative path 4x4": InformativePath(4, 4, horizon=7, start=5),
    }


@functools.cache
def best_walk(env: Any) -> float:
    """The best return of all walks, set by set: a set of cells counts once however it was met."""
    value, start, following = _values(env)
    layer = {(env.start, frozenset([env.start]))}
    for _ in range(env.horizon):
        layer = {(c, seen | {c}) for cell, seen in layer for c in following(cell)}
    return max(value(seen) for _, seen in layer) - value(frozenset([start]))


@functools.cache
def greedy_walk(env: Any) -> float:
    """The return of the walk that always goes where it gains most at once."""
    value, start, following = _values(env)
    cell, seen = start, frozenset([start])
    for _ in range(env.horizon):
        cell = max(following(cell), key=lambda c: value(seen | {c}))
        seen = seen | {cell}
    return value(seen) - value(frozenset([start]))


def _values(env: Any) -> tuple[Any, int, Any]:
    """F of a set, the first cell, and the cells that can follow one."""
    weights = np.asarray(env.default_params().weights, np.float64)
    places = env.places()

    @functools.cache
    def value(cells: frozenset[int]) -> float:
        at = sorted(cells)
        if isinstance(env, Coverage):
            return float(weights[env.reach()[at].any(0)].sum())
        squares = ((places[at][:, None] - places[at][None]) ** 2).sum(-1)
        alike = np.exp(-0.5 * squares / env.length_scale**2)
        covariance = np.outer(weights[at], weights[at]) * alike
        return 0.5 * float(np.linalg.slogdet(np.eye(len(at)) + covariance / env.noise)[1])

    def following(cell: int) -> set[int]:
        to = np.clip(places[cell] + MOVES, 0, [env.rows - 1, env.columns - 1])
        return set((to[:, 0] * env.columns + to[:, 1]).tolist())

    return value, env.start, following
