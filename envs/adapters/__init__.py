"""Environments of other libraries; what they need is imported on first use."""

import functools

from fastrl.envs.adapters.brax import NAMES, Brax
from fastrl.envs.adapters.gymnasium import (
    Gymnasium,
    from_gymnasium,
    to_gymnasium,
    to_gymnasium_vector,
)
from fastrl.envs.adapters.gymnax import Gymnax, from_gymnax
from fastrl.envs.adapters.playground import Playground, from_playground
from fastrl.registry import register

__all__ = [
    "Brax",
    "Gymnasium",
    "Gymnax",
    "Playground",
    "from_gymnasium",
    "from_gymnax",
    "from_playground",
    "to_gymnasium",
    "to_gymnasium_vector",
]

for _name in NAMES:
    _summary = f"Brax's {_name}, on a choice of physics."
    register(f"brax/{_name}", functools.partial(Brax, _name), _summary)

register(
    "gymnasium/CartPole-v1",
    functools.partial(Gymnasium, "CartPole-v1"),
    "Gymnasium's own CartPole-v1, stepped on the host.",
)
