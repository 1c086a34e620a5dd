"""RandomMDP: a process drawn once, each action leading to a few states."""

import dataclasses

import numpy as np

from fastrl.door import integer
from fastrl.envs.tabular.tabular import Tabular


@dataclasses.dataclass(frozen=True)
class RandomMDP(Tabular):
    """Every action leads to `branching` states with probabilities uniform on the simplex.

    A share `sparsity` of the states and actions pays nothing, the others uniform numbers in
    [0, 1 / horizon], so a return is in [0, 1].  (Archibald et al. 1995 call it Garnet.)
    """

    states: int = 8
    actions: int = 3
    horizon: int = 6
    branching: int = 2
    sparsity: float = 0.7
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        integer("branching", self.branching, 1, self.states)
        integer("seed", self.seed, 0, 2**32 - 1)
        if not 0.0 <= self.sparsity < 1.0:
            raise ValueError(f"sparsity={self.sparsity!r}: needs a share from 0 to below 1")

    def tables(self) -> tuple[np.ndarray, np.ndarray]:
        draw = np.random.RandomState(self.seed)
        shape = self.states, self.actions
        transitions = np.zeros((*shape, self.states))
        for row in transitions.reshape(-1, self.states):
            to = draw.choice(self.states, self.branching, replace=False)
            row[to] = draw.dirichlet(np.ones(self.branching))
        rewards = draw.uniform(size=shape) / self.horizon
        rewards[draw.uniform(size=shape) < self.sparsity] = 0.0
        return transitions, rewards
