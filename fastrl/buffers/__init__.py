"""Replay buffers on the device: pure functions of a state that lives in the learner's own.

All are rings of `[L, N]` items, time by environment: `uniform` and `prioritised` draw windows of
consecutive steps from it, so one buffer serves single transitions, n-step returns and sequences.
"""

from fastrl.buffers.prioritised import importance, prioritised
from fastrl.buffers.ring import Ring, take
from fastrl.buffers.types import Buffer, Draw
from fastrl.buffers.uniform import uniform

__all__ = ["Buffer", "Draw", "Ring", "importance", "prioritised", "take", "uniform"]
