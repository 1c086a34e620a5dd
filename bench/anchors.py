"""Published returns to stand beside our own, and bounds that a correct learner must pass.

Numbers as their sources print them (read November 2026).  They are not all of one kind: CleanRL
reports the last 100 training episodes, mean over 3 seeds; SLM-Lab the moving average of training
returns over 4 sessions; the SB3 zoo one tuned agent, deterministic, where `spread` is between
episodes; gymnax-blines one run, 164 test episodes.  A sampled policy scores below its own mode.
"""

from collections.abc import Sequence
from typing import NamedTuple


class Anchor(NamedTuple):
    """A published return. `runs` is the number of seeds behind it: 1 is a single agent."""

    algorithm: str
    env: str
    steps: float
    value: float
    spread: float | None
    source: str
    runs: int


class Bound(NamedTuple):
    """What the 95 % interval of the mean of 10 seeds has to lie above."""

    algorithm: str
    env: str
    value: float


CLEANRL, CLEANRL_JAX, ZOO = "CleanRL", "CleanRL (JAX)", "SB3 zoo"
SLM, BLINES = "SLM-Lab", "gymnax-blines"


def _cleanrl(env: str, steps: float, **results: tuple[float, float]) -> list[Anchor]:
    """Results over 3 seeds; names that end in `_jax` are those of the JAX versions."""
    return [
        Anchor(name.removesuffix("_jax"), env, steps, mean, spread,
               CLEANRL_JAX if name.endswith("_jax") else CLEANRL, 3)
        for name, (mean, spread) in results.items()
    ]  # fmt: skip


def _zoo(env: str, **results: tuple[float, float, float]) -> list[Anchor]:
    return [
        Anchor(name, env, s, mean, spread, ZOO, 1) for name, (s, mean, spread) in results.items()
    ]


def _slm(env: str, steps: float, **results: float) -> list[Anchor]:
    return [Anchor(name, env, steps, mean, None, SLM, 4) for name, mean in results.items()]


def _blines(env: str, steps: float, value: float) -> list[Anchor]:
    return [Anchor("ppo", env, steps, value, None, BLINES, 1)]


CARTPOLE, ACROBOT, PENDULUM = "CartPole-v1", "Acrobot-v1", "Pendulum-v1"
CAR, CONTINUOUS_CAR = "MountainCar-v0", "MountainCarContinuous-v0"

ANCHORS: tuple[Anchor, ...] = (
    *_cleanrl(CARTPOLE, 5e5, ppo=(490.0, 6.1), dqn_jax=(498.4, 2.3), dqn=(488.7, 16.1),
              c51_jax=(491.1, 9.7), c51=(481.2, 20.5), pqn=(495.1, 6.9)),
    *_zoo(CARTPOLE, ppo=(1e5, 500.0, 0.0), a2c=(5e5, 500.0, 0.0), dqn=(5e4, 500.0, 0.0),
          qr_dqn=(5e4, 500.0, 0.0)),
    *_blines(CARTPOLE, 1.44e5, 500.0),
    *_slm(CARTPOLE, 2e5, ppo=498.9, a2c=496.7, reinforce=483.3, sac_discrete=406.1, dqn=239.9),
    *_cleanrl(ACROBOT, 5e5, ppo=(-86.4, 1.3), dqn_jax=(-88.9, 1.6), c51_jax=(-86.7, 2.2),
              pqn=(-95.6, 5.7)),
    *_zoo(ACROBOT, ppo=(1e6, -73.5, 18.2), a2c=(5e5, -83.4, 17.2), dqn=(1e5, -76.6, 11.8),
          qr_dqn=(1e5, -69.1, 10.0)),
    *_blines(ACROBOT, 4.96e5, -78.5),
    *_slm(ACROBOT, 3e5, ppo=-81.3, a2c=-84.0, sac_discrete=-92.6, dqn=-94.2),
    *_cleanrl(CAR, 5e5, dqn_jax=(-188.9, 11.8), c51_jax=(-174.3, 36.4)),
    *_zoo(CAR, ppo=(1e6, -110.4, 19.5), a2c=(1e6, -111.3, 24.1), dqn=(1.2e5, -100.8, 9.9),
          qr_dqn=(1.2e5, -106.0, 15.5)),
    *_blines(CAR, 2.4e5, -118.3),
    *_zoo(CONTINUOUS_CAR, sac=(5e4, 94.7, 1.1), td3=(3e5, 93.5, 0.1), ppo=(2e4, 88.3, 2.6)),
    *_zoo(PENDULUM, sac=(2e4, -157.0, 88.7), td3=(2e4, -151.9, 90.2), ddpg=(2e4, -152.1, 94.3),
          ppo=(1e5, -172.2, 104.2), a2c=(1e6, -163.0, 103.2)),
    *_slm(PENDULUM, 3e5, ppo=-174.9, sac=-151.0, crossq=-145.7),
    *_blines(PENDULUM, 9.92e5, -200.6),
    *_blines("MinAtar/Asterix-v1", 9.9e6, 15.0),
    *_blines("MinAtar/Breakout-v1", 9.9e6, 22.9),
    *_blines("MinAtar/Freeway-v1", 9.9e6, 58.8),
    *_blines("MinAtar/SpaceInvaders-v1", 9.9e6, 132.0),
)  # fmt: skip

BOUNDS: tuple[Bound, ...] = (
    Bound("ppo", CARTPOLE, 475.0), Bound("ppo", ACROBOT, -95.0), Bound("ppo", CAR, -130.0),
    Bound("ppo", PENDULUM, -220.0), Bound("dqn", CARTPOLE, 470.0), Bound("pqn", CARTPOLE, 475.0),
    Bound("pqn", ACROBOT, -110.0), Bound("sac", PENDULUM, -180.0), Bound("td3", PENDULUM, -180.0),
    Bound("a2c", CARTPOLE, 480.0), Bound("ppo", "MinAtar/Breakout-v1", 18.0),
    Bound("ppo", "MinAtar/Asterix-v1", 12.0), Bound("ppo", "MinAtar/Freeway-v1", 55.0),
    Bound("ppo", "MinAtar/SpaceInvaders-v1", 110.0),
)  # fmt: skip

# Names under which results are published that are settings of another learner here.
VARIANTS = ("c51", "qr_dqn", "rainbow", "sac_discrete", "droq", "redq")


def of(algorithm: str, env: str) -> list[Anchor]:
    """All published returns of the pair; of MinAtar, `-v0` has those of `-v1`."""
    if env.startswith("MinAtar/"):
        env = env[:-1] + "1"
    return [a for a in ANCHORS if (a.algorithm, a.env) == (algorithm, env)]


def nearest(algorithm: str, env: str, steps: int) -> Anchor | None:
    """The one to compare with: over several seeds rather than of one agent, then by its budget.

    That is the largest that is no larger than `steps`, or else the smallest; of several at that
    budget the highest return.
    """
    found = of(algorithm, env)
    if not found:
        return None
    several = [a for a in found if a.runs > 1] or found
    within = [a for a in several if a.steps <= 1.01 * steps]
    budget = max(a.steps for a in within) if within else min(a.steps for a in several)
    return max((a for a in several if a.steps == budget), key=lambda a: a.value)


def bound(algorithm: str, env: str) -> float | None:
    """The bound of the pair, None where there is none."""
    return next((b.value for b in BOUNDS if (b.algorithm, b.env) == (algorithm, env)), None)


def known_as(name: str, algorithm: str) -> str:
    """What the learner of the config called `name` is published as: "c51_cartpole" as "c51"."""
    known: Sequence[str] = sorted(VARIANTS, key=len, reverse=True)
    return next((v for v in known if name == v or name.startswith(v + "_")), algorithm)


def verdict(low: float, high: float, value: float) -> str:
    """Where an interval lies: "above" a value, "at" it (it is inside), or "below"."""
    return "above" if low > value else "at" if high >= value else "below"
