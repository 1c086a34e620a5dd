"""Trajectories to a given gap: REINFORCE, N-PG-IGT, HARPG and N-HARPG on small processes.

The gap is exact: the return of a softmax policy of the state and the time is a closed form.  Every
method has its rate and its power of momentum from the same grid, chosen by other seeds than
those that count.
"""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import fastrl
from fastrl import effective_horizon, policy_gradient
from fastrl.envs.tabular import Lock, RandomMDP

TASKS = {
    "lock": Lock(length=3, way_out=0.1, slip=0.1, horizon=4),
    "random process": RandomMDP(states=5, actions=3, horizon=4, sparsity=0.5, seed=1),
}
METHODS = {"reinforce": "REINFORCE", "n_pg_igt": "N-PG-IGT", "harpg": "HARPG", "n_harpg": "N-HARPG"}
RATES = {
    "reinforce": (1.0, 3.0, 10.0, 30.0), "harpg": (1.0, 3.0, 10.0, 30.0),
    "n_pg_igt": (0.03, 0.1, 0.3, 1.0), "n_harpg": (0.03, 0.1, 0.3, 1.0),
}  # fmt: skip
POWERS = {"reinforce": (0.8,), "n_pg_igt": (0.5, 0.8), "harpg": (0.5, 0.8), "n_harpg": (0.5, 0.8)}
SHARE = 0.1  # of the first gap
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
        method=method, num_trajectories=1, horizon=env.horizon, hidden_sizes=()
    )
    algorithm = policy_gradient.make(env, config)
    per_iteration = algorithm.steps_per_iteration // env.horizon
    task, best = env.default_params(), float(effective_horizon.effective_horizon(
        effective_horizon.of(env)).optimal_return)  # fmt: skip

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

    grid = list(itertools.product(RATES[method], POWERS[method]))
    make = lambda rate, power: policy_gradient.HParams(  # noqa: E731
        learning_rate=jnp.float32(rate), gamma=jnp.float32(1.0), momentum_power=jnp.float32(power),
        step_power=jnp.float32(0.0), baseline_rate=jnp.float32(0.1),
    )  # fmt: skip
    program = jax.jit(jax.vmap(training))
    keys = jax.random.split(fastrl.key(1000), TUNING_SEEDS)
    tried = [make(*g) for g in grid for _ in range(TUNING_SEEDS)]
    stack = lambda trees: jax.tree.map(lambda *x: jnp.stack(x), *trees)  # noqa: E731
    times = np.asarray(program(jnp.concatenate([keys] * len(grid)), stack(tried)))
    chosen = grid[int(times.reshape(len(grid), -1).mean(1).argmin())]
    keys = jax.random.split(fastrl.key(0), seeds)
    return np.asarray(program(keys, stack([make(*chosen)] * seeds)), float), chosen


def exact_return(env: Any, params: Any) -> Any:
    """The return of the softmax policy, in closed form."""
    transitions, rewards = (jnp.asarray(x, jnp.float32) for x in env.tables())
    head = params["params"]["actor_head"]
    where, total = jnp.eye(env.states)[0], jnp.float32(0.0)
    for t in range(env.horizon):
        logits = head["kernel"][: env.states] + head["kernel"][env.states + t] + head["bias"]
        both = where[:, None] * jax.nn.softmax(logits)
        total = total + (both * rewards).sum()
        where = jnp.einsum("sa,sat->t", both, transitions)
    return total
