"""The classic control tasks, as Gymnasium has them."""

from fastrl.envs.classic.acrobot import Acrobot
from fastrl.envs.classic.cartpole import CartPole
from fastrl.envs.classic.mountain_car import MountainCar, MountainCarContinuous
from fastrl.envs.classic.pendulum import Pendulum
from fastrl.registry import register

__all__ = ["Acrobot", "CartPole", "MountainCar", "MountainCarContinuous", "Pendulum"]

register("Acrobot-v1", Acrobot)
register("CartPole-v1", CartPole)
register(
    "MountainCar-v0", MountainCar, "MountainCar: rock a weak car out of a valley, up to the flag."
)
register(
    "MountainCarContinuous-v0",
    MountainCarContinuous,
    "MountainCarContinuous: the same with a force of any strength, which costs.",
)
register("Pendulum-v1", Pendulum)
