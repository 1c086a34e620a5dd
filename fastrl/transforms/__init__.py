"""Transforms: environments around an environment. `TimeLimit(CartPole(), 200)` is an `Env` too.

A transform is a frozen dataclass whose first field is the environment inside.  Where it keeps
something of the episode it has a State of its own, where it has numbers of the task Params of
its own; both are NamedTuples with the inner one as field `env`.  What stands outermost acts
first on actions and last on observations, rewards and ends.
"""

from fastrl.transforms.action import ClipAction, RescaleAction, StickyActions
from fastrl.transforms.base import Transform
from fastrl.transforms.continual import Changing, PermutedObservations
from fastrl.transforms.episode import ActionRepeat, TimeLimit
from fastrl.transforms.frame_stack import FrameStack
from fastrl.transforms.meta_episode import MetaEpisode
from fastrl.transforms.observation import (
    FlattenObservation,
    OneHotChannels,
    OneHotObservation,
    ScaleObservation,
)
from fastrl.transforms.reward import ScaleReward

# For the outer edge: configs name transforms by these.
TRANSFORMS: dict[str, type[Transform]] = {
    "action_repeat": ActionRepeat,
    "changing": Changing,
    "clip_action": ClipAction,
    "flatten_observation": FlattenObservation,
    "frame_stack": FrameStack,
    "meta_episode": MetaEpisode,
    "one_hot_channels": OneHotChannels,
    "one_hot_observation": OneHotObservation,
    "permuted_observations": PermutedObservations,
    "rescale_action": RescaleAction,
    "scale_observation": ScaleObservation,
    "scale_reward": ScaleReward,
    "sticky_actions": StickyActions,
    "time_limit": TimeLimit,
}

__all__ = [
    "TRANSFORMS",
    "ActionRepeat",
    "Changing",
    "ClipAction",
    "FlattenObservation",
    "FrameStack",
    "MetaEpisode",
    "OneHotChannels",
    "OneHotObservation",
    "PermutedObservations",
    "RescaleAction",
    "ScaleObservation",
    "ScaleReward",
    "StickyActions",
    "TimeLimit",
    "Transform",
]
