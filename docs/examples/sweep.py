"""Seeds by learning rates in one compiled program, and a picture of what they do.

python sweep.py
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import fastrl
from fastrl import ppo

SEEDS, RATES, STEPS = 5, [3e-4, 1e-3, 3e-3], 200_000

env = fastrl.make("CartPole-v1")
algorithm = ppo.make(env, ppo.Config(num_envs=32, num_steps=32))
grid = list(itertools.product(RATES, range(SEEDS)))  # one member each
keys = jax.vmap(fastrl.key)(jnp.array([seed for _, seed in grid]))
hparams = ppo.HParams(learning_rate=jnp.array([rate for rate, _ in grid]), gamma=0.98)

program = jax.jit(fastrl.members(algorithm, STEPS))
states, metrics = program(keys, hparams, env.default_params())

total, weight = metrics["episode_return"]  # [members, iterations] each
returns = np.asarray(total / np.maximum(weight, 1)).reshape(len(RATES), SEEDS, -1)
steps = np.arange(1, returns.shape[-1] + 1) * algorithm.steps_per_iteration

figure = Figure(figsize=(7, 4), layout="constrained")
FigureCanvasAgg(figure)
axes = figure.add_subplot()
for rate, curves in zip(RATES, returns, strict=True):
    middle = curves.mean(0)
    error = 1.96 * curves.std(0, ddof=1) / np.sqrt(SEEDS)
    (line,) = axes.plot(steps, middle, label=f"{rate:g}")
    axes.fill_between(steps, middle - error, middle + error, color=line.get_color(), alpha=0.2)
    print(f"learning rate {rate:g}: {curves[:, -5:].mean():6.1f} over the last iterations")
axes.set(xlabel="environment steps", ylabel="return", title=f"PPO on CartPole-v1, {SEEDS} seeds")
axes.legend(title="learning rate")
figure.savefig("sweep.png", dpi=150)
