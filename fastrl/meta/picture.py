"""Pictures of learned drifts: over ratio and advantage, and over the lifetime."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fastrl.files import replacing
from fastrl.objectives import At
from fastrl.plot import INK, SUFFIXES
from fastrl.types import PyTree

RATIOS = (0.5, 2.0)  # from and to, on a logarithmic axis
ADVANTAGES = (-2.0, 2.0)
PROGRESS = (0.0, 0.5, 1.0)
_POINTS = 121
_LIMIT = 2.0  # of the slope at which the colour ends


class _Clip:
    """The hparams that drifts read."""

    clip = 0.2


def surface(
    rule: Any, eta: PyTree, progress: float, points: int = _POINTS
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Ratios `[R]`, advantages `[A]`, and over them `[A, R]` the drift and the objective's slope.

    The slope is the derivative of `r A - D(r, A)` by r: above 0 it pushes the ratio up.
    """
    low, high = np.log(RATIOS)
    log_ratio = jnp.linspace(low, high, points)
    advantage = jnp.linspace(ADVANTAGES[0], ADVANTAGES[1], points)
    at = [jnp.broadcast_to(x, (points, points)) for x in (log_ratio[None], advantage[:, None])]

    def drift(u: Any) -> Any:
        return rule.drift(eta, At(u, at[1], jnp.float32(progress)), _Clip())

    value, by_log_ratio = jax.jvp(drift, (at[0],), (jnp.ones_like(at[0]),))
    slope = at[1] - by_log_ratio * jnp.exp(-at[0])
    return tuple(np.asarray(x) for x in (jnp.exp(log_ratio), advantage, value, slope))  # type: ignore[return-value]


def draw(
    rule: Any, eta: PyTree, path: str | os.PathLike[str], progress: Sequence[float] = PROGRESS
) -> Path:
    """Draws the slope of the objective with this drift, and lines of equal drift, to `path`.

    One panel for each share of the lifetime in `progress`, for a rule that sees it; else one.
    PPO's clip range is dotted.  The file appears whole or not at all.
    Raises ValueError for a rule without a drift or a name with another ending.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{str(path)!r}: the name must end in {', '.join(SUFFIXES)}")
    if not callable(getattr(rule, "drift", None)):
        raise ValueError(f"{rule!r} has no drift to draw")
    shares = tuple(progress) if getattr(rule, "temporal", False) else (0.0,)
    with replacing(path) as temporary:
        _figure(rule, eta, shares).savefig(temporary, dpi=160, facecolor="white")
    return path


def _figure(rule: Any, eta: PyTree, shares: Sequence[float]) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.2 + 3.2 * len(shares), 3.4), layout="constrained")
    panels = figure.subplots(1, len(shares), sharey=True, squeeze=False)[0]
    shades: Any = None
    for axes, share in zip(panels, shares, strict=True):
        ratio, advantage, drift, slope = surface(rule, eta, share)
        shades = axes.pcolormesh(
            ratio, advantage, slope, cmap="RdBu_r", vmin=-_LIMIT, vmax=_LIMIT, rasterized=True
        )
        if drift.max() > 0.02:
            lines = [x for x in (0.02, 0.1, 0.3, 1.0) if x < drift.max()]
            axes.contour(ratio, advantage, drift, lines, colors=INK, linewidths=0.8)
        for edge in (0.8, 1.2):
            axes.axvline(edge, color=INK, linewidth=0.8, linestyle=":")
        axes.set_xscale("log")
        axes.set_xticks([0.5, 0.7, 1.0, 1.4, 2.0], ["0.5", "0.7", "1", "1.4", "2"])
        axes.minorticks_off()
        axes.set_xlabel("ratio", color=INK)
        if len(shares) > 1:
            axes.set_title(f"{share:.0%} of the lifetime", fontsize=9.5, color=INK)
    panels[0].set_ylabel("advantage", color=INK)
    bar = figure.colorbar(shades, ax=list(panels), label="d (r A - D) / d r", extend="both")
    bar.outline.set_visible(False)
    return figure
