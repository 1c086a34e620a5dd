"""Arrays by name in a folder: by orbax, or a few small ones plainly, as one file.

Both are read only as the types and shapes that are asked for, and run no code.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

_ORBAX, _PLAIN = "arrays", "arrays.npz"


def write(folder: Path, arrays: Mapping[str, np.ndarray], plain: bool = False) -> None:
    """Writes `arrays`, none of them without entries, which orbax refuses.

    `plain` does without orbax, whose import costs more than all else about a few numbers.
    """
    if not plain:
        _checkpointer().save(folder.absolute() / _ORBAX, dict(arrays))
        return
    # As bytes: types that NumPy itself does not have (bfloat16) survive too.
    files = {f"{name}.bytes": np.frombuffer(a.tobytes(), np.uint8) for name, a in arrays.items()}
    np.savez(folder / _PLAIN, **files)  # type: ignore[arg-type] - names are names of files


def read(folder: Path, like: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of the names in `like`, which has their types and shapes.

    Raises whatever a damaged file makes the readers say.
    """
    if (folder / _PLAIN).exists():
        with np.load(folder / _PLAIN, allow_pickle=False) as files:
            return {k: files[f"{k}.bytes"].view(x.dtype).reshape(x.shape) for k, x in like.items()}
    import orbax.checkpoint as ocp

    args = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in like}
    arrays = _checkpointer().restore((folder / _ORBAX).absolute(), restore_args=args)
    return {name: np.asarray(arrays[name]) for name in like}


@functools.cache
def _checkpointer() -> Any:
    import orbax.checkpoint as ocp

    return ocp.PyTreeCheckpointer()
