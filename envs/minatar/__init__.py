"""The five MinAtar games, with all six actions (`-v0`) or those that matter in a game (`-v1`)."""

import functools

from fastrl.envs.minatar.asterix import Asterix
from fastrl.envs.minatar.breakout import Breakout
from fastrl.envs.minatar.freeway import Freeway
from fastrl.envs.minatar.seaquest import Seaquest
from fastrl.envs.minatar.space_invaders import SpaceInvaders
from fastrl.registry import register

__all__ = ["Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders"]

_GAMES = {
    Asterix: "Asterix: pick up the gold, keep clear of the enemies",
    Breakout: "Breakout: keep the ball in play and break bricks",
    Freeway: "Freeway: cross eight lanes of traffic",
    Seaquest: "Seaquest: shoot enemies, save divers, mind the oxygen",
    SpaceInvaders: "SpaceInvaders: shoot the aliens before they come down",
}

for _game, _summary in _GAMES.items():
    register(f"MinAtar/{_game.__name__}-v0", _game, f"MinAtar {_summary}; six actions.")
    register(
        f"MinAtar/{_game.__name__}-v1",
        functools.partial(_game, minimal_actions=True),
        f"MinAtar {_summary}; {len(_game.useful_actions)} actions.",
    )
