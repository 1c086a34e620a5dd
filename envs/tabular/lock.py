"""Lock: a chain of right actions to a prize, or a small sure reward at the door.

With `length` steps to the prize, random play gets it with probability `actions**-length`, so to go
in is worth less to it than to leave as soon as `way_out` is above that.  Each step of value
iteration makes the chain one shorter: the process is k-QVI-solvable (see
`fastrl.effective_horizon`) from some k on that `length` and `way_out` choose.
"""

import dataclasses

import numpy as np

from fastrl.door import integer, number
from fastrl.envs.tabular.tabular import Tabular

RIGHT_SEED = 7  # which action is right at each step is drawn once


@dataclasses.dataclass(frozen=True)
class Lock(Tabular):
    """States 0 .. length - 1 of the lock, then one of rest, where nothing pays.

    The right action goes on, or with probability `slip` stays where it is; the last one pays 1.
    Every other action leads to rest, and pays `way_out` in the first state, else nothing.
    """

    states: int = dataclasses.field(default=0, init=False)
    actions: int = 2
    horizon: int = 10
    length: int = 5
    way_out: float = 0.1
    slip: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "states", integer("length", self.length, 1) + 1)
        super().__post_init__()
        number("way_out", self.way_out, 0.0)
        if not 0.0 <= number("slip", self.slip, 0.0) < 1.0:
            raise ValueError(f"slip={self.slip!r}: needs a probability below 1")
        if self.horizon < self.length:
            raise ValueError(f"horizon={self.horizon} is below length={self.length}")

    def tables(self) -> tuple[np.ndarray, np.ndarray]:
        rest = self.length
        right = np.random.RandomState(RIGHT_SEED).randint(self.actions, size=self.length)
        transitions = np.zeros((self.states, self.actions, self.states))
        rewards = np.zeros((self.states, self.actions))
        transitions[:, :, rest] = 1.0
        rewards[0] = self.way_out
        for place, action in enumerate(right):
            transitions[place, action] = 0.0
            transitions[place, action, place] += self.slip
            transitions[place, action, place + 1] += 1.0 - self.slip
            rewards[place, action] = 0.0
        rewards[rest - 1, right[-1]] = 1.0 - self.slip  # the mean: paid for going on
        return transitions, rewards
