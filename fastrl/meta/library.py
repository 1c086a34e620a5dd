"""Learned objectives in folders: `save` and `load`.

    fastrl.meta.save("runs/lpo", rule, state.eta)
    algorithm = ppo.make(env, objective=fastrl.meta.load("runs/lpo"))

The folder `objective` has the parameters as arrays and, as text, which rule they belong to and
its settings: numbers, flags and strings of a class that is listed here.  Loading runs no code.
"""

import dataclasses
import importlib
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fastrl import checkpoint, door
from fastrl.checkpoint import CheckpointError
from fastrl.files import RunFolderError
from fastrl.leaves import named
from fastrl.objectives import Inputs
from fastrl.registry import unknown
from fastrl.types import Array, Key, PyTree

# The rule's class: a frozen dataclass with `init(key)`, which is an `Objective` when called, or
# has what agents that learn by rules (`fastrl.meta.lpg_types.Rule`) or rewards ask for.
RULES = {
    "disco": "fastrl.meta.disco:Disco", "lpg": "fastrl.meta.lpg:LPG",
    "lpo": "fastrl.meta.lpo:LPO", "reward": "fastrl.meta.intrinsic_network:Reward",
}  # fmt: skip
FOLDER = "objective"
_OF_ETA = (
    "drift",
    "memory",
    "targets",
    "loss",
    "unroll",
)  # functions of a rule whose first argument is eta


@dataclasses.dataclass(frozen=True, eq=False)
class Loaded:
    """A learned objective with its parameters, for `objective=`. Equal by value.

    `hparams.objective` may still hold others of the same shapes; () means these.  Rules that
    make targets (`fastrl.meta.lpg`) keep their interface too.
    """

    rule: Any
    eta: PyTree

    def __call__(self, eta: Any, inputs: Inputs, hparams: Any) -> tuple[Array, dict[str, Array]]:
        if not callable(self.rule):
            raise TypeError(f"{self.rule!r} is no policy objective: it needs an agent of its own")
        call: Any = self.rule
        return call(self.eta if _is_empty(eta) else eta, inputs, hparams)

    def init(self, key: Key) -> PyTree:
        """Its own parameters, to go on from."""
        return self.eta

    def __getattr__(self, name: str) -> Any:
        """What else the rule has; functions of its parameters get these where there are none."""
        if name.startswith("__"):  # copying asks for such before there is a rule
            raise AttributeError(name)
        found = getattr(self.rule, name)
        if name not in _OF_ETA:
            return found
        return lambda eta, *rest: found(self.eta if _is_empty(eta) else eta, *rest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Loaded) and self._value() == other._value()

    def __hash__(self) -> int:
        return hash(self._value())

    def __repr__(self) -> str:
        return f"Loaded({self.rule!r})"

    def _value(self) -> Any:
        leaves = {k: (x.shape, x.dtype.name, x.tobytes()) for k, x in named(self.eta).items()}
        return self.rule, tuple(leaves.items())


def save(run_dir: str | os.PathLike[str], rule: Any, eta: PyTree) -> Path:
    """Writes `rule` with the parameters `eta` to the folder `objective` in `run_dir`.

    Raises ValueError for a rule of an unknown kind or parameters that are not its own, and
    `RunFolderError` where it can't write.
    """
    name = next((n for n, place in RULES.items() if _class(place) is type(rule)), None)
    if name is None:
        raise ValueError(f"{rule!r} is none of the rules that can be saved: {', '.join(RULES)}")
    wanted, got = _shapes(jax.eval_shape(rule.init, jax.random.key(0))), _shapes(eta)
    if wanted != got:
        raise ValueError(f"eta has shapes {got}, but parameters of {rule!r} have {wanted}")
    path = Path(run_dir) / FOLDER
    checkpoint.save(path, eta, {"rule": name, "settings": dataclasses.asdict(rule)}, plain=True)
    return path


def load(run_dir: str | os.PathLike[str]) -> Loaded:
    """The objective that was saved in `run_dir`, a run folder, or the folder `objective` in one.

    Raises `RunFolderError` if there is none, `CheckpointError` if it is damaged, ValueError if
    it is of a rule that this version does not know.
    """
    path = Path(run_dir)
    path = path / FOLDER if (path / FOLDER).is_dir() else path
    if not (path / "meta.json").is_file():
        raise RunFolderError(
            f"{run_dir} holds no learned objective: give the folder of a `fastrl meta-train` run "
            "that has ended, or one that fastrl.meta.save wrote"
        )
    facts = checkpoint.read_meta(path)["facts"]
    if not isinstance(facts.get("settings"), dict):
        raise CheckpointError(f"checkpoint {path} is damaged: it has no settings")
    rule = make_rule(facts.get("rule"), facts["settings"])
    target = jax.eval_shape(rule.init, jax.random.key(0))
    eta = checkpoint.restore(path, target).tree
    return Loaded(rule, jax.tree.map(np.asarray, eta))


def make_rule(name: Any, settings: dict[str, Any]) -> Any:
    """The rule called `name` with `settings`. Raises ValueError for what does not fit."""
    if not isinstance(name, str) or name not in RULES:
        raise ValueError(unknown("rule", name, RULES))
    cls = _class(RULES[name])
    fields = [f.name for f in dataclasses.fields(cls)]
    for key in settings:
        door.choice(f"a setting of the rule {name}", key, tuple(fields))
    lists = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
    return cls(**lists)


def _class(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def _is_empty(eta: Any) -> bool:
    return not jax.tree.leaves(eta)


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    return {name: tuple(jnp.shape(x)) for name, x in named(tree).items()}
