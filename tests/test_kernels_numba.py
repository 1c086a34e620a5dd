"""Numba kernels inside compiled programs: batching, memory, names, errors, when numba is loaded."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fastrl.kernels import _numba_ffi
from fastrl.kernels._numba_ffi import numba_call

SCALE = 3.0


def weighted(x, weights, out, count):
    """out[i] = sum_j x[i, j] weights[j]; count[()] = how many rows."""
    for i in range(x.shape[0]):
        total = 0.0
        for j in range(x.shape[1]):
            total += x[i, j] * weights[j]
        out[i] = total
    count[()] = x.shape[0]


def add_at(_, where, memory):
    for i in where:
        memory[i] += 1


def scaled(x, out):
    for i in range(len(x)):
        out[i] = SCALE * x[i]


def run_weighted(x, weights):
    outputs = [jax.ShapeDtypeStruct(x.shape[:1], jnp.float32), jax.ShapeDtypeStruct((), jnp.int32)]
    return numba_call(weighted, outputs, x, weights)


def run_add_at(memory, where):
    return numba_call(add_at, [memory], memory, where, aliases={0: 0})[0]


def numbers(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def test_several_results_of_several_ranks():
    x, w = numbers(5, 3), numbers(3)
    for run in (run_weighted, jax.jit(run_weighted)):
        out, count = run(x, w)
        np.testing.assert_allclose(out, x @ w, rtol=1e-5)
        assert count == 5


def test_every_way_of_batching():
    """Shared operands are not copied per member, so each combination has its own addressing."""
    x, w = numbers(4, 2, 5, 3), numbers(4, 2, 3)
    cases = [
        ((0, 0), (0, 0), x, w, "abij,abj->abi"),
        ((0, None), (0, None), x, w[0, 0], "abij,j->abi"),
        ((None, 0), (None, 0), x[0, 0], w, "ij,abj->abi"),
        ((0, None), (0, 0), x, w[0], "abij,bj->abi"),  # outer axis of x only, inner of both
        ((0, 0), (0, None), x, w[:, 0], "abij,aj->abi"),
        ((1, 0), (0, 0), jnp.swapaxes(x, 0, 1), w, "baij,abj->abi"),
    ]
    for outer, inner, a, b, equation in cases:
        batched = jax.jit(jax.vmap(jax.vmap(run_weighted, inner), outer))
        out, count = batched(a, b)
        np.testing.assert_allclose(out, jnp.einsum(equation, a, b), rtol=1e-4, atol=1e-5)
        assert count.shape == (4, 2)
    empty, _ = jax.vmap(run_weighted)(x[:0, 0], w[:0, 0])
    assert empty.shape == (0, 5)


def test_writing_in_place():
    """The argument of an alias keeps its value for those who still read it, eager and in loops."""
    memory, where = jnp.zeros(4, jnp.int32), jnp.array([1, 3, 3])
    written = run_add_at(memory, where)
    np.testing.assert_array_equal(written, [0, 1, 0, 2])
    np.testing.assert_array_equal(memory, 0)

    def step(memory, where):
        return run_add_at(memory, where), memory[3]

    final, before = jax.jit(lambda m: jax.lax.scan(step, m, jnp.tile(where, (5, 1))))(memory)
    np.testing.assert_array_equal(final, [0, 5, 0, 10])
    np.testing.assert_array_equal(before, [0, 2, 4, 6, 8])
    several = jax.vmap(run_add_at, (None, 0))(memory, jnp.array([[0], [2]]))
    np.testing.assert_array_equal(several, [[1, 0, 0, 0], [0, 0, 1, 0]])


def test_a_loop_does_not_copy_what_is_written_in_place():
    """A copy of a replay's tree each step would cost more than the kernel."""
    memory = jnp.zeros(12345, jnp.int32)
    loop = jax.jit(lambda m: jax.lax.fori_loop(0, 9, lambda _, m: run_add_at(m, jnp.arange(3)), m))
    text = loop.lower(memory).compile().as_text() or ""
    assert "custom-call" in text
    body = text[: text.index("ENTRY")]
    assert not [line for line in body.splitlines() if "s32[12345]" in line and " copy(" in line]


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int32", "uint32", "float32"])
def test_dtypes(dtype):
    x = jnp.asarray([0, 1, 1, 0], dtype)
    out = numba_call(copy_reversed, [x], x)[0]
    np.testing.assert_array_equal(out, x[::-1])


def copy_reversed(x, out):
    for i in range(len(x)):
        out[i] = x[len(x) - 1 - i]


def test_names_follow_the_content():
    """A program from the persistent cache finds its kernel by name: same name, same kernel."""
    from fastrl.kernels import _numba_handler

    def with_constant(c):
        def kernel(x, out):
            out[()] = x[()] + c

        return kernel

    args, rets = (("<f4", 0),), (("<f4", 0),)
    one = _numba_handler.register(with_constant(1.0), args, rets)
    assert _numba_handler.register(with_constant(1.0), args, rets) == one
    assert _numba_handler.register(with_constant(2.0), args, rets) != one
    assert _numba_handler.register(with_constant(1.0), (("<f8", 0),), (("<f8", 0),)) != one
    assert "SCALE" in _numba_handler.describe(scaled)


@pytest.mark.slow
def test_the_persistent_cache_finds_the_right_kernel(tmp_path):
    """The second process takes the program from the cache, and the kernel of its own."""
    script = tmp_path / "kernel.py"
    script.write_text(
        "import sys, jax, jax.numpy as jnp, fastrl\n"
        "from fastrl.kernels._numba_ffi import numba_call\n"
        "FACTOR = float(sys.argv[1])\n"
        "def times(x, out):\n"
        "    for i in range(len(x)):\n"
        "        out[i] = FACTOR * x[i]\n"
        "x = jnp.arange(3.0)\n"
        "print(jax.jit(lambda x: numba_call(times, [x], x)[0])(x)[2])\n"
    )
    environment = os.environ | {"FASTRL_CACHE_DIR": str(tmp_path / "cache")}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    for factor in (2, 2, 5):
        run = subprocess.run(
            [sys.executable, str(script), str(factor)],
            capture_output=True, text=True, env=environment, check=False,
        )  # fmt: skip
        assert run.stdout.strip() == str(2.0 * factor), run.stderr


def test_numba_is_imported_when_a_program_is_lowered_and_not_before():
    """numba takes a second to import; tracing for shapes, or for a GPU, must not pay it."""
    code = (
        "import sys, jax, jax.numpy as jnp, fastrl\n"
        "from fastrl.kernels import sum_tree\n"
        "tree = sum_tree.init(100)\n"
        "find = jax.jit(lambda t, m: sum_tree.find(t, m, impl='numba'))\n"
        "traced = find.trace(tree, jnp.zeros(3))\n"
        "print('numba' in sys.modules)\n"
        "traced.lower()\n"
        "print('numba' in sys.modules)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stdout.split() == ["False", "True"], run.stderr


def test_other_platforms_are_refused_by_name():
    traced = jax.jit(run_weighted).trace(numbers(5, 3), numbers(3))
    with pytest.raises(RuntimeError, match=r"'weighted' runs on CPU only.*cuda"):
        traced.lower(lowering_platforms=("cuda",))


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.complex64])
def test_dtypes_that_numba_lacks_are_named(dtype):
    x = jnp.zeros(3, dtype)
    with pytest.raises(TypeError, match=rf"'scaled': argument 0 is {x.dtype}\[3\]"):
        numba_call(scaled, [jax.ShapeDtypeStruct((3,), jnp.float32)], x)
    with pytest.raises(TypeError, match=rf"'scaled': output 0 is {x.dtype}\[3\]"):
        numba_call(scaled, [x], jnp.zeros(3))
    assert not _numba_ffi.supports(x)


def test_keys_are_refused():
    with pytest.raises(TypeError, match=r"argument 0 is key<"):
        numba_call(scaled, [jax.ShapeDtypeStruct((3,), jnp.float32)], jax.random.key(0))


def test_aliases_that_do_not_fit_are_named():
    x, other = jnp.zeros(3), jax.ShapeDtypeStruct((4,), jnp.float32)
    with pytest.raises(ValueError, match=r"float32\[3\], cannot share memory.*float32\[4\]"):
        numba_call(scaled, [other], x, aliases={0: 0})
    with pytest.raises(ValueError, match="alias 1 -> 0, but there are 1 arguments and 1 outputs"):
        numba_call(scaled, [x], x, aliases={1: 0})
    with pytest.raises(ValueError, match="at least one output"):
        numba_call(scaled, [], x)


def test_without_numba_the_fallback_runs_and_says_why_once(monkeypatch):
    """No numba for a new Python or an odd processor must not stop a training."""
    monkeypatch.setitem(sys.modules, "fastrl.kernels._numba_handler", None)
    monkeypatch.delattr("fastrl.kernels._numba_handler", raising=False)
    monkeypatch.setattr(_numba_ffi, "_complaints", set())

    def twice(x):
        return numba_call(scaled, [x], x, fallback=lambda x: [2.0 * x])[0]

    x = numbers(4, 3)
    with pytest.warns(RuntimeWarning, match=r"reference runs instead \(scaled: .*Error"):
        out = jax.jit(twice)(x[0])
    np.testing.assert_allclose(out, 2 * x[0])
    np.testing.assert_allclose(jax.jit(jax.vmap(twice))(x), 2 * x)  # no second warning
    with pytest.raises(RuntimeError, match="no numba kernel for scaled"):
        jax.jit(lambda x: numba_call(scaled, [x], x)[0])(x[1])
