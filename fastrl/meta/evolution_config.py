"""The settings of `meta_evolution`."""

import dataclasses
import math
from typing import Any, Literal, NamedTuple

import jax

from fastrl import door
from fastrl.meta.evolution_shaping import SHAPINGS
from fastrl.types import Scalar


@dataclasses.dataclass(frozen=True)
class Config:
    """What shapes the program."""

    pairs: int = 32  # of members, per generation
    lifetimes: tuple[int, ...] = (32,)  # inner iterations; every length for as many pairs
    estimator: Literal["full", "truncated", "persistent", "reuse"] = "full"
    window: int = 0  # inner iterations of a generation, where the estimator is not full
    shaping: Literal["pairwise", "centred", "standard", "raw"] = "pairwise"
    strategy: Literal["openai", "snes", "xnes", "cma_es"] = "openai"  # the others need evosax
    shared: bool = False  # one task and start for all pairs, and not one for each
    measured: int = 0  # inner iterations at the end whose metrics count; 0: all
    chunk: int = 0  # members side by side; 0: one on a CPU, elsewhere all of a lifetime
    devices: int = 1  # over which chunks are spread

    def __post_init__(self) -> None:
        for name in ("pairs", "devices"):
            door.integer(name, getattr(self, name), 1)
        for name in ("window", "measured", "chunk"):
            door.integer(name, getattr(self, name), 0)
        door.flag("shared", self.shared)
        door.choice("estimator", self.estimator, ("full", "truncated", "persistent", "reuse"))
        door.choice("shaping", self.shaping, tuple(SHAPINGS))
        door.choice("strategy", self.strategy, ("openai", "snes", "xnes", "cma_es"))
        object.__setattr__(self, "lifetimes", tuple(self.lifetimes))
        self._check_lifetimes()

    def _check_lifetimes(self) -> None:
        for length in self.lifetimes:
            door.integer("lifetimes", length, 1)
            if self.windowed and (not self.window or length % self.window):
                raise ValueError(
                    f"window={self.window} does not divide the lifetime of {length} iterations, "
                    f"which estimator={self.estimator!r} needs"
                )
        if not self.lifetimes or self.pairs % len(self.lifetimes):
            raise ValueError(
                f"pairs={self.pairs} is not divisible by the {len(self.lifetimes)} lifetimes"
            )
        if self.window and not self.windowed:
            raise ValueError(f"window={self.window}: estimator='full' trains whole lifetimes")
        if self.estimator in ("persistent", "reuse") and self.strategy != "openai":
            raise ValueError(f"estimator={self.estimator!r} needs strategy='openai'")
        self.check_chunks(self.chunk or 1)

    def check_chunks(self, side_by_side: int) -> None:
        """Raises ValueError unless chunks of so many members come out even.

        Apart from the rest because a `chunk` of 0 asks JAX for its backend, which starts it.
        """
        if self.members_of_one_lifetime % side_by_side:
            raise ValueError(
                f"chunk={self.chunk} does not divide the {self.members_of_one_lifetime} members "
                "of one lifetime"
            )
        if (chunks := 2 * self.pairs // side_by_side) % self.devices:
            raise ValueError(
                f"devices={self.devices} does not divide the {chunks} chunks of a generation"
            )

    @property
    def windowed(self) -> bool:
        return self.estimator != "full"

    @property
    def members_of_one_lifetime(self) -> int:
        return 2 * self.pairs // len(self.lifetimes)

    @property
    def side_by_side(self) -> int:
        """`chunk`, or what it stands for if it is 0."""
        automatic = 1 if jax.default_backend() == "cpu" else self.members_of_one_lifetime
        return self.chunk or automatic

    @property
    def iterations(self) -> tuple[int, ...]:
        """How many iterations every pair's members train in a generation: `[P]`."""
        return (self.window,) * self.pairs if self.windowed else self.lengths

    @property
    def lengths(self) -> tuple[int, ...]:
        """The lifetime of every pair: `[P]`."""
        return tuple(n for n in self.lifetimes for _ in range(self.pairs // len(self.lifetimes)))


class HParams(NamedTuple):
    """Traced numbers: another value compiles nothing."""

    learning_rate: Scalar = 1e-2
    learning_rate_decay: Scalar = 1.0  # a factor per generation
    learning_rate_limit: Scalar = 1e-5  # below which it does not fall
    sigma: Scalar = 0.1  # of the perturbations
    sigma_decay: Scalar = 1.0
    sigma_limit: Scalar = 1e-3
    weight_decay: Scalar = 0.0
    inner: Any = ()  # hparams of the inner algorithm


_POSITIVE, _DECAY = door.Range(0.0, open=True), door.Range(0.0, 1.0, open=True)
RANGES = {
    "learning_rate": door.Range(0.0), "learning_rate_limit": door.Range(0.0),
    "learning_rate_decay": _DECAY, "sigma": _POSITIVE, "sigma_limit": door.Range(0.0),
    "sigma_decay": _DECAY, "weight_decay": door.Range(0.0),
}  # fmt: skip


def log_uniform(least: int, most: int, lengths: int, multiple: int = 1) -> tuple[int, ...]:
    """`lengths` lifetimes that stand for a log-uniform one: its quantiles, as `multiple`s."""
    door.integer("least", least, 1)
    door.integer("most", most, least)
    shares = [(i + 0.5) / door.integer("lengths", lengths, 1) for i in range(lengths)]
    exact = [least * (most / least) ** share for share in shares]
    return tuple(multiple * max(1, math.floor(n / multiple + 0.5)) for n in exact)
