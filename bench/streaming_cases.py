"""What `streaming.py` trains: streams, batch-1 baselines, and streams without a stabiliser."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import fastrl
from fastrl import algorithms, avg, dqn, sac, stream_ac, stream_q

RATES = 1e-4, 1e-3, 1e-2  # each baseline has the best of these
TRIED = 3  # seeds, with which that is found out
SIZES: Any = {"hidden_sizes": (32, 32)}
CONVOLUTION: Any = {"torso": "conv", "hidden_sizes": (128,)}
ONE: Any = {  # a learner from a buffer that sees the last transition only
    "num_envs": 1, "num_steps": 1, "num_updates": 1, "batch_size": 1, "buffer_size": 1,
    "learning_starts": 0,
}  # fmt: skip
HOPPER = "brax/hopper"
TIME_LIMITS = {"CartPole-v1": 500.0, "Acrobot-v1": 500.0, "Pendulum-v1": 200.0, HOPPER: 1000.0}
GAMES = ("Breakout", "Asterix", "Freeway", "SpaceInvaders", "Seaquest")  # of MinAtar, "-v1"
BREAKOUT = "MinAtar/Breakout-v1"
# What a run that has diverged counts as: the least return of an episode there, 0 where it is not
# named.
LEAST = {"Acrobot-v1": -500.0, "Pendulum-v1": -3254.0}
FRAMES = 5_000_000  # of a MinAtar game
STEPS = {"CartPole-v1": 200_000, "Acrobot-v1": 200_000, "Pendulum-v1": 200_000, HOPPER: 200_000}
ABLATED = "CartPole-v1", "Acrobot-v1", BREAKOUT
NAMES = (*STEPS, *(f"MinAtar/{game}-v1" for game in GAMES))
EXPLORATION = 0.05  # share of the steps until epsilon is at its end, as the authors have it
BLOCK = 64  # members side by side, of learners that do not say
POINTS = 40  # of a curve
# The best of 1e-5, 1e-4 and 1e-3 on Breakout (80,000 transitions, 3 seeds), for all five games.
OF_BREAKOUT = {"one-step Q, Adam": 1e-3, "DQN, batch 1": 1e-3}


@dataclasses.dataclass(frozen=True)
class Case:
    """A learner on an environment; with `rates`, each is tried, and the best one counts."""

    part: str
    env: str
    label: str
    module: str
    config: Any
    hparams: Any
    steps: int
    rates: tuple[float, ...] = ()
    fields: tuple[str, ...] = ("learning_rate",)  # of hparams, that a rate is put into

    def algorithm(self) -> Any:
        return algorithms.module(self.module).make(fastrl.make(self.env), self.config)

    def block(self, algorithm: Any) -> int | None:
        """How many seeds go side by side; None for as many as the learner says."""
        says = algorithm.side_by_side > 1 or "MinAtar" in self.env  # a large network: one by one
        return None if says else BLOCK


def barrier(env: str, steps: int | None) -> Iterator[Case]:
    """Streams, and what has no trace, no replay and no stabiliser."""
    steps = steps or STEPS[env]
    yield from (_of_actions if env in ("Pendulum-v1", HOPPER) else _of_values)(env, steps)


def _of_values(env: str, steps: int) -> Iterator[Case]:
    per = steps // POINTS
    explores: Any = {"exploration_steps": max(round(EXPLORATION * steps), 1)}
    limit: Any = {"time_limit": TIME_LIMITS[env]} | explores
    for name in ("2024", "2026", "intentional"):
        config = stream_q.Config.version(name, num_steps=per, **SIZES)
        label = "Stream Q" if name == "2024" else f"Stream Q, {name}"
        yield Case("barrier", env, label, "stream_q", config, stream_q.HParams(**limit), steps)
    classic = stream_q.HParams(trace_decay=0.0, final_epsilon=0.01, **explores)
    for optimizer in ("adam", "sgd"):
        config = stream_q.Config.version("classic", optimizer=optimizer, num_steps=per, **SIZES)
        label = f"one-step Q, {optimizer.upper() if optimizer == 'sgd' else 'Adam'}"
        yield Case("barrier", env, label, "stream_q", config, classic, steps, RATES)
    one = dqn.Config(num_rounds=per, **ONE, **SIZES)
    hparams = dqn.HParams(final_epsilon=0.01, **explores)
    yield Case("barrier", env, "DQN, batch 1", "dqn", one, hparams, steps, RATES)


def _of_actions(env: str, steps: int) -> Iterator[Case]:
    per = steps // POINTS
    sizes: Any = {"hidden_sizes": (128, 128)} if env == HOPPER else SIZES
    limit = stream_ac.HParams(time_limit=TIME_LIMITS[env])
    for name in ("2024", "2026", "intentional"):
        config = stream_ac.Config.version(name, num_steps=per, **sizes)
        label = "Stream AC" if name == "2024" else f"Stream AC, {name}"
        yield Case("barrier", env, label, "stream_ac", config, limit, steps)
    config = avg.Config(num_steps=per, **sizes)
    numbers = avg.HParams()
    both = "learning_rate", "critic_learning_rate"
    yield Case("barrier", env, "AVG", "avg", config, numbers, steps, RATES, both)
    classic = stream_ac.Config.version("classic", num_steps=per, **sizes)
    hparams = limit._replace(trace_decay=0.0)
    yield Case("barrier", env, "one-step AC, Adam", "stream_ac", classic, hparams, steps, RATES)
    one = sac.Config(num_rounds=per, **ONE, **sizes)
    three = (*both, "temperature_learning_rate")
    yield Case("barrier", env, "SAC, batch 1", "sac", one, sac.HParams(), steps, RATES, three)


def ablations(env: str, steps: int | None) -> Iterator[Case]:
    """Stream Q in full, and without one of its parts."""
    if env == BREAKOUT:
        steps, rates = steps or FRAMES, RATES[:2]
        full, hparams = _of_images(steps)
    else:
        steps, rates = steps or STEPS[env], RATES
        full = stream_q.Config(num_steps=steps // POINTS, **SIZES)
        explores = max(round(EXPLORATION * steps), 1)
        hparams = stream_q.HParams(time_limit=TIME_LIMITS[env], exploration_steps=explores)

    def case(label: str, rates: tuple[float, ...] = (), numbers: Any = hparams, **changes: Any):
        config = dataclasses.replace(full, **changes)
        return Case("ablations", env, label, "stream_q", config, numbers, steps, rates)

    yield case("full")
    yield case("no bound: SGD", rates, optimizer="sgd")
    adams = (OF_BREAKOUT["one-step Q, Adam"],) if env == BREAKOUT else rates
    yield case("no bound: Adam", adams, optimizer="adam")
    yield case("no LayerNorm", layer_norm=False)
    yield case("dense weights", initializer="dense")
    yield case("no normalisation", normalize_observation=False, scale_reward=False)
    yield case("raw observations", normalize_observation=False)
    yield case("raw rewards", scale_reward=False)
    yield case("lambda = 0", numbers=hparams._replace(trace_decay=0.0))
    yield case("sparse by size (ERK)", initializer="erk")


def minatar(steps: int | None) -> Iterator[Case]:
    """Stream Q on five games, with the authors' network and share of exploration; and batch 1.

    The rates of the others are chosen on Breakout alone.
    """
    steps = steps or FRAMES
    config, hparams = _of_images(steps)
    classic = hparams._replace(trace_decay=0.0)
    plain = stream_q.Config.version("classic", num_steps=steps // POINTS, **CONVOLUTION)
    one = dqn.Config(num_rounds=steps // POINTS, **ONE, **CONVOLUTION)
    numbers = dqn.HParams(final_epsilon=0.01, exploration_steps=hparams.exploration_steps)
    for game in GAMES:
        env = f"MinAtar/{game}-v1"
        yield Case("minatar", env, "Stream Q", "stream_q", config, hparams, steps)
        others: Any = (
            ("one-step Q, Adam", "stream_q", plain, classic),
            ("DQN, batch 1", "dqn", one, numbers),
        )
        for label, module, shape, h in others:
            yield Case("minatar", env, label, module, shape, h, steps, (OF_BREAKOUT[label],))


def _of_images(steps: int) -> tuple[stream_q.Config, stream_q.HParams]:
    """Stream Q as its authors have it on MinAtar."""
    config = stream_q.Config(num_steps=steps // POINTS, time_feature=False, **CONVOLUTION)
    return config, stream_q.HParams(exploration_steps=max(steps // 5, 1))
