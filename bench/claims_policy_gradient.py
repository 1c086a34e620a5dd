"""Trajectories to a given gap: REINFORCE, N-PG-IGT, HARPG and N-HARPG where the gap is exact.

A linear-quadratic regulator under a Gaussian policy of fixed deviation is what the theory speaks
of: its Fisher information never degenerates, and the noise of the gradient never vanishes.  A
softmax policy on small processes is outside of it: the noise goes as the policy becomes certain.
Both returns are closed forms.  Every method has its rate and powers from a grid, chosen by other
seeds than those that count.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import fastrl
from fastrl import effective_horizon, policy_gradient
from fastrl.envs.tabular import Lock
from fastrl.spaces import Box
from fastrl.types import Array, Key, Step


class Regulated(NamedTuple):
    x: Array  # float32 [2]
    time: Array  # int32


class NoParams(NamedTuple):
    """A task without numbers."""


@dataclasses.dataclass(frozen=True)
class Regulator:
    """x' = A x + B u + w, reward -(|x|^2 + |u|^2 / 10), from a normal start; `horizon` steps."""

    horizon: int = 10
    noise: float = 0.1  # deviation of w
    std: float = 0.3  # of the policy

    version: ClassVar[int] = 1
    dynamics: ClassVar[tuple[Any, Any]] = (((0.95, 0.2), (0.0, 0.95)), ((0.3, 0.0), (0.1, 0.3)))

    def default_params(self) -> NoParams:
        return NoParams()

    def reset(self, key: Key, params: NoParams) -> tuple[Regulated, Array]:
        state = Regulated(jax.random.normal(key, (2,)), jnp.int32(0))
        return state, state.x

    def step(
        self, key: Key, state: Regulated, action: Array, params: NoParams
    ) -> tuple[Regulated, Step]:
        a, b = (jnp.array(m, jnp.float32) for m in self.dynamics)
        reward = -(state.x @ state.x + 0.1 * action @ action)
        x = a @ state.x + b @ action + self.noise * jax.random.normal(key, (2,))
        state = Regulated(x, state.time + 1)
        over = state.time >= self.horizon
        return state, Step(x, reward, over, jnp.zeros_like(over))

    def observation_space(self, params: NoParams) -> Box:
        return Box(-np.inf, np.inf, (2,))

    def action_space(self, params: NoParams) -> Box:
        return Box(-np.inf, np.inf, (2,))


TASKS = {
    "regulator": Regulator(),
    "lock, softmax": Lock(length=3, way_out=0.1, slip=0.1, horizon=4),
}
METHODS = {"reinforce": "REINFORCE", "n_pg_igt": "N-PG-IGT", "harpg": "HARPG", "n_harpg": "N-HARPG"}
PLAIN = {"regulator": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2), "softmax": (0.1, 0.3, 1.0, 3.0, 10.0)}
NORMALISED = {"regulator": (0.003, 0.01, 0.03, 0.1, 0.3), "softmax": (0.01, 0.03, 0.1, 0.3, 1.0)}
MOMENTUM_POWERS, STEP_POWERS = (0.5, 0.8, 1.0), (0.0, 0.5)
SHARE = 0.05  # of the first gap
TUNING_SEEDS = 3


def rows(seeds: int, steps: int | None, row: Callable[..., Any]) -> list[Any]:
    """Comparisons of neighbours in the order that the theory has."""
    budget = steps or 2_000  # trajectories
    made = []
    for task, env in TASKS.items():
        found = {name: trajectories(env, name, budget, seeds) for name in METHODS}
        order = (("n_pg_igt", "reinforce"), ("harpg", "n_pg_igt"), ("n_harpg", "n_pg_igt"),
                 ("harpg", "reinforce"), ("n_harpg", "reinforce"))  # fmt: skip
        for ours, theirs in order:
            note = (f"to a gap of {SHARE:g} of the first; rates {found[ours][1]} and "
                    f"{found[theirs][1]}")  # fmt: skip
            made.append(row(f"{METHODS[ours]}, {task}", METHODS[theirs], found[ours][0],
                            found[theirs][0], "trajectories", True, note))  # fmt: skip
    return made


def trajectories(env: Any, method: Any, budget: int, seeds: int) -> tuple[np.ndarray, Any]:
    """Trajectories to the gap `[seeds]`, at most the budget, and the setting that was chosen."""
    config = policy_gradient.Config(
        method=method, num_trajectories=1, horizon=env.horizon, hidden_sizes=(),
        baseline=True, std=getattr(env, "std", 0.0),
    )  # fmt: skip
    algorithm = policy_gradient.make(env, config)
    per_iteration = algorithm.steps_per_iteration // env.horizon
    task, best = env.default_params(), best_return(env)

    def training(key: Any, hparams: Any) -> Any:
        def body(state: Any, _: Any) -> Any:
            state, _ = algorithm.step(state, hparams, task)
            return state, best - exact_return(env, state.params)

        state = algorithm.init(key, hparams, task)
        first = best - exact_return(env, state.params)
        gaps = jax.lax.scan(body, state, None, budget // per_iteration)[1]
        below = jnp.convolve(gaps, jnp.ones(20) / 20, "valid") <= SHARE * first
        reached = jnp.where(below.any(), below.argmax() + 20, budget // per_iteration)
        return reached * per_iteration

    grid = settings(env, method)
    make = lambda rate, power, step: policy_gradient.HParams(  # noqa: E731
        learning_rate=jnp.float32(rate), gamma=jnp.float32(1.0), momentum_power=jnp.float32(power),
        step_power=jnp.float32(step), baseline_rate=jnp.float32(0.1),
    )  # fmt: skip
    program = jax.jit(jax.vmap(training))
    keys = jax.random.split(fastrl.key(1000), TUNING_SEEDS)
    tried = [make(*g) for g in grid for _ in range(TUNING_SEEDS)]
    stack = lambda trees: jax.tree.map(lambda *x: jnp.stack(x), *trees)  # noqa: E731
    times = np.asarray(program(jnp.concatenate([keys] * len(grid)), stack(tried)))
    chosen = grid[int(times.reshape(len(grid), -1).mean(1).argmin())]
    keys = jax.random.split(fastrl.key(0), seeds)
    return np.asarray(program(keys, stack([make(*chosen)] * seeds)), float), chosen


def settings(env: Any, method: str) -> list[tuple[float, float, float]]:
    """Rate, power of momentum and power of the step that a method may have."""
    kind = "regulator" if isinstance(env, Regulator) else "softmax"
    rates = (NORMALISED if method.startswith("n_") else PLAIN)[kind]
    powers = (1.0,) if method == "reinforce" else MOMENTUM_POWERS
    return list(itertools.product(rates, powers, STEP_POWERS))


def best_return(env: Any) -> float:
    """The best return: by dynamic programming, or of all linear policies by gradient ascent."""
    if not isinstance(env, Regulator):
        return effective_horizon.effective_horizon(effective_horizon.of(env)).optimal_return
    zero = {"params": {"actor_head": {"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2)}}}

    def ascend(params: Any, _: Any) -> Any:
        gradient = jax.grad(functools.partial(exact_return, env))(params)
        return jax.tree.map(lambda x, g: x + 5e-3 * g, params, gradient), None

    best = jax.jit(lambda x: jax.lax.scan(ascend, x, None, 4000)[0])(zero)
    return float(exact_return(env, best))


def exact_return(env: Any, params: Any) -> Any:
    """The return of a linear policy, in closed form."""
    head = params["params"]["actor_head"]
    if isinstance(env, Regulator):
        return _regulated(env, head["kernel"].T, head["bias"])
    transitions, rewards = (jnp.asarray(x, jnp.float32) for x in env.tables())
    where, total = jnp.eye(env.states)[0], jnp.float32(0.0)
    for t in range(env.horizon):
        logits = head["kernel"][: env.states] + head["kernel"][env.states + t] + head["bias"]
        both = where[:, None] * jax.nn.softmax(logits)
        total = total + (both * rewards).sum()
        where = jnp.einsum("sa,sat->t", both, transitions)
    return total


def _regulated(env: Regulator, gain: Array, bias: Array) -> Array:
    """Minus the expected cost of u = gain x + bias + std e, by mean and covariance of x."""
    a, b = (jnp.array(m, jnp.float32) for m in env.dynamics)
    mean, covariance, total = jnp.zeros(2), jnp.eye(2), jnp.float32(0.0)
    closed = a + b @ gain
    wind = env.noise**2 * jnp.eye(2) + env.std**2 * b @ b.T
    for _ in range(env.horizon):
        u = gain @ mean + bias
        spread = jnp.trace(gain @ covariance @ gain.T) + 2 * env.std**2
        total = total - (mean @ mean + jnp.trace(covariance) + 0.1 * (u @ u + spread))
        mean, covariance = closed @ mean + b @ bias, closed @ covariance @ closed.T + wind
    return total
