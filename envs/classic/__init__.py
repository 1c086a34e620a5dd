"""The classic control tasks, as Gymnasium has them."""

from fastrl.envs.classic.cartpole import CartPole
from fastrl.registry import register

__all__ = ["CartPole"]

register("CartPole-v1", CartPole)
