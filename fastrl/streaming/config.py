"""The configs of stream learners: what shapes them, their published versions, their optimiser."""

import dataclasses
from typing import Any, ClassVar, Literal, NamedTuple, Self

from fastrl import door
from fastrl.streaming import optimizers
from fastrl.streaming.networks import Initializer
from fastrl.streaming.optimizers import Optimizer
from fastrl.streaming.statistics import RewardTrace
from fastrl.types import Scalar

OptimizerName = Literal["obgd", "adaptive_obgd", "streaming", "intentional", "adam", "sgd"]
Truncation = Literal["ends", "bootstraps", "continues"]

_CHOICES = {
    "torso": ("mlp", "conv"),
    "optimizer": ("obgd", "adaptive_obgd", "streaming", "intentional", "adam", "sgd"),
    "initializer": ("sparse", "erk", "dense", "orthogonal"),
    "reward_trace": ("cut", "cut_terminated", "cleared"),
    "truncation": ("ends", "bootstraps", "continues"),
}  # fmt: skip

# The published versions of these learners as fields of a config: see `Config.version`.
VERSIONS: dict[str, dict[str, Any]] = {
    "2024": {},
    "2026": {
        "optimizer": "streaming", "initializer": "erk", "sparsity": 0.95,
        "reward_trace": "cleared", "truncation": "bootstraps",
    },
    "intentional": {
        "optimizer": "intentional", "reward_trace": "cut_terminated",
        "truncation": "continues", "time_feature": False,
    },
    # The learners before these, with `trace_decay=0`: what streams were before they were stable.
    "classic": {
        "optimizer": "adam", "initializer": "dense", "layer_norm": False,
        "normalize_observation": False, "scale_reward": False, "truncation": "bootstraps",
        "time_feature": False,
    },
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Config:
    """What shapes the program; the defaults are the version of 2024, see `version`.

    A `truncation` "ends" (the value of what follows is 0), "bootstraps" (it is that of the true
    successor, and traces are cleared), or "continues" (traces are kept too).
    """

    num_steps: int = 1000  # transitions in one iteration
    hidden_sizes: tuple[int, ...] = (32, 32)
    torso: Literal["mlp", "conv"] = "mlp"  # conv: one image, a 3x3 layer before the dense ones
    conv_features: int = 16
    optimizer: OptimizerName = "obgd"
    initializer: Initializer = "sparse"
    sparsity: float = 0.9  # share of weights that start at zero
    layer_norm: bool = True
    normalize_observation: bool = True  # by running mean and variance
    scale_reward: bool = True  # by the running deviation of the discounted sum
    reward_trace: RewardTrace = "cut"  # what an end does to that sum
    second_moment: bool = False  # of that sum about 0, not about its mean
    truncation: Truncation = "ends"
    time_feature: bool = True  # one more input: how far the episode is

    versions: ClassVar[dict[str, dict[str, Any]]] = VERSIONS

    def __post_init__(self) -> None:
        door.integer("num_steps", self.num_steps, 1)
        door.integer("conv_features", self.conv_features, 1)
        sizes = self.hidden_sizes
        if not isinstance(sizes, (tuple, list)):
            raise ValueError(f"hidden_sizes={sizes!r}: needs a tuple of positive integers")
        sizes = tuple(door.integer("hidden_sizes", n, 1) for n in sizes)
        object.__setattr__(self, "hidden_sizes", sizes)
        for field in dataclasses.fields(self):
            if isinstance(field.default, bool):
                door.flag(field.name, getattr(self, field.name))
        for name, known in _CHOICES.items():
            door.choice(name, getattr(self, name), known)
        if not 0.0 <= door.number("sparsity", self.sparsity, 0.0) <= 1.0:
            raise ValueError(f"sparsity={self.sparsity!r}: needs a share, at most 1")
        if self.torso == "conv" and self.time_feature:
            raise ValueError("torso='conv' takes an image only: set time_feature=false")

    @classmethod
    def version(cls, name: str, **changes: Any) -> Self:
        """The config of a version, "2024", "2026", "intentional" or "classic", with `changes`."""
        door.choice("version", name, tuple(cls.versions))
        return cls(**(cls.versions[name] | changes))


class Numbers(NamedTuple):
    """The traced numbers of one optimiser; a learner's `HParams` has them all, flat."""

    learning_rate: Scalar
    kappa: Scalar
    step_size: Scalar
    eta: Scalar


RANGES = {
    "gamma": door.Range(0.0, 1.0), "trace_decay": door.Range(0.0, 1.0),
    "second_decay": door.Range(0.0, 1.0), "peak_decay": door.Range(0.0, 1.0),
    "clip": door.Range(0.0, open=True), "clip_decay": door.Range(0.0, 1.0),
    "time_limit": door.Range(0.0, open=True),
}  # fmt: skip


def optimizer(config: Config, hparams: Any, numbers: Numbers, policy: bool = False) -> Optimizer:
    """The config's optimiser, of a value or of a policy."""
    decay = hparams.gamma * hparams.trace_decay
    match config.optimizer:
        case "obgd":
            return optimizers.obgd(numbers.learning_rate, numbers.kappa, decay)
        case "adaptive_obgd":
            return optimizers.adaptive_obgd(
                numbers.learning_rate, numbers.kappa, decay, hparams.second_decay
            )
        case "streaming":
            return optimizers.streaming(numbers.step_size, decay, hparams.peak_decay)
        case "adam":
            return optimizers.adam(numbers.learning_rate, decay, hparams.second_decay)
        case "sgd":
            return optimizers.sgd(numbers.learning_rate, decay)
    return optimizers.intentional(
        numbers.eta, decay, hparams.second_decay, hparams.clip, hparams.clip_decay, policy=policy
    )
