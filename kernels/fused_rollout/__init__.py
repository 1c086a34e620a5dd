"""Rollouts in one GPU kernel; see `docs/concepts/fused_rollout.md`."""

from fastrl.kernels.fused_rollout.block import Kept as Kept
from fastrl.kernels.fused_rollout.kernel import Launch as Launch
from fastrl.kernels.fused_rollout.program import FusionError as FusionError
from fastrl.kernels.fused_rollout.rollout import Samples as Samples
from fastrl.kernels.fused_rollout.rollout import fused_rollout as fused_rollout
from fastrl.kernels.fused_rollout.rollout import reference_rollout as reference_rollout
from fastrl.kernels.fused_rollout.support import Choice as Choice
from fastrl.kernels.fused_rollout.support import choose as choose
from fastrl.kernels.fused_rollout.support import supports as supports
