"""What the kernels are measured against, where it is not a function of JAX: a binary sum tree.

As replay buffers in JAX usually have it: an array of `2 capacity`, where the children of node i are
2 i and 2 i + 1; `capacity` is a power of two.  Doubled indices are not looked after.
"""

import jax
import jax.numpy as jnp
import numpy as np


def init(priorities: jax.Array) -> jax.Array:
    """The tree `[2 capacity]` over `priorities` `[capacity]`."""
    nodes = [np.asarray(priorities, np.float32)]
    while len(nodes[0]) > 1:
        nodes.insert(0, nodes[0].reshape(-1, 2).sum(1))
    return jnp.asarray(np.concatenate([np.zeros(1, np.float32), *nodes]))


def update(tree: jax.Array, indices: jax.Array, priorities: jax.Array) -> jax.Array:
    """`tree` with `priorities` `[n]` at the leaves `indices` `[n]`."""
    capacity = len(tree) // 2
    node = indices + capacity
    tree = tree.at[node].set(priorities)
    for _ in range(capacity.bit_length() - 1):
        node = node // 2
        tree = tree.at[node].set(tree[2 * node] + tree[2 * node + 1])
    return tree


def sample(tree: jax.Array, key: jax.Array, n: int) -> jax.Array:
    """`n` leaves, one from each of `n` equal parts of the total."""
    capacity = len(tree) // 2
    mass = (jnp.arange(n) + jax.random.uniform(key, (n,))) / n * tree[1]
    node = jnp.ones(n, jnp.int32)
    for _ in range(capacity.bit_length() - 1):
        left = tree[2 * node]
        right = mass >= left
        node, mass = 2 * node + right, jnp.where(right, mass - left, mass)
    return node - capacity


def sample_with_priorities(tree: jax.Array, key: jax.Array, n: int) -> tuple[jax.Array, jax.Array]:
    """The same, and the leaves' priorities `[n]`, as importance weights need them.

    XLA cannot tell that they are read before the next update, and copies the tree in each step of a
    loop.
    """
    leaves = sample(tree, key, n)
    return leaves, tree[leaves + len(tree) // 2]


def sample_without(tree: jax.Array, key: jax.Array, n: int) -> tuple[jax.Array, jax.Array]:
    """The same without the priorities: less than `sum_tree.sample` does, and without a copy."""
    return sample(tree, key, n), jnp.zeros(n)
