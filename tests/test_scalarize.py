"""Array code as scalar code gives what `vmap` gives, for every rule, and names what it has not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fastrl.kernels import prng
from fastrl.kernels.fused_rollout.layout import Layout
from fastrl.kernels.scalarize import UnsupportedError, scalarize

B = 5
X = 3 * jax.random.normal(prng.key(3), (B, 3, 4))
I = jnp.array([-1, 0, 1, 2, 7])  # also out of bounds  # noqa: E741
KEYS = jax.random.split(prng.key(1), B)
TIES = np.array([-1.5, -0.5, 0.5, 1.5, 2.5, 0.49999997], np.float32)

# f(x [3, 4], index [], key, truth [])
CASES = {
    "slices": lambda x, i, k, b: (x[1:, ::2], x.T.reshape(2, 6), jnp.flip(x, 0), jnp.roll(x, 1)),
    "stacks": lambda x, i, k, b: (jnp.stack([x, x], 1), jnp.append(x, x), jnp.split(x, 2, 1)),
    "padding": lambda x, i, k, b: jnp.pad(x, ((1, 0), (0, 2)), constant_values=7.0),
    "counting": lambda x, i, k, b: (jnp.arange(3) + i, jax.nn.one_hot(i, 3), i // 2, i % 3),
    "arithmetic": lambda x, i, k, b: (x**2, x**-1, jnp.sign(x), jax.nn.sigmoid(x), jax.nn.relu(x)),
    "types": lambda x, i, k, b: (x.astype(jnp.int8), x > 0, i.astype(jnp.uint32), ~b),
    "rounding": lambda x, i, k, b: (jnp.round(x), jnp.round(TIES), jax.lax.round(x + TIES[0])),
    "constants": lambda x, i, k, b: jnp.where(b, np.arange(3.0), np.ones(3)) + TIES[2:5],
    "reductions": lambda x, i, k, b: (
        x.max(0), x.min(), x.sum((0, 1)), x.prod(1), (x > 0).any(), (x > -1).all(1),
    ),
    "reductions of bits": lambda x, i, k, b: [
        jax.lax.reduce(jax.random.bits(k, (4, 2)), np.uint32(start), combine, (1,))
        for start, combine in (
            (0, jax.lax.bitwise_xor), (0, jax.lax.bitwise_or), (2**32 - 1, jax.lax.bitwise_and),
        )
    ],
    "running": lambda x, i, k, b: (jnp.cumsum(x, 1), jax.lax.cummax(x, 1, reverse=True)),
    "extremes": lambda x, i, k, b: (jnp.argmax(x, 0), jnp.argmin(x[0]), jnp.argmax(x > 0, 1)),
    "products": lambda x, i, k, b: (
        x @ x.T, x @ np.arange(8.0, dtype=np.float32).reshape(4, 2), x[0] @ x[1],
        jnp.tensordot(x, x, 2),
    ),
    "reading at an index": lambda x, i, k, b: (x[i], x[i, i], jnp.take(x, i, axis=1)),
    "reading, clipped": lambda x, i, k, b: x.at[:, i].get(mode="clip"),
    "writing at an index": lambda x, i, k, b: (
        x.at[i].set(0.0), x.at[i, 1].set(3.0), x.at[:, i].add(x[:, 0]),
        x.at[i].set(9.0, mode="clip"),
    ),
    "writing a window": lambda x, i, k, b: jax.lax.dynamic_update_slice(x, x[:2, :2], (i, 1)),
    "branches": lambda x, i, k, b: (
        jax.lax.cond(b, lambda x: x * 2, lambda x: x - 1, x),
        jax.lax.switch(i, [lambda x: x * 2, lambda x: x - 1, lambda x: x * 0], x),
    ),
    "loops": lambda x, i, k, b: (
        jax.lax.fori_loop(0, 3, lambda j, c: c + x[j % 2], x[0]),
        jax.lax.scan(lambda c, row: (c + row.sum(), c), 0.0, x, reverse=True),
    ),
    "draws": lambda x, i, k, b: (
        jax.random.normal(k, (2, 2)), jax.random.bernoulli(k, 0.3, (3,)),
        jax.random.categorical(k, x[0]), jax.random.randint(k, (), 0, 5),
        jax.random.bits(k, (3,), jnp.uint8),
    ),
    "keys": lambda x, i, k, b: (
        jax.random.fold_in(k, i), jnp.where(b, k, jax.random.split(k)[1]),
        jax.vmap(lambda k: jax.random.uniform(k, (2,)))(jax.random.split(k, 3)),
        jax.random.wrap_key_data(jax.random.key_data(k), impl=prng.HASH32),
    ),
}  # fmt: skip


def _plain(x):
    return np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x)


@pytest.mark.parametrize("name", CASES)
def test_a_function_on_cells_is_the_function_under_vmap(name):
    f, arguments = CASES[name], (X, I, KEYS, I > 0)
    example = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), arguments)
    on_cells, shape = scalarize(f, *example)
    before, after = Layout(example), Layout(shape)

    def both(*arguments):
        packed = before.pack(arguments)
        cells = before.cells(lambda leaf, row: packed[leaf][row])
        results = after.rows(on_cells(*cells), (B,))
        return after.unpack([jnp.stack(rows) for rows in results]), jax.vmap(f)(*arguments)

    got, want = jax.jit(both)(*arguments)
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(_plain(a), _plain(b), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize(
    ("f", "primitive"),
    [
        (lambda x: jnp.sort(x[0]), "sort"),
        (lambda x: x[np.array([0, 2])], "gather"),
        (lambda x: jax.lax.while_loop(lambda c: c.sum() < 9, lambda c: c + 1, x), "while"),
        (lambda x: jax.lax.fori_loop(0, 1000, lambda j, c: c + j, x), "scan"),
        (lambda x: jax.lax.cond(x[0, 0] > 0, lambda: jnp.linalg.qr(x)[1], lambda: x[:3]), "qr"),
    ],
)  # fmt: skip
def test_what_has_no_scalar_form_is_named_with_its_line(f, primitive):
    with pytest.raises(UnsupportedError, match=r"test_scalarize\.py:\d+") as raised:
        scalarize(f, jax.ShapeDtypeStruct((3, 4), np.float32))
    assert raised.value.primitive == primitive


def test_keys_of_another_kind_are_refused():
    with pytest.raises(UnsupportedError, match="not hash32"):
        scalarize(jax.random.uniform, jax.random.key(0, impl="threefry2x32"))
