"""MiniGrid's tasks: an agent in a grid, which sees seven by seven cells before it."""

import functools

from fastrl.envs.minigrid.crossing import Crossing, LavaGap
from fastrl.envs.minigrid.door_key import DoorKey
from fastrl.envs.minigrid.dynamic_obstacles import DynamicObstacles
from fastrl.envs.minigrid.empty import Empty
from fastrl.envs.minigrid.four_rooms import FourRooms
from fastrl.envs.minigrid.go_to_door import GoToDoor
from fastrl.envs.minigrid.key_corridor import KeyCorridor
from fastrl.envs.minigrid.levels import Fixed, parse, show
from fastrl.envs.minigrid.memory import Memory
from fastrl.envs.minigrid.multi_room import MultiRoom
from fastrl.envs.minigrid.unlock import Unlock, UnlockPickup
from fastrl.registry import register

__all__ = [
    "Crossing",
    "DoorKey",
    "DynamicObstacles",
    "Empty",
    "Fixed",
    "FourRooms",
    "GoToDoor",
    "KeyCorridor",
    "LavaGap",
    "Memory",
    "MultiRoom",
    "Unlock",
    "UnlockPickup",
    "parse",
    "show",
]

_TASKS = {
    "Empty-5x5": functools.partial(Empty, size=5),
    "Empty-8x8": Empty,
    "Empty-Random-6x6": functools.partial(Empty, size=6, random_start=True),
    "FourRooms": FourRooms,
    "DoorKey-5x5": functools.partial(DoorKey, size=5),
    "DoorKey-8x8": DoorKey,
    "Unlock": Unlock,
    "UnlockPickup": UnlockPickup,
    "MultiRoom-N2-S4": functools.partial(MultiRoom, num_rooms=2, max_room_size=4),
    "MultiRoom-N4-S5": functools.partial(MultiRoom, num_rooms=6, max_room_size=5),
    "KeyCorridorS3R3": KeyCorridor,
    "LavaGapS7": LavaGap,
    "SimpleCrossingS9N1": functools.partial(Crossing, lava=False),
    "LavaCrossingS9N1": Crossing,
    "Dynamic-Obstacles-6x6": functools.partial(DynamicObstacles, size=6, obstacles=3),
    "GoToDoor-5x5": GoToDoor,
    "MemoryS7": Memory,
}
for _name, _make in _TASKS.items():
    register(f"MiniGrid-{_name}-v0", _make)
