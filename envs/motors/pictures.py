"""The picture of a drive: dials of its quantities, bars of references and what follows them."""

import math
from typing import Any

import numpy as np

from fastrl.envs import drawing
from fastrl.envs.motors import tasks

WIDTH, HEIGHT = 4.8, 3.0  # world units, of 100 pixels
SWEEP = 0.75 * math.pi  # from the top to either end of a dial


def picture(drive: Any, state: Any, params: Any) -> np.ndarray:
    """Dials of speed, torque and the greatest current, and a bar for each reference."""
    canvas = drawing.Canvas(480, 300, left=0.0, right=WIDTH, bottom=0.0)
    shares = _shares(drive, state, params)
    current = max((abs(shares[name]), shares[name]) for name in drive.machine.currents)[1]
    dials = (shares["omega"], shares["torque"], current)
    for place, share in enumerate(dials):
        _dial(canvas, (0.85 + 1.55 * place, 2.05), 0.62, share)
    for place, name in enumerate(drive.referenced):
        low = tasks.lowest(name, drive.machine, drive.converter)
        height = 0.75 - 0.5 * place + 0.25 * (len(drive.referenced) - 1)
        _bar(canvas, height, low, shares[name], float(state.reference[name].value))
    return canvas.image()


def _shares(drive: Any, state: Any, params: Any) -> dict[str, float]:
    plant, limits = state.plant, params.limits
    currents = tuple(float(i) for i in plant.currents)
    shares = {
        "omega": float(plant.omega) / float(limits.omega),
        "torque": float(drive.machine.torque(params.motor, currents)) / float(limits.torque),
    }
    named = zip(drive.machine.currents, currents, strict=True)
    return shares | {name: i / float(limits.current) for name, i in named}


def _dial(canvas: Any, centre: drawing.Point, radius: float, share: float) -> None:
    """A dial from -1 on the left over 0 at the top to 1; its ends are the limits."""

    def at(value: float, reach: float) -> drawing.Point:
        turn = SWEEP * max(-1.1, min(1.1, value))
        return centre[0] + reach * math.sin(turn), centre[1] + reach * math.cos(turn)

    canvas.disc(centre, radius * 1.1, drawing.FIELD)
    for mark in np.linspace(-1.0, 1.0, 9):
        colour = drawing.ORANGE if abs(mark) == 1.0 else drawing.GREY
        canvas.rod(at(mark, 0.86 * radius), at(mark, radius), 0.035, colour)
    needle = drawing.ORANGE if abs(share) > 1.0 else drawing.BLUE
    canvas.rod(centre, at(share, 0.8 * radius), 0.06, needle)
    canvas.disc(centre, 0.07, drawing.INK)


def _bar(canvas: Any, height: float, low: float, share: float, reference: float) -> None:
    """A bar from zero to what is, over a scale; the reference is an upright line."""

    def at(value: float) -> float:
        value = max(low - 0.05, min(1.05, value))
        return 0.3 + (WIDTH - 0.6) * (value - low) / (1 - low)

    canvas.rod((at(low), height), (at(1.0), height), 0.03, drawing.GREY)
    canvas.rod((at(0.0), height), (at(share), height), 0.16, drawing.BLUE)
    canvas.rod((at(0.0), height - 0.14), (at(0.0), height + 0.14), 0.02, drawing.GREY)
    canvas.rod((at(reference), height - 0.2), (at(reference), height + 0.2), 0.05, drawing.ORANGE)
