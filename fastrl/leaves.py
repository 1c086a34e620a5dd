"""The leaves of a pytree by name, and typed keys as plain data, for files and messages."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fastrl.types import PyTree


def named(tree: PyTree) -> dict[str, Any]:
    """The leaves of `tree` by name, in order: `params.Dense_0.kernel`."""
    leaves: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        name = jax.tree_util.keystr(path, simple=True, separator=".") or "value"
        while name in leaves:  # a dict key with a dot in it
            name += "'"
        leaves[name] = leaf
    return leaves


def words(leaf: Any) -> str:
    """Type and shape of an array, as in `float32[64,4]`; of keys `key<h32>[]`."""
    return f"{leaf.dtype.name}[{','.join(map(str, leaf.shape))}]"


def differences(a: dict[str, str], b: dict[str, str]) -> list[tuple[str, str, str]]:
    """Where two records of names and words differ: (name, in a, in b), "missing" where it is."""
    return [
        (name, a.get(name, "missing"), b.get(name, "missing"))
        for name in [*a, *(n for n in b if n not in a)]
        if a.get(name) != b.get(name)
    ]


def described(tree: PyTree) -> dict[str, str]:
    """Name -> words of the leaves of `tree`."""
    return {name: words(leaf) for name, leaf in named(tree).items()}


def number_of_bytes(tree: PyTree) -> int:
    """What the arrays of `tree` (or of these shapes) take in memory."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def is_key(x: Any) -> bool:
    """Whether `x` is an array of typed keys."""
    return jnp.issubdtype(getattr(x, "dtype", np.dtype(bool)), jax.dtypes.prng_key)


def without_keys(tree: PyTree) -> PyTree:
    """`tree` with the uint32 data of typed keys in their place."""
    return jax.tree.map(lambda x: jax.random.key_data(x) if is_key(x) else x, tree)


def with_keys(tree: PyTree, target: PyTree) -> PyTree:
    """The inverse of `without_keys`: keys of the implementations in `target` (or its shapes)."""

    def wrap(x: Any, like: Any) -> Any:
        if not is_key(like):
            return x
        found: list[Any] = []
        jax.eval_shape(lambda k: found.append(jax.random.key_impl(k)), like)
        return jax.random.wrap_key_data(jnp.asarray(x), impl=found[0])

    return jax.tree.map(wrap, tree, target)
