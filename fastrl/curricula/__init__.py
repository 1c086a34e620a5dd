"""Curricula: which level comes next, and what a level is worth."""

from fastrl.curricula import level_buffer, scores

__all__ = ["level_buffer", "scores"]
