"""fastrl: vectorised simulation and training for reinforcement learning in JAX.

Every public name is listed here once; what is not here, or in the modules named here, is
private.  What is heavy and not always needed (brax, orbax, matplotlib) is imported on first use.
"""

import gc as _gc
import importlib
from typing import TYPE_CHECKING, Any

_collects = _gc.isenabled()
_gc.disable()  # importing makes no garbage, and looking for it is a fifth of its time

from fastrl import compilation as _compilation  # noqa: E402

_compilation.fuse_several_outputs()
_compilation.enable_cache()

from fastrl import algorithms as _algorithms  # noqa: E402
from fastrl import distributions as distributions  # noqa: E402
from fastrl import metrics as metrics  # noqa: E402
from fastrl import networks as networks  # noqa: E402
from fastrl import normalize as normalize  # noqa: E402
from fastrl import reset as reset  # noqa: E402
from fastrl import returns as returns  # noqa: E402
from fastrl import spaces as spaces  # noqa: E402
from fastrl.algorithms import ppo as ppo  # noqa: E402
from fastrl.check_env import check_env as check_env  # noqa: E402
from fastrl.checkpoint import CheckpointError as CheckpointError  # noqa: E402
from fastrl.checkpoint import MismatchError as MismatchError  # noqa: E402
from fastrl.compile_report import compile_report as compile_report  # noqa: E402
from fastrl.evaluate import evaluate as evaluate  # noqa: E402
from fastrl.export import export as export  # noqa: E402
from fastrl.export import load_program as load_program  # noqa: E402
from fastrl.files import RunFolderError as RunFolderError  # noqa: E402
from fastrl.interrupts import Interrupted as Interrupted  # noqa: E402
from fastrl.kernels.prng import key as key  # noqa: E402
from fastrl.levels import levels as levels  # noqa: E402
from fastrl.loop import NonFiniteError as NonFiniteError  # noqa: E402
from fastrl.policy import Policy as Policy  # noqa: E402
from fastrl.policy import load as load  # noqa: E402
from fastrl.population import members as members  # noqa: E402
from fastrl.registry import make as make  # noqa: E402
from fastrl.registry import names as names  # noqa: E402
from fastrl.registry import register as register  # noqa: E402
from fastrl.render import render as render  # noqa: E402
from fastrl.run import axes as axes  # noqa: E402
from fastrl.run import run as run  # noqa: E402
from fastrl.sharding import use_cpu_devices as use_cpu_devices  # noqa: E402
from fastrl.train import train as train  # noqa: E402
from fastrl.types import Algorithm as Algorithm  # noqa: E402
from fastrl.types import Env as Env  # noqa: E402
from fastrl.types import Pool as Pool  # noqa: E402
from fastrl.types import Reset as Reset  # noqa: E402
from fastrl.types import Step as Step  # noqa: E402
from fastrl.types import Transition as Transition  # noqa: E402
from fastrl.vec import VecEnv as VecEnv  # noqa: E402
from fastrl.vec import rollout as rollout  # noqa: E402

if _collects:
    if not _gc.get_freeze_count():  # what is imported is old at once: nobody looks at it again
        _gc.freeze()
        _gc.unfreeze()
    _gc.enable()

if TYPE_CHECKING:  # imported on first use, by `__getattr__`
    from fastrl import meta as meta
    from fastrl import schedules as schedules
    from fastrl import statistics as statistics
    from fastrl import transforms as transforms
    from fastrl.algorithms import a2c as a2c
    from fastrl.algorithms import crossq as crossq
    from fastrl.algorithms import ddpg as ddpg
    from fastrl.algorithms import dqn as dqn
    from fastrl.algorithms import impala as impala
    from fastrl.algorithms import policy_gradient as policy_gradient
    from fastrl.algorithms import ppo_memory as ppo_memory
    from fastrl.algorithms import pqn as pqn
    from fastrl.algorithms import props as props
    from fastrl.algorithms import r2d2 as r2d2
    from fastrl.algorithms import redq as redq
    from fastrl.algorithms import reinforce as reinforce
    from fastrl.algorithms import relic as relic
    from fastrl.algorithms import sac as sac
    from fastrl.algorithms import sac_discrete as sac_discrete
    from fastrl.algorithms import sqirl as sqirl
    from fastrl.algorithms import subpo as subpo
    from fastrl.algorithms import td3 as td3
    from fastrl.model_based import dyna as dyna
    from fastrl.plot import plot_run as plot_run
    from fastrl.streaming import avg as avg
    from fastrl.streaming import stream_ac as stream_ac
    from fastrl.streaming import stream_q as stream_q
    from fastrl.streaming import stream_sarsa as stream_sarsa
    from fastrl.streaming import stream_td as stream_td

__version__ = "0.1.0"


_LATER = ("meta", "schedules", "statistics", "transforms")


def __getattr__(name: str) -> Any:
    if name in _algorithms.names():
        return _algorithms.module(name)
    if name in _LATER:
        return importlib.import_module(f"fastrl.{name}")
    if name == "plot_run":
        return importlib.import_module("fastrl.plot").plot_run
    raise AttributeError(f"module 'fastrl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_algorithms.names(), *_LATER, "plot_run"})
