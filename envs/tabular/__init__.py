"""Small Markov decision processes given by tables, whose optimal values can be computed exactly."""

from fastrl.envs.tabular.lock import Lock
from fastrl.envs.tabular.random_mdp import RandomMDP
from fastrl.envs.tabular.tabular import Params, State, Tabular
from fastrl.registry import register

__all__ = ["Lock", "Params", "RandomMDP", "State", "Tabular"]

register("tabular/Lock-v0", Lock, "Lock: a chain of right actions, or a small way out at the door.")
register("tabular/Random-v0", RandomMDP, "RandomMDP: transitions and rewards drawn once.")
