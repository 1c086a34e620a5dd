"""Tasks that change for as long as they are played; see `fastrl.transforms.continual`."""

import functools

from fastrl.envs.classic.cartpole import CartPole
from fastrl.envs.continual.corners import Corners
from fastrl.registry import register
from fastrl.transforms.continual import Changing, PermutedObservations

__all__ = ["Corners"]

register(
    "continual/SwitchingCorners-v0",
    functools.partial(Changing, Corners(), (("goal", (0, 3, 1, 2)),), 5_000),
    "SwitchingCorners: reach a corner that is not shown, another one every 5,000 steps.",
)
register(
    "continual/DriftingCartPole-v0",
    functools.partial(
        Changing, CartPole(),
        (("gravity", (9.8, 20.0)), ("half_length", (0.5, 1.0)), ("force", (10.0, 5.0))),
        20_000, "drift",
    ),
    "DriftingCartPole: balance a pole whose weight, length and cart's force drift.",
)  # fmt: skip
register(
    "continual/PermutedCartPole-v0",
    functools.partial(PermutedObservations, CartPole(), 20_000),
    "PermutedCartPole: balance a pole, the four numbers seen change places every 20,000 steps.",
)
