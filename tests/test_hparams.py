"""What users pass becomes arrays of fixed types, or an error that names the field."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fastrl.hparams import as_arrays, conform


class HParams(NamedTuple):
    rate: Any = 0.5
    count: Any = 3
    flag: Any = False
    objective: Any = ()


class Task(NamedTuple):
    picture: Any
    weights: Any
    note: Any = None


@pytest.mark.parametrize("rate", [1, 1.0, np.float64(1), np.int64(1), jnp.int32(1), jnp.float16(1)])
def test_numbers_of_any_type_become_the_same_type(rate):
    """Each other type would be another compilation, a weak type too."""
    given = conform(HParams(rate=rate), HParams())
    assert given.rate.aval == conform(None, HParams()).rate.aval
    assert not given.rate.weak_type
    assert [x.dtype for x in jax.tree.leaves(given)] == [jnp.float32, jnp.int32, jnp.bool_]


def test_integral_floats_pass_for_integers():
    assert conform(HParams(count=200.0), HParams()).count == 200


def test_a_traced_float_for_an_integer_is_named():
    """An error about the error: a traced number has no value to print."""
    with pytest.raises(TypeError, match="count"):
        jax.jit(lambda count: conform(HParams(count=count), HParams()))(2.5)


def test_small_types_keys_and_none_stay():
    """A data set of pictures must not grow fourfold."""
    task = Task(np.zeros((2, 2), np.uint8), jnp.ones(2, jnp.bfloat16))
    given = as_arrays(task)
    assert (given.picture.dtype, given.weights.dtype, given.note) == (jnp.uint8, jnp.bfloat16, None)
    key = jax.random.key(0)
    assert as_arrays(key) is key
    assert as_arrays(np.arange(2)).dtype == jnp.int32
    assert as_arrays(()) == ()


def test_traced_numbers_pass_through_vmap_and_grad():
    def f(rate: jax.Array) -> jax.Array:
        return conform(HParams(rate=rate), HParams()).rate ** 2

    np.testing.assert_allclose(jax.vmap(jax.grad(f))(jnp.arange(3.0)), [0, 2, 4])


def test_parameters_of_an_objective_need_no_default():
    given = conform(HParams(objective={"w": np.ones(3)}), HParams())
    assert given.objective["w"].shape == (3,)


@pytest.mark.parametrize(
    ("hparams", "message"),
    [
        (HParams(rate="fast"), "hparams.rate='fast': must be a number, not str"),
        (HParams(rate=None), "hparams.rate=None: needs one number such as the default, 0.5"),
        (HParams(rate=float("nan")), "hparams.rate=nan: NaN"),
        (HParams(rate=1j), "hparams.rate=1j: must be real"),
        (HParams(rate=1e300), r"hparams.rate=1e\+300: too large for float32"),
        (HParams(rate=True), "hparams.rate=True: must be of type float, not bool"),
        (HParams(rate=[0.1, 0.2]), r"hparams.rate=\[0.1, 0.2\]: needs one number"),
        (HParams(rate=jnp.ones(2)), r"hparams.rate has shape \(2,\).*vmap fastrl.run"),
        (HParams(rate=object()), "hparams.rate=<object.*must be a number, not object"),
        (HParams(count=2.5), "hparams.count=2.5: must be of type integer, not float"),
        (HParams(count=2**31), "hparams.count=2147483648: too large for int32"),
        (HParams(count=10**30), "hparams.count=10+: too large for int32"),
        (HParams(flag=1), "hparams.flag=1: must be of type bool, not integer"),
        ({"rate": 1.0}, r"hparams is a dict.*HParams\(\*\*hparams\)"),
        (0.5, "hparams is a float, not a .*HParams"),
        (HParams, "hparams is a type"),
    ],
)
def test_what_is_wrong_is_named(hparams, message):
    with pytest.raises((TypeError, ValueError), match=message):
        conform(hparams, HParams())


def test_nested_fields_are_named_by_path():
    with pytest.raises(ValueError, match=r"task\.weights\['a'\]=.*NaN"):
        as_arrays(Task(np.ones(2), {"a": np.array([1.0, np.nan])}), "task")
    with pytest.raises(TypeError, match=r"Task\.picture='x'"):
        as_arrays(Task("x", 1.0))
    big = jnp.full(5000, jnp.nan)
    with pytest.raises(ValueError, match=r"Task\.picture=.*NaN"):
        as_arrays(Task(big, 1.0))


def test_large_arrays_stay_on_the_device():
    """A data set that went to the host and back for a check would stall every start."""
    data = jnp.zeros(5000)
    assert as_arrays(data) is data
