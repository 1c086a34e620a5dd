"""Algorithms by name, for configs and the command line; scripts import their modules.

The module of an algorithm has `Config` (static choices), `HParams` (traced numbers) and
`make(env, config, *, objective, reset)`.  None is imported before it is asked for.
"""

import importlib
from types import ModuleType
from typing import Any

from fastrl import registry

_MODULES = {
    "a2c": "fastrl.algorithms.a2c",
    "avg": "fastrl.streaming.avg",
    "crossq": "fastrl.algorithms.crossq",
    "ddpg": "fastrl.algorithms.ddpg",
    "disco_agent": "fastrl.meta.disco_agent",
    "dqn": "fastrl.algorithms.dqn",
    "dyna": "fastrl.model_based.dyna",
    "impala": "fastrl.algorithms.impala",
    "intrinsic": "fastrl.meta.intrinsic",
    "lpg_agent": "fastrl.meta.lpg_agent",
    "policy_gradient": "fastrl.algorithms.policy_gradient",
    "ppo": "fastrl.algorithms.ppo",
    "ppo_memory": "fastrl.algorithms.ppo_memory",
    "pqn": "fastrl.algorithms.pqn",
    "props": "fastrl.algorithms.props",
    "r2d2": "fastrl.algorithms.r2d2",
    "redq": "fastrl.algorithms.redq",
    "reinforce": "fastrl.algorithms.reinforce",
    "relic": "fastrl.algorithms.relic",
    "sac": "fastrl.algorithms.sac",
    "sac_discrete": "fastrl.algorithms.sac_discrete",
    "sqirl": "fastrl.algorithms.sqirl",
    "stream_ac": "fastrl.streaming.stream_ac",
    "stream_q": "fastrl.streaming.stream_q",
    "stream_q_memory": "fastrl.streaming.recurrent_q",
    "stream_sarsa": "fastrl.streaming.stream_sarsa",
    "stream_td": "fastrl.streaming.stream_td",
    "stream_td_memory": "fastrl.streaming.recurrent_td",
    "subpo": "fastrl.algorithms.subpo",
    "td3": "fastrl.algorithms.td3",
}


def names() -> list[str]:
    """All names that `module` knows, sorted."""
    return sorted(_MODULES)


def module(name: Any) -> ModuleType:
    """The module of the algorithm called `name`.

    Raises ValueError for an unknown name, with the nearest known ones.
    """
    if not isinstance(name, str) or name not in _MODULES:
        raise ValueError(registry.unknown("algorithm", name, _MODULES))
    return importlib.import_module(_MODULES[name])
