"""Meta-training of LPG by the published GROOVE code, from its checkout and unchanged.

It was written for the JAX of 2023.  What JAX and Flax have renamed since is put back before it is
imported; what logs and what evolves, neither of which runs here, are empty modules.
"""

# Peers are installed in environments of their own.
# pyright: reportMissingImports=false

import functools
import sys
import types
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import meta_training

_UNUSED = {
    "evosax": ("OpenES", "Strategy", "EvoParams", "EvoState"),
    "experiments.logging": ("init_logger", "log_results"),
    "rich": (),
    "rich.traceback": ("install",),
}


def main(settings: dict[str, Any]) -> None:
    """Serves rounds of `updates` meta-updates."""
    _as_it_was(settings["hidden_size"])
    # Not beside this folder's modules: one is called as a package of the checkout.
    here = Path(__file__).resolve().parent
    sys.path[:] = [settings["checkout"], *(p for p in sys.path if Path(p).resolve() != here)]
    from experiments.parse_args import parse_args
    from train import make_train

    flags = {
        "env_mode": settings["mode"], "env_workers": settings["workers"],
        "num_agents": settings["agents"], "num_mini_batches": settings["mini_batches"],
        "train_rollout_len": settings["rollout"], "num_agent_updates": settings["window"],
        "lpg_gru_width": settings["hidden_size"], "train_steps": settings["updates"],
    }  # fmt: skip
    arguments = [text for name, value in flags.items() for text in (f"--{name}", str(value))]
    key = jax.random.PRNGKey(settings["seed"])
    training = make_train(parse_args(arguments))
    meta_training.serve(jax, settings, training, key, "jax", "flax", "gymnax")


def _as_it_was(width: int) -> None:
    """Names and defaults of the JAX and Flax that it was written for, and the empty modules."""
    jax.tree_map = jax.tree.map  # pyright: ignore[reportAttributeAccessIssue]
    modules = {"jax.config": {"config": jax.config}}
    modules |= {name: dict.fromkeys(names) for name, names in _UNUSED.items()}
    for name, attributes in modules.items():
        module = types.ModuleType(name)
        vars(module).update(attributes)
        sys.modules[name] = module
    nn.GRUCell = functools.partial(nn.GRUCell, features=width)
