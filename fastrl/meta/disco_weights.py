"""The published parameters of Disco103, read from the file that its authors give out.

`disco_103.npz` of google-deepmind/disco_rl (`disco_rl/update_rules/weights`, CC-BY 4.0) holds 42
arrays by the names of its network's layers.  It is not part of fastrl: download it yourself.
"""

import os
import zipfile
from pathlib import Path

import jax
import numpy as np

from fastrl.leaves import named
from fastrl.meta.disco import Disco
from fastrl.meta.library import Loaded

_OWN, _META = "lstm", "lstm/~/meta_lstm/~unroll"
_READER = {
    "y.0": "mlp/~/linear_0", "y.1": "mlp/~/linear_1",
    "z.0": "mlp_1/~/linear_0", "z.1": "mlp_1/~/linear_1",
    "actions.0": "sequential/conv1_d", "actions.1": "sequential/conv1_d_1",
}  # fmt: skip
_LAYERS = {
    **{f"reader.{k}": f"{_OWN}/{v}" for k, v in _READER.items()},
    "trajectory": f"{_OWN}/lstm/linear", "gate": f"{_OWN}/linear",
    "summary": f"{_OWN}/linear_1", "y": f"{_OWN}/linear_2", "z": f"{_OWN}/linear_3",
    "policy_layer": f"{_OWN}/sequential_1/conv1_d", "policy": f"{_OWN}/linear_4",
    **{f"lifetime_reader.{k}": f"{_META}/{v}" for k, v in _READER.items()},
    "lifetime_layer": f"{_META}/mlp_2/~/linear_0", "lifetime": f"{_META}/lstm/linear",
}  # fmt: skip
_PARTS = {"weights": "w", "bias": "b"}
_DISCO103 = Disco()


def published(path: str | os.PathLike[str], rule: Disco = _DISCO103) -> Loaded:
    """The rule with the parameters in the file `path`, for `disco_agent.make(objective=...)`.

    Raises FileNotFoundError without a file, ValueError for one with other arrays than those of
    `rule`, naming the first that differs.  Runs no code of the file.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"{path}: no such file; it is disco_rl/update_rules/weights/disco_103.npz of "
            "github.com/google-deepmind/disco_rl"
        )
    like = jax.eval_shape(rule.init, jax.random.key(0))
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (zipfile.BadZipFile, ValueError, EOFError, OSError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no npz file of plain arrays: {error}") from error
    wanted = {official(name): x.shape for name, x in named(like).items()}
    for name in arrays:
        if name not in wanted:
            raise ValueError(f"{path} has an array {name!r}, which {rule} does not have")
    leaves = [_leaf(path, arrays, name, shape) for name, shape in wanted.items()]
    return Loaded(rule, jax.tree.unflatten(jax.tree.structure(like), leaves))


def official(name: str) -> str:
    """What the leaf `name` of `disco_network.Parameters` is called in the file."""
    layer, _, part = name.rpartition(".")
    return f"{_LAYERS[layer]}/{_PARTS[part]}"


def _leaf(
    path: object, arrays: dict[str, np.ndarray], name: str, shape: tuple[int, ...]
) -> np.ndarray:
    """The array `name`; layers on actions are convolutions of width 1 there."""
    if name not in arrays:
        raise ValueError(f"{path} has no array {name!r}, of shape {shape}")
    x = arrays[name]
    published_shape = (1, *shape) if "conv1_d" in name and name.endswith("/w") else shape
    if x.shape != published_shape or x.dtype != np.float32:
        raise ValueError(
            f"{path}: the array {name!r} is {x.dtype}{list(x.shape)}, "
            f"but must be float32{list(published_shape)}"
        )
    if not np.isfinite(x).all():
        raise ValueError(f"{path}: the array {name!r} holds numbers that are not finite")
    return x.reshape(shape)
