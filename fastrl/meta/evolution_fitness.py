"""What an inner lifetime was worth.

A `Fitness` is `(key, state, metrics, task) -> number`: of the inner state at the end, of the
metrics of the last `Config.measured` iterations, and of the task.  The members of a pair get
the same key.  What it gives need not be finite: such a lifetime counts as diverged.
"""

from collections.abc import Callable
from typing import Any

from fastrl import door
from fastrl.episodes import Player, play
from fastrl.evaluate import MAX_STEPS
from fastrl.metrics import Metrics
from fastrl.types import Algorithm, Array, Key

Fitness = Callable[[Key, Any, Metrics, Any], Array]
FitnessFactory = Callable[[Algorithm], Fitness]  # inner -> Fitness


def evaluation(inner: Algorithm, episodes: int = 16, deterministic: bool = False) -> Fitness:
    """The mean return of complete episodes under the policy at the end, its actions sampled.

    For environments whose episodes end.  Raises ValueError for an inner learner without one.
    """
    door.integer("episodes", episodes, 1)
    if inner.env is None:
        raise ValueError("fitness: the inner algorithm has no environment: pass fitness=")
    player = Player(inner.act, inner.initial_carry, inner.env, deterministic)
    playing = play(player, episodes)

    def fitness(key: Key, state: Any, metrics: Metrics, task: Any) -> Array:
        return playing(key, state, task, MAX_STEPS).returns.mean()

    return fitness


def measured(inner: Algorithm, name: str = "episode_return") -> Fitness:
    """The mean of a metric over the measured iterations: of training, for nothing extra.

    An episode counts when it ends, so measure enough iterations: without a single end there is
    no number, and the lifetime counts as diverged.
    """

    def fitness(key: Key, state: Any, metrics: Metrics, task: Any) -> Array:
        return metrics[name].total / metrics[name].weight

    return fitness
