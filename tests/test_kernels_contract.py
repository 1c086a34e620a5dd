"""What holds for every kernel, in every implementation that can run here.

`CASES` is the list: an operation joins by a line, with inputs and a check of its results in
float64.  An operation made by `op` that has no line fails `test_every_operation_has_a_case`.
"""

import dataclasses
import functools
import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastrl.kernels
from fastrl.kernels import _dispatch, adam, categorical, permutation, prng, sum_tree


@dataclasses.dataclass(frozen=True)
class Case:
    """`inputs(rng)` are arguments, of the same shapes for every `rng`; `check(result, *arguments)`
    asserts in float64."""

    name: str
    op: Callable[..., Any]
    inputs: Callable[[np.random.Generator], tuple[Any, ...]]
    check: Callable[..., None]
    static: dict[str, Any] = dataclasses.field(default_factory=dict)

    def implementations(self) -> tuple[str, ...]:
        has = getattr(self.op, "implementations", ())
        on_gpu = jax.default_backend() == "gpu"
        return tuple(i for i in has if i != {True: "numba", False: "pallas"}[on_gpu]) or ("",)

    def function(self, impl: str) -> Callable[..., Any]:
        return functools.partial(self.op, **self.static, **({"impl": impl} if impl else {}))


TREE = sum_tree.init(70)


def tree_inputs(rng):
    nodes = np.array(TREE.nodes)
    return nodes, rng.integers(0, 70, 12).astype(np.int32), rng.random(12).astype(np.float32)


def check_write(result, nodes, indices, priorities):
    leaves = np.zeros(72)
    for i, p in zip(indices, priorities, strict=True):
        leaves[i] = p
    rows = [leaves.reshape(-1, 8)]
    while len(rows[0]) > 1:
        sums = rows[0].sum(1)
        rows.insert(0, np.pad(sums, (0, -len(sums) % 8)).reshape(-1, 8))
    np.testing.assert_allclose(result, np.concatenate(rows), rtol=1e-6)


def search_inputs(rng):
    leaves = rng.random(70) * (rng.random(70) < 0.5)
    tree = jax.jit(sum_tree.update)(TREE, jnp.arange(70), jnp.asarray(leaves, jnp.float32))
    return np.array(tree.nodes), (rng.random(20) * leaves.sum()).astype(np.float32)


def check_search(result, nodes, mass):
    p = nodes[-9:].reshape(-1).astype(np.float64)  # the leaves
    found, values = result
    np.testing.assert_array_equal(p[found], values)
    assert (p[found] > 0).all()
    after, mass = np.cumsum(p)[found], np.minimum(mass, p.sum())
    assert (after >= mass - 1e-5).all()
    assert (after - p[found] <= mass + 1e-5).all()


def draw_inputs(rng):
    logits = rng.normal(size=(6, 40)).astype(np.float32)
    logits[rng.random((6, 40)) < 0.3] = -np.inf
    return rng.random(6).astype(np.float32), logits


def check_draw(result, uniform, logits):
    p = np.exp(logits.astype(np.float64))
    upto = np.cumsum(p / p.sum(-1, keepdims=True), -1)
    for i, u, row in zip(result, uniform, upto, strict=True):
        assert row[i] >= u - 1e-6
        assert (row[i - 1] if i else 0.0) <= u + 1e-6


def key_input(rng):
    return (prng.key(int(rng.integers(2**31))),)


def check_permutation(result, _):
    np.testing.assert_array_equal(np.sort(result), np.arange(3 * 67))


ADAM = {"decays": (0.9, 0.999), "epsilon": 1e-5}


def adam_inputs(rng):
    """A gradient that is clipped, or is not: of every third start."""
    draw = lambda n, scale=1.0: np.float32(rng.normal(scale=scale, size=n))  # noqa: E731
    scale = rng.choice([1e-3, 1.0, 10.0])
    params, gradients = ((draw((7, 10), x), draw(1, x), draw(9, x)) for x in (1.0, scale))
    numbers = np.array([0.02, 1.5, 0.5], np.float32)
    return draw(80), np.square(draw(80)), params, gradients, numbers


def check_adam(result, mean, square, params, gradients, numbers):
    rate, of_square, max_norm = numbers.astype(np.float64)
    whole = lambda leaves: np.concatenate([x.ravel() for x in leaves]).astype(np.float64)  # noqa: E731
    g, p = whole(gradients), whole(params)
    g *= min(1.0, max_norm / np.sqrt(np.sum(g**2)))
    mean = 0.9 * mean.astype(np.float64) + 0.1 * g
    square = 0.999 * square.astype(np.float64) + 0.001 * g**2
    p -= rate * mean / (np.sqrt(of_square * square) + 1e-5)
    for x, y in zip((*result[:2], whole(result[2])), (mean, square, p), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


CASES = [
    Case("adam.step", adam.step, adam_inputs, check_adam, ADAM),
    Case("sum_tree.write", sum_tree.write, tree_inputs, check_write, {"capacity": 70}),
    Case("sum_tree.search", sum_tree.search, search_inputs, check_search, {"capacity": 70}),
    Case("categorical.draw", categorical.draw, draw_inputs, check_draw),
    Case("permutation", permutation.permutation, key_input, check_permutation, {"a": 3, "b": 67}),
]  # fmt: skip

EACH = [pytest.param(c, i, id=f"{c.name} {i}".strip()) for c in CASES for i in c.implementations()]


def inputs(case: Case, count: int = 1) -> list[tuple[Any, ...]]:
    return [jax.tree.map(jnp.asarray, case.inputs(np.random.default_rng(s))) for s in range(count)]


def check(case: Case, result: Any, arguments: Any) -> None:
    plain = lambda x: x if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else np.asarray(x)  # noqa: E731
    case.check(jax.tree.map(plain, result), *jax.tree.map(plain, arguments))


def assert_same(result: Any, expected: Any) -> None:
    """Integers and flags to the bit, floats to their rounding."""
    for x, y in zip(jax.tree.leaves(result), jax.tree.leaves(expected), strict=True):
        assert x.dtype == y.dtype
        if jnp.issubdtype(x.dtype, jnp.floating):
            np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)
        else:
            np.testing.assert_array_equal(x, y)


def stack(rows: list[Any]) -> Any:
    return jax.tree.map(lambda *x: jnp.stack(x), *rows)


def row(batch: Any, i: int) -> Any:
    return jax.tree.map(lambda x: x[i], batch)


@pytest.mark.parametrize(("case", "impl"), EACH)
def test_values(case, impl):
    """Against the oracle, jitted and not, and the reference."""
    for arguments in inputs(case, 3):
        result = jax.jit(case.function(impl))(*arguments)
        check(case, result, arguments)
        assert_same(result, jax.jit(case.function("ref" if impl else ""))(*arguments))
    (arguments,) = inputs(case)
    check(case, case.function(impl)(*arguments), arguments)


@pytest.mark.parametrize(("case", "impl"), EACH)
def test_under_vmap(case, impl):
    """Each member as alone, in one and in two batch axes; with the first argument shared too."""
    several = inputs(case, 4)
    f, batch = case.function(impl), stack(several)
    together = jax.jit(jax.vmap(f))(*batch)
    for i, arguments in enumerate(several):
        check(case, row(together, i), arguments)
    square = jax.tree.map(lambda x: x.reshape(2, 2, *x.shape[1:]), batch)
    twice = jax.jit(jax.vmap(jax.vmap(f)))(*square)
    assert_same(jax.tree.map(lambda x: x.reshape(4, *x.shape[2:]), twice), together)
    if len(batch) > 1:
        shared = (several[0][0], *batch[1:])
        axes = (None, *(0 for _ in batch[1:]))
        result = jax.jit(jax.vmap(f, axes))(*shared)
        for i in range(4):
            check(case, row(result, i), (several[0][0], *several[i][1:]))


@pytest.mark.parametrize(("case", "impl"), EACH)
def test_under_scan(case, impl):
    several = inputs(case, 3)
    step = lambda c, arguments: (c + 1, case.function(impl)(*arguments))  # noqa: E731
    count, results = jax.jit(lambda x: jax.lax.scan(step, 0, x))(stack(several))
    assert count == 3
    for i, arguments in enumerate(several):
        check(case, row(results, i), arguments)


@pytest.mark.parametrize(("case", "impl"), [c for c in EACH if c.values[1]])
def test_under_grad(case, impl):
    """The derivative is that of the reference, forward and reverse, also where it is zero."""
    (arguments,) = inputs(case)
    floats = [jnp.issubdtype(x.dtype, jnp.floating) for x in jax.tree.leaves(arguments)]
    leaves, inside = jax.tree.flatten(arguments)
    at = [x for x, is_float in zip(leaves, floats, strict=True) if is_float]

    def of_floats(f, values):
        rest = iter(values)
        full = [next(rest) if d else x for x, d in zip(leaves, floats, strict=True)]
        results = jax.tree.leaves(f(*jax.tree.unflatten(inside, full)))
        return (
            sum(jnp.sum(jnp.sin(x)) for x in results if jnp.issubdtype(x.dtype, jnp.floating)) + 0.0
        )

    fast, ref = case.function(impl), functools.partial(case.op.__wrapped__, **case.static)
    assert_same(*(jax.jit(jax.grad(functools.partial(of_floats, f)))(at) for f in (fast, ref)))
    tangents = [jnp.ones_like(x) for x in at]
    assert_same(
        *(jax.jvp(functools.partial(of_floats, f), (at,), (tangents,))[1] for f in (fast, ref))
    )


def test_every_operation_has_a_case():
    """A kernel that nobody listed would be tested nowhere."""
    for module in pkgutil.iter_modules(fastrl.kernels.__path__, "fastrl.kernels."):
        if not module.name.startswith("fastrl.kernels._"):  # these have none, and import numba
            importlib.import_module(module.name)
    assert sorted(set(_dispatch.ops) - {c.name for c in CASES}) == []
