"""Tasks of bsuite that each ask one question of a learner, and bandits.

Rules are those of DeepMind's bsuite (Osband et al. 2020, "Behaviour Suite for Reinforcement
Learning"), version 0.3.6; what bsuite draws once from a seed is a number of the params.  The
delayed chains beside them are those of Oh et al. 2020.
"""

import functools

from fastrl.envs.bsuite.bandits import BernoulliBandit, GaussianBandit, LinearContextualBandit
from fastrl.envs.bsuite.cartpole_swingup import CartPoleSwingup
from fastrl.envs.bsuite.catch import Catch
from fastrl.envs.bsuite.deep_sea import DeepSea, DeepSeaStochastic
from fastrl.envs.bsuite.delayed_chain import DelayedChain
from fastrl.envs.bsuite.discounting_chain import DiscountingChain
from fastrl.envs.bsuite.memory_chain import MemoryChain
from fastrl.envs.bsuite.umbrella_chain import UmbrellaChain
from fastrl.registry import register

__all__ = [
    "BernoulliBandit",
    "CartPoleSwingup",
    "Catch",
    "DeepSea",
    "DeepSeaStochastic",
    "DelayedChain",
    "DiscountingChain",
    "GaussianBandit",
    "LinearContextualBandit",
    "MemoryChain",
    "UmbrellaChain",
]

register("bandit/Bernoulli-v0", BernoulliBandit, "Bernoulli: arms that pay 1 or 0.")
register("bandit/Gaussian-v0", GaussianBandit, "Gaussian: arms that pay their mean and noise.")
register(
    "bandit/LinearContextual-v0",
    LinearContextualBandit,
    "LinearContextual: arms that pay by their weights for a context.",
)
register("bsuite/CartPoleSwingup-v0", CartPoleSwingup, "CartPoleSwingup: pushes cost, up pays.")
register("bsuite/Catch-v0", Catch, "Catch: move a paddle under a falling ball.")
register("bsuite/DeepSea-v0", DeepSea, "DeepSea: the reward is at the end of one path only.")
register(
    "bsuite/DeepSeaStochastic-v0",
    DeepSeaStochastic,
    "DeepSeaStochastic: the same, with moves that fail and noisy rewards.",
)
register(
    "bsuite/DelayedChain-v0",
    DelayedChain,
    "DelayedChain: the first action decides what is paid after 5 to 30 steps.",
)
register(
    "bsuite/DelayedChainNoisy-v0",
    functools.partial(DelayedChain, noisy=True),
    "DelayedChainNoisy: the same, with +1 or -1 by chance on the way.",
)
register(
    "bsuite/DelayedChainLong-v0",
    functools.partial(DelayedChain, longest=50),
    "DelayedChainLong: the same after 5 to 50 steps.",
)
register(
    "bsuite/DelayedChainLongNoisy-v0",
    functools.partial(DelayedChain, longest=50, noisy=True),
    "DelayedChainLongNoisy: the same, with +1 or -1 by chance on the way.",
)
register(
    "bsuite/DelayedChainLongDistracted-v0",
    functools.partial(DelayedChain, longest=50, distractors=20),
    "DelayedChainLongDistracted: the same, with 20 random bits in the observation.",
)
register(
    "bsuite/DiscountingChain-v0",
    DiscountingChain,
    "DiscountingChain: choose at once when to be paid.",
)
register("bsuite/MemoryChain-v0", MemoryChain, "MemoryChain: tell at the end what was shown.")
register(
    "bsuite/UmbrellaChain-v0",
    UmbrellaChain,
    "UmbrellaChain: the first action decides about the last reward.",
)
