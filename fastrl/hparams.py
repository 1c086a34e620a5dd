"""Numbers at the door: hyper-parameters and tasks become arrays of fixed types.

JAX compiles a program per type of its arguments.  `1`, `1.0` and `np.float64(1)` would each
cost a compilation and could even compute differently, so drivers pass what users give through
`as_arrays` (any pytree) or `conform` (against defaults, as for hyper-parameters) first.  The
program then sees float32 and int32 always, and another number compiles nothing.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from fastrl.leaves import is_key

# What a type is narrowed to; the others (uint8 pictures, bfloat16, bool ...) stay as they are.
_NARROW = {"float64": np.float32, "int64": np.int32, "uint64": np.uint32}
_SMALL = 4096  # entries of an array that are cheap to look at on the host


def as_arrays(tree: Any, name: str | None = None) -> Any:
    """`tree` with every leaf a strong-typed array: floats float32, integers int32.

    Smaller types stay, as do typed keys; traced leaves are cast inside the trace.  `name` is
    what messages call the tree, by default its type's name.

    Raises TypeError for a leaf that is no number (a string, a complex number, an object) and
    ValueError for NaN or a number outside the range of its type; both name the leaf.
    """
    name = type(tree).__name__ if name is None else name
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: _on_device(_array(name + jax.tree_util.keystr(path), leaf)), tree
    )


def conform(tree: Any, default: Any, name: str = "hparams") -> Any:
    """`tree` as arrays with the types of `default`, which stands in where `tree` is None.

    Where `default` has a number, so must `tree`: an integer becomes float32 where the default
    is a float.  Parts of `tree` that `default` lacks (parameters of an objective) pass.

    Raises TypeError or ValueError, with the name of the field, if `tree` has another type than
    `default`, if a field is missing, has another shape, or is no number of its kind.
    """
    if tree is None:
        return as_arrays(default, name)
    if not isinstance(tree, type(default)):
        expected = f"{type(default).__module__}.{type(default).__qualname__}"
        way_out = f"{type(default).__name__}(**{name})" if isinstance(tree, dict) else expected
        raise TypeError(f"{name} is a {type(tree).__name__}, not a {expected}: pass {way_out}")
    defaults, given = dict(_leaves(default)), dict(_leaves(tree))
    for path, value in defaults.items():
        if value is not None and given.get(path) is None:
            field = name + jax.tree_util.keystr(path)
            inside = [x for p, x in given.items() if p[: len(path)] == path]
            raise TypeError(
                f"{field}={_short(inside) if any(x is not None for x in inside) else None}: "
                f"needs one number such as the default, {_short(value)}"
            )
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: _like(name + jax.tree_util.keystr(path), leaf, defaults.get(path)),
        tree,
    )


def _leaves(tree: Any) -> list[tuple[Any, Any]]:
    return jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda x: x is None)[0]


def _on_device(array: Any) -> jax.Array:
    # not `jnp.asarray`, which compiles a program for every shape
    return array if isinstance(array, jax.Array) else jax.device_put(array, may_alias=False)


def _like(field: str, leaf: Any, default: Any) -> jax.Array:
    """`leaf` as an array of the kind (float, integer, bool) and shape of `default`."""
    array = _array(field, leaf)
    if default is None or is_key(array):
        return _on_device(array)
    like = _array(field, default)
    if array.shape != like.shape:
        many = " (for several values at once vmap fastrl.run)" if like.shape == () else ""
        raise ValueError(f"{field} has shape {array.shape}, not {like.shape}{many}")
    has, wants = _kind(array), _kind(like)
    widens = (has, wants) == ("integer", "float")
    narrows = (has, wants) == ("float", "integer") and _integral(array)
    if has != wants and not widens and not narrows:
        raise TypeError(f"{field}={_short(leaf)}: must be of type {wants}, not {has}")
    return _on_device(array.astype(like.dtype))


def _kind(array: Any) -> str:
    if array.dtype == jnp.bool_:
        return "bool"
    return "integer" if jnp.issubdtype(array.dtype, jnp.integer) else "float"


def _array(field: str, leaf: Any) -> Any:
    """`leaf` as a strong-typed array of a type that JAX computes with by default.

    Small ones are NumPy arrays: on those nothing compiles.
    """
    if is_key(leaf):
        return leaf
    if not isinstance(leaf, jax.Array) or (not isinstance(leaf, Tracer) and leaf.size <= _SMALL):
        leaf = _numpy(field, leaf)
    dtype = _NARROW.get(leaf.dtype.name, leaf.dtype)
    if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
        raise TypeError(f"{field}={_short(leaf)}: must be real, not complex")
    if isinstance(leaf, Tracer):
        return jax.lax.convert_element_type(leaf, dtype)
    _check_values(field, leaf, np.dtype(dtype))
    return leaf.astype(dtype)


def _numpy(field: str, leaf: Any) -> np.ndarray:
    try:
        array = np.asarray(leaf)
    except Exception as error:
        raise TypeError(f"{field}={_short(leaf)}: not an array of numbers ({error})") from None
    if array.dtype.kind == "O" and isinstance(leaf, int):
        raise ValueError(f"{field}={_short(leaf)}: too large for int32")
    if array.dtype.kind in "OSUMm":
        raise TypeError(f"{field}={_short(leaf)}: must be a number, not {type(leaf).__name__}")
    return array


def _check_values(field: str, leaf: Any, dtype: np.dtype) -> None:
    """Refuses NaN and what does not fit into `dtype`."""
    if leaf.size == 0:
        return
    if jnp.issubdtype(leaf.dtype, jnp.floating):
        if bool(np.isnan(leaf).any() if isinstance(leaf, np.ndarray) else jnp.isnan(leaf).any()):
            raise ValueError(f"{field}={_short(leaf)}: NaN is no number to start from")
        limit: Any = jnp.finfo(dtype).max
        fits = np.isinf(leaf) | (abs(leaf) <= limit) if dtype != leaf.dtype else np.True_
    elif dtype != leaf.dtype:
        info = np.iinfo(dtype)
        fits = (leaf >= info.min) & (leaf <= info.max)
    else:
        return
    if not bool(fits.all()):
        raise ValueError(f"{field}={_short(leaf)}: too large for {dtype.name}")


def _integral(array: Any) -> bool:
    """Whether a floating array holds integers; of a traced one that is not known."""
    if isinstance(array, Tracer):
        return False
    return bool(((array == array.round()) & (abs(array) < 2.0**31)).all())


def _short(value: Any) -> str:
    known = getattr(value, "shape", None) == () and not isinstance(value, Tracer)
    text = repr(value.item() if known else value)
    text = " ".join(text.split())
    return text if len(text) <= 60 else text[:57] + "..."
