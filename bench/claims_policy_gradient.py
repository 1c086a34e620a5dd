"""Trajectories to a given gap: REINFORCE, N-PG-IGT, HARPG and N-HARPG where the gap is exact.

A linear-quadratic regulator under a Gaussian policy of fixed deviation is what the theory speaks
of: its Fisher information never degenerates, and the noise of the gradient never vanishes.  A
softmax policy on small processes is outside of it: the noise goes as the policy becomes certain.
Both returns are closed forms.  Every method has the schedule of the paper (of a public
implementation, where theory leaves it open), and its first rate from a grid, chosen by other seeds
than those that count, for each gap.
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
PLAIN = {
    "regulator": (3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1), "softmax": (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
}  # fmt: skip
NORMALISED = {
    "regulator": (0.01, 0.03, 0.1, 0.3, 1.0, 3.0), "softmax": (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
}  # fmt: skip
SHARES = (0.1, 0.03, 0.01)  # of the first gap
WINDOW = 20  # iterations that a gap is averaged over
TUNING_SEEDS = 5


def rows(seeds: int, steps: int | None, row: Callable[..., Any]) -> list[Any]:
    """Comparisons of neighbours in the order that the theory has."""
    budget = steps or 5_000  # trajectories
    order = (("n_pg_igt", "reinforce"), ("harpg", "n_pg_igt"), ("n_harpg", "n_pg_igt"),
             ("harpg", "reinforce"), ("n_harpg", "reinforce"))  # fmt: skip
    made = []
    for task, env in TASKS.items():
        found = {name: trajectories(env, name, budget, seeds) for name in METHODS}
        for share, (ours, theirs) in itertools.product(SHARES, order):
            (few, rate), (many, other) = found[ours][share], found[theirs][share]
            note = f"to a gap of {share:g} of the first; first rates {rate} and {other}"
            made.append(row(f"{METHODS[ours]}, {task}, gap {share:g}", METHODS[theirs], few, many,
                            "trajectories", True, note))  # fmt: skip
    return made


def trajectories(
    env: Any, method: Any, budget: int, seeds: int
) -> dict[float, tuple[np.ndarray, float]]:
    """By the share: trajectories to that gap `[seeds]`, at most the budget; the rate chosen."""
    config = policy_gradient.Config(
        method=method, num_trajectories=1, horizon=env.horizon, hidden_sizes=(),
        baseline=True, std=getattr(env, "std", 0.0),
    )  # fmt: skip
    algorithm = policy_gradient.make(env, config)
    per_iteration = algorithm.steps_per_iteration // env.horizon
    task, best, iterations = env.default_params(), best_return(env), budget // per_iteration

    def training(key: Any, hparams: Any) -> Any:
        """Trajectories to each share of the first gap."""

        def body(state: Any, _: Any) -> Any:
            state, _ = algorithm.step(state, hparams, task)
            return state, best - exact_return(env, state.params)

        state = algorithm.init(key, hparams, task)
        first = best - exact_return(env, state.params)
        gaps = jax.lax.scan(body, state, None, iterations)[1]
        mean = jnp.convolve(gaps, jnp.ones(WINDOW) / WINDOW, "valid")
        below = mean <= jnp.array(SHARES)[:, None] * first
        reached = jnp.where(below.any(1), below.argmax(1) + WINDOW, iterations)
        return reached * per_iteration

    program = jax.jit(jax.vmap(training))
    rates = (NORMALISED if method.startswith("n_") else PLAIN)[kind(env)]

    def played(key: int, count: int, rate: np.ndarray) -> np.ndarray:
        """Every rate on as many seeds, `[rates, seeds, shares]`."""
        keys = jax.random.split(fastrl.key(key), count)
        hparams = policy_gradient.scheduled(method, jnp.float32(0.0), gamma=1.0)
        hparams = jax.tree.map(lambda x: jnp.full(len(rate) * count, x, jnp.float32), hparams)
        hparams = hparams._replace(learning_rate=jnp.repeat(jnp.float32(rate), count))
        times = program(jnp.concatenate([keys] * len(rate)), hparams)
        return np.asarray(times, float).reshape(len(rate), count, -1)

    chosen = np.array(rates)[played(1000, TUNING_SEEDS, np.array(rates)).mean(1).argmin(0)]
    counted = played(0, seeds, chosen)
    return {s: (counted[i, :, i], float(chosen[i])) for i, s in enumerate(SHARES)}


def kind(env: Any) -> str:
    """Which rates a task has."""
    return "regulator" if isinstance(env, Regulator) else "softmax"


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
