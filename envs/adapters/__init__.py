"""Environments of other libraries; what they need is imported on first use."""

import functools

from fastrl.envs.adapters.brax import NAMES, Brax
from fastrl.registry import register

__all__ = ["Brax"]

for _name in NAMES:
    _summary = f"Brax's {_name}, on a choice of physics."
    register(f"brax/{_name}", functools.partial(Brax, _name), _summary)
