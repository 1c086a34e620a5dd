"""What a model of the world is: three pure functions, from numbers `[S]` to numbers `[O]`."""

from collections.abc import Callable
from typing import Any, NamedTuple

from fastrl import door
from fastrl.types import Array, Key, PyTree, Scalar


class ModelHParams(NamedTuple):
    """The traced numbers of all models; a learner's `HParams` may have them among its own."""

    ridge: Scalar = 1e-5  # Losse: strength of the squared weights beside the mean squared error
    gain: Scalar = 2.0  # Losse: factor of the inputs, before they are projected
    model_learning_rate: Scalar = 1e-3  # of a network, by Adam


RANGES = {
    "ridge": door.Range(0.0, open=True), "gain": door.Range(0.0, open=True),
    "model_learning_rate": door.Range(0.0),
}  # fmt: skip


class Model(NamedTuple):
    """Pure functions; `hparams` is any record with the fields of `ModelHParams`."""

    init: Callable[[Key, Any], PyTree]  # (key, hparams) -> state
    # (key, state, x [S], y [O], hparams) -> state: one pair more is known
    update: Callable[[Key, PyTree, Array, Array, Any], PyTree]
    predict: Callable[[PyTree, Array], Array]  # (state, x [..., S]) -> y [..., O]
