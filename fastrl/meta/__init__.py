"""Meta-learning: learned objectives, and the learners that learn them.

A learned objective is an `fastrl.objectives.Objective` with parameters; an outer learner is an
`Algorithm` over any inner one.  Modules are imported on first use, as `fastrl.meta.evolution`.
"""

import importlib
from typing import Any

_NAMES = {"load": "fastrl.meta.library", "save": "fastrl.meta.library"}


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    if name.startswith("_"):
        raise AttributeError(f"module 'fastrl.meta' has no attribute {name!r}")
    try:
        return importlib.import_module(f"fastrl.meta.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"fastrl.meta.{name}":
            raise
        raise AttributeError(f"module 'fastrl.meta' has no attribute {name!r}") from None
