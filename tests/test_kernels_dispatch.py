"""Which implementation runs, and that gradients are the reference's whichever does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fastrl.kernels import _dispatch
from fastrl.kernels._dispatch import Numba, op


@pytest.fixture(autouse=True)
def _forget_these_operations(monkeypatch):
    """The contract suite asks for a case of every operation that is left."""
    monkeypatch.setattr(_dispatch, "ops", dict(_dispatch.ops))
    monkeypatch.delenv("FASTRL_KERNELS", raising=False)


# Each implementation adds its own number, so that the value tells which one ran.
def shifted_square(tree, *, power):
    return {"out": tree["x"] ** power + 100.0}


def build(*, power):
    def numba_shifted_square(x, out):
        for i in range(len(x)):
            out[i] = x[i] ** power + 200.0

    return numba_shifted_square


def pallas(tree, *, power):
    return {"out": tree["x"] ** power + 300.0}


X = {"x": np.array([1.0, 2.0, 3.0], np.float32)}


def shift(f, **kwargs):
    return round(float(jax.jit(lambda x: f(x, power=2, **kwargs))(X)["out"][0]) - 1.0)


def test_auto_takes_numba_on_cpu_unless_it_is_not_preferred():
    assert shift(op(shifted_square, Numba(build))) == 200
    assert shift(op(shifted_square, Numba(build, preferred=False))) == 100
    assert shift(op(shifted_square)) == 100


def test_the_program_decides_by_platform():
    """Lowered for CUDA, the same traced function is the other one."""
    f = op(shifted_square, Numba(build), pallas)
    traced = jax.jit(lambda x: f(x, power=2)).trace(X)
    assert "3.000000e+02" in traced.lower(lowering_platforms=("cuda",)).as_text()
    assert "numba_shifted_square" in traced.lower(lowering_platforms=("cpu",)).as_text()
    tpu = traced.lower(lowering_platforms=("tpu",)).as_text()
    assert "1.000000e+02" in tpu
    assert "numba" not in tpu


def test_the_argument_and_the_environment(monkeypatch):
    f = op(shifted_square, Numba(build), pallas)
    assert [shift(f, impl=name) for name in ("ref", "numba", "pallas")] == [100, 200, 300]
    for name, value in (("ref", 100), ("numba", 200), ("pallas", 300), ("auto", 200), ("", 200)):
        monkeypatch.setenv("FASTRL_KERNELS", name)
        assert shift(f) == value
        assert shift(f, impl="ref") == 100  # the argument comes first
    monkeypatch.setenv("FASTRL_KERNELS", "pallas")
    assert shift(op(shifted_square, Numba(build))) == 200  # one that lacks it chooses itself


def test_unknown_names_are_named(monkeypatch):
    f = op(shifted_square, Numba(build))
    with pytest.raises(ValueError, match=r"impl='cuda': .*shifted_square has auto, ref, numba"):
        f(X, power=2, impl="cuda")
    with pytest.raises(ValueError, match="impl='pallas'"):
        f(X, power=2, impl="pallas")
    monkeypatch.setenv("FASTRL_KERNELS", "Numba")
    with pytest.raises(ValueError, match=r"FASTRL_KERNELS='Numba': choose one of auto, ref, numba"):
        f(X, power=2)


@pytest.mark.parametrize("impl", ["auto", "ref", "numba"])
def test_gradients_are_the_references(impl):
    """First and second derivatives, both modes, under jit, vmap and scan."""
    f = op(shifted_square, Numba(build))
    total = lambda x: f({"x": x}, power=3, impl=impl)["out"].sum()  # noqa: E731
    x = jnp.asarray(X["x"])
    np.testing.assert_allclose(jax.grad(total)(x), 3 * x**2, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(jax.grad(total))(x), 3 * x**2, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(jax.hessian(total))(x), jnp.diag(6 * x), rtol=1e-6)
    batch = jnp.stack([x, 2 * x])
    np.testing.assert_allclose(jax.vmap(jax.grad(total))(batch), 3 * batch**2, rtol=1e-6)

    def scanned(x):
        return jax.lax.scan(lambda c, row: (c + total(c * row), None), 1.0, x)[0]

    plain = lambda x: (x**3).sum() + {"auto": 600, "ref": 300, "numba": 600}[impl]  # noqa: E731

    def scanned_plain(x):
        return jax.lax.scan(lambda c, row: (c + plain(c * row), None), 1.0, x)[0]

    slope, expected = (jax.jit(jax.grad(g))(batch / 100) for g in (scanned, scanned_plain))
    np.testing.assert_allclose(slope, expected, rtol=1e-4)


def test_the_value_under_grad_is_the_one_without():
    """Else a loss would change by rounding when its gradient is asked for."""
    f = op(shifted_square, Numba(build))
    value, _ = jax.value_and_grad(lambda x: f({"x": x}, power=2)["out"].sum())(jnp.asarray(X["x"]))
    assert value == 14 + 600


def test_auto_leaves_dtypes_that_numba_lacks_to_the_reference():
    f = op(shifted_square, Numba(build))
    half = f({"x": jnp.ones(3, jnp.bfloat16)}, power=2)["out"]
    assert half.dtype == jnp.bfloat16
    assert float(half[0]) == 101
    with pytest.raises(TypeError, match="bfloat16"):
        f({"x": jnp.ones(3, jnp.bfloat16)}, power=2, impl="numba")


def test_calls_with_the_same_static_values_share_a_kernel(monkeypatch):
    """Else an eager loop would compile a kernel per call."""
    from fastrl.kernels import _numba_handler

    f = op(shifted_square, Numba(build))
    f(X, power=2)
    made = []
    monkeypatch.setattr(_numba_handler, "_handler", lambda *a: made.append(a))
    for _ in range(3):
        f(X, power=2)
    assert made == []
