"""The settings of `meta_gradient`."""

import dataclasses
from typing import Any, Literal, NamedTuple

import jax

from fastrl import door
from fastrl.meta import lpg_optimizer
from fastrl.meta.meta_gradient_lives import KEPT
from fastrl.networks import Activation, NetworkConfig
from fastrl.types import Scalar


@dataclasses.dataclass(frozen=True)
class Config:
    """What shapes the program."""

    num_lives: int = 512
    chunk: int = 0  # lives side by side; 0: one on a CPU, elsewhere all of a device
    devices: int = 1  # over which the lives are spread
    window: int = 5  # K: inner updates that a gradient goes through
    lifetime: int = 0  # N: inner updates of an agent; 0: what the environment says
    stagger: bool = False  # the first lives end one after the other
    # For the gradient: the least memory, or without a second pass through the rollouts, or without
    # one through the rule's recurrence either
    keep: Literal["nothing", "rollouts", "activations"] = "activations"
    critic_hidden_sizes: tuple[int, ...] = ()  # none: a table, or a linear map
    critic_activation: Activation = "relu"
    critic_optimizer: lpg_optimizer.Name = "sgd"

    def __post_init__(self) -> None:
        for name in ("num_lives", "window", "devices"):
            door.integer(name, getattr(self, name), 1)
        for name in ("chunk", "lifetime"):
            door.integer(name, getattr(self, name), 0)
        door.flag("stagger", self.stagger)
        door.choice("keep", self.keep, tuple(KEPT))
        door.choice("critic_optimizer", self.critic_optimizer, lpg_optimizer.NAMES)
        shape = NetworkConfig(self.critic_hidden_sizes, self.critic_activation)
        object.__setattr__(self, "critic_hidden_sizes", shape.hidden_sizes)
        whole_chunks(self.num_lives, self.chunk, self.devices)

    @property
    def side_by_side(self) -> int:
        """`chunk`, or what it stands for if it is 0."""
        return side_by_side(self.num_lives, self.chunk, self.devices)


def whole_chunks(num_lives: int, chunk: int, devices: int) -> None:
    """Raises ValueError for lives that do not come in whole chunks on every device."""
    if num_lives % (max(chunk, 1) * devices):
        raise ValueError(
            f"num_lives={num_lives} is not divisible by chunk * devices = "
            f"{max(chunk, 1)} * {devices}"
        )


def side_by_side(num_lives: int, chunk: int, devices: int) -> int:
    """`chunk`, or what it stands for if it is 0.

    It starts JAX where it is 0, so a config that is made at the import of a module leaves it.
    """
    return chunk or (1 if jax.default_backend() == "cpu" else num_lives // devices)


class HParams(NamedTuple):
    """Traced numbers: another value compiles nothing."""

    learning_rate: Scalar = 1e-4  # of Adam
    max_grad_norm: Scalar = float("inf")
    gamma: Scalar = 0.99  # of the advantages
    gae_lambda: Scalar = 0.95
    policy_entropy: Scalar = 0.05  # beta 0
    prediction_entropy: Scalar = 0.001  # beta 1
    policy_target: Scalar = 0.005  # beta 2
    prediction_target: Scalar = 0.001  # beta 3
    critic_learning_rate: Scalar = 4.0
    critic_max_grad_norm: Scalar = 0.5
    inner: Any = ()  # hparams of the inner algorithm


_SHARE, _POSITIVE = door.Range(0.0, 1.0), door.Range(0.0, open=True)
RANGES = {
    "learning_rate": door.Range(0.0), "critic_learning_rate": door.Range(0.0),
    "gamma": _SHARE, "gae_lambda": _SHARE,
    "max_grad_norm": _POSITIVE, "critic_max_grad_norm": _POSITIVE,
}  # fmt: skip
