"""Tasks that need memory: what matters now was seen before."""

from fastrl.envs.memory.masked_cartpole import CartPoleNoVelocity
from fastrl.envs.memory.repeat import RepeatFirst, RepeatPrevious
from fastrl.envs.memory.t_maze import TMaze
from fastrl.registry import register

__all__ = ["CartPoleNoVelocity", "RepeatFirst", "RepeatPrevious", "TMaze"]

register(
    "memory/CartPoleNoVelocity-v0",
    CartPoleNoVelocity,
    "CartPoleNoVelocity: balance a pole, seeing position and angle only.",
)
register("memory/RepeatFirst-v0", RepeatFirst, "RepeatFirst: name the suit of the first card.")
register(
    "memory/RepeatPrevious-v0",
    RepeatPrevious,
    "RepeatPrevious: name the suit of the card shown k - 1 cards before.",
)
register("memory/TMaze-v0", TMaze, "TMaze: turn where the sign at the start said.")
