"""Learned policy optimisation: a drift that is a network (Lu et al. 2022, arXiv:2210.05639).

With the ratio r, the advantage A, u = log r and v = 1 - r the network sees

    x(r, A) = [u, u^2, v, v^2, u A, u^2 A, v A, v^2 A]
    f(x)    = w . tanh(W x)                        no biases
    D(r, A) = relu(f(x) - xi)                                          xi = 1e-4
    D(r, A) = relu(relu((r - clip(r, 1 - c, 1 + c)) A) + f(x) - xi)    with `ppo_init`

as the released code has it.  Without biases f is 0 at r = 1, and -xi puts that point strictly
inside the flat part of the relu: whatever the weights, D >= 0, D = 0 at r = 1, and D is flat
there, which is what mirror learning asks of a drift (`fastrl.objectives`).

TA-LPO (Jackson et al. 2024, arXiv:2402.05828) also sees (n/N) x, with n/N the share of the
lifetime that has passed: a rule that changes while the agent grows up, and a drift still.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fastrl import door, objectives
from fastrl.objectives import At, Inputs
from fastrl.types import Array, Key

_FEATURES = 8
_MARGIN = 1e-4  # xi


class Parameters(NamedTuple):
    """Weights of the network: what is learned."""

    hidden: Array  # [H, F]
    output: Array  # [H]


@dataclasses.dataclass(frozen=True)
class LPO:
    """The objective with a drift network; `hparams.objective` holds its `Parameters`.

        rule = lpo.LPO()
        algorithm = ppo.make(env, objective=rule)
        hparams = ppo.HParams(objective=rule.init(key))

    At the start w = 0 and the drift is PPO's, or with `ppo_init=False` none.
    """

    hidden_size: int = 128
    ppo_init: bool = True  # the network's output goes on top of PPO's drift
    temporal: bool = False  # TA-LPO: it sees the share of the lifetime that has passed

    def __post_init__(self) -> None:
        door.integer("hidden_size", self.hidden_size, 1)
        door.flag("ppo_init", self.ppo_init)
        door.flag("temporal", self.temporal)

    @property
    def num_features(self) -> int:
        """The network's inputs."""
        return _FEATURES * (2 if self.temporal else 1)

    def init(self, key: Key) -> Parameters:
        """Parameters with w = 0: f is 0 and still learns, by any step in w. Consumes `key`."""
        shape = self.hidden_size, self.num_features
        hidden = jax.random.normal(key, shape) / jnp.sqrt(self.num_features)
        return Parameters(hidden, jnp.zeros(self.hidden_size))

    def drift(self, eta: Parameters, at: At, hparams: Any) -> Array:
        """D `[...]`."""
        self._check(eta)
        x = features(at, self.temporal)
        f = jnp.tanh(x @ eta.hidden.T) @ eta.output
        own = objectives.clip_drift((), at, hparams) if self.ppo_init else 0.0
        return jax.nn.relu(own + f - _MARGIN)

    def __call__(
        self, eta: Parameters, inputs: Inputs, hparams: Any
    ) -> tuple[Array, dict[str, Array]]:
        return objectives.Mirror(self.drift)(eta, inputs, hparams)

    def _check(self, eta: Any) -> None:
        """Raises ValueError unless `eta` holds parameters of this network."""
        wanted = (self.hidden_size, self.num_features), (self.hidden_size,)
        got = tuple(jnp.shape(x) for x in jax.tree.leaves(eta))
        if not isinstance(eta, Parameters) or got != wanted:
            raise ValueError(
                f"hparams.objective is a {type(eta).__name__} of shapes {got}: {self} needs "
                f"lpo.Parameters of shapes {wanted}, such as its init(key)"
            )


def features(at: At, temporal: bool = False) -> Array:
    """x `[..., 8]`, or [x, (n/N) x] `[..., 16]`; all of them 0 at r = 1."""
    u, v = at.log_ratio, -jnp.expm1(at.log_ratio)
    plain = jnp.stack([u, u**2, v, v**2], -1)
    x = jnp.concatenate([plain, plain * at.advantage[..., None]], -1)
    if not temporal:
        return x
    return jnp.concatenate([x, jnp.clip(at.progress, 0.0, 1.0) * x], -1)
