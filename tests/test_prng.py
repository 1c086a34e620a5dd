"""The engine's keys: streams that pass for random, whichever way keys are made from keys."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import randomness
from jax.sharding import NamedSharding, PartitionSpec
from scipy import stats

from fastrl import sharding
from fastrl.kernels import prng

N = 2**20
GOLDEN_KEYS = [
    [2926543089, 2703108842],
    [1194545296, 1029984632],
    [3845635939, 1119394976],
    [2083503769, 939858323],
]
GOLDEN_WORDS = [3592546125, 3698994570, 2610578459]
SMALLEST = 1e-6  # of some 300 p-values; the draws are fixed, so this never fails by chance


def _one_word(keys):
    return jax.vmap(lambda k: jax.random.bits(k, (), jnp.uint32))(keys)


def _seeds(n):
    return prng.engine_key(jax.vmap(jax.random.key)(jnp.arange(n, dtype=jnp.uint32)))


def _chain(key):
    """As a learner draws: split the state's key, draw four words from the other one."""

    def step(key, _):
        key, draw_key = jax.random.split(key)
        return key, jax.random.bits(draw_key, (4,), jnp.uint32)

    return jax.lax.scan(step, key, None, length=N // 4)[1]


def _rollout(key):
    """As environments draw: a key per step, split into one per environment."""
    step_keys = jax.random.split(key, N // 1024)
    env_keys = jax.vmap(lambda k: jax.random.split(k, 256))(step_keys)
    return jax.vmap(jax.vmap(lambda k: jax.random.bits(k, (4,), jnp.uint32)))(env_keys)


def _family(key):
    """Draws of a key beside those of its children and of keys folded from it."""
    index = jnp.arange(N // 4)
    children = jax.random.split(key, N // 4)
    folded = jax.vmap(jax.random.fold_in, (None, 0))(key, index)
    own = jax.random.bits(key, (N // 4,), jnp.uint32)
    raw = jax.random.key_data(children)[:, 0]
    return jnp.stack([own, _one_word(children), _one_word(folded), raw], axis=1)


def _few_draws_of_many_seeds(_):
    keys = _seeds(N // 4)
    first, second = (jax.vmap(lambda k, i=i: jax.random.split(k)[i])(keys) for i in (0, 1))
    folded = jax.vmap(jax.random.fold_in, (0, None))(keys, 0)
    return jnp.stack([_one_word(k) for k in (keys, first, second, folded)], axis=1)


STREAMS = {
    "one key": lambda key: jax.random.bits(key, (N,), jnp.uint32),
    "a column": lambda key: jax.random.bits(key, (2**12, 2**8), jnp.uint32).T,
    "successive seeds": lambda key: _one_word(_seeds(N)),
    "family of successive seeds": _few_draws_of_many_seeds,
    "children": lambda key: _one_word(jax.random.split(key, N)),
    "child keys": lambda key: jax.random.key_data(jax.random.split(key, N // 2)),
    "folded": lambda key: _one_word(
        jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(N, dtype=jnp.uint32))
    ),
    "chain": _chain,
    "rollout": _rollout,
    "one environment over time": lambda key: _rollout(key).transpose(1, 0, 2),
    "parent, child, folded": _family,
}


@pytest.mark.parametrize("name", STREAMS)
def test_streams_look_random(name):
    """Fails if draws depend on each other within a stream, or streams on their neighbours."""
    words = np.asarray(jax.jit(STREAMS[name])(prng.key(7))).ravel()
    p = randomness.p_values(words)
    assert min(p.values()) > SMALLEST, {k: v for k, v in p.items() if v <= SMALLEST}


@pytest.mark.parametrize(
    ("bad", "test"),
    [
        (lambda n: prng.mix(n), "collisions"),  # a bijection of the counter
        (lambda n: n * np.uint32(1664525) + np.uint32(1013904223), "serial_pairs low 1"),
        (lambda n: prng.mix(n // 2 * np.uint32(2654435761)) ^ (n & 1), "lagged_bits 1"),
    ],
)
def test_battery_finds_flaws(bad, test):
    """A battery that passes everything would prove nothing."""
    words = np.asarray(bad(jnp.arange(N, dtype=jnp.uint32)))
    p = randomness.p_values(words)
    assert min(v for k, v in p.items() if k.startswith(test)) < SMALLEST


def _changed(words, changed):
    """Share of the cases in which each output bit flips: `[.., 32]` from words `[cases, ..]`."""
    flips = words ^ changed
    return np.stack([((flips >> np.uint32(i)) & np.uint32(1)).mean(0) for i in range(32)], -1)


@pytest.mark.parametrize("use", ["_DRAW", "_SPLIT", "_FOLD"])
def test_every_bit_of_key_and_counter_flips_half_of_the_output(use):
    """Similar keys (of successive seeds, say) or counters would give similar numbers."""
    cases, rng = 4096, np.random.default_rng(0)
    inputs = rng.integers(0, 2**32, (cases, 3), dtype=np.uint32)  # both key words, the counter
    inputs[:, 2] >>= 8

    @jax.jit
    @jax.vmap
    def output(x):
        return jnp.stack(prng._words(x[:2], x[2], getattr(prng, use)))

    base, shares = np.asarray(output(inputs)), []
    for bit in range(96):
        flip = np.zeros(3, np.uint32)
        flip[bit // 32] = 1 << bit % 32
        shares.append(_changed(base, np.asarray(output(inputs ^ flip))))
    score = np.abs(np.array(shares) - 0.5) / np.sqrt(0.25 / cases)
    assert score.max() < 5.5  # of 6,144 binomial scores


def test_streams_of_different_keys_are_uncorrelated():
    """Environments, seeds of a sweep, and a learner and its evaluation use keys side by side."""
    key, n = prng.key(100), 2**14
    children = jax.random.split(key, 16)
    folded = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(16))
    grandchildren = jax.vmap(lambda k: jax.random.split(k)[0])(children)
    keys = jnp.concatenate([_seeds(16), children, folded, grandchildren, key[None]])
    drawn = jax.vmap(lambda k: jax.random.uniform(k, (n,)))(keys)
    for x in (np.asarray(drawn), np.asarray(drawn * 2**12 % 1)):  # high bits, low bits
        correlation = np.corrcoef(x) - np.eye(len(keys))
        assert np.abs(correlation).max() * np.sqrt(n) < 5.5  # of 2,080 pairs
    words = np.unique(jax.random.key_data(keys).view(np.uint32).reshape(-1, 2), axis=0)
    assert len(words) == len(keys)


def test_no_two_children_of_a_key_are_equal():
    """Equal children would make two environments play the same episodes for ever."""
    for keys in (jax.random.split(prng.key(0), N), _seeds(N)):
        words = np.asarray(jax.random.key_data(keys)).astype(np.uint64)
        assert len(np.unique(words[:, 0] << np.uint64(32) | words[:, 1])) == N


@pytest.mark.parametrize("width", [8, 16, 32, 64])
def test_all_widths_of_integers(width):
    with jax.enable_x64(True):
        x = np.asarray(jax.random.bits(prng.key(1), (2**18,), f"uint{width}"))
    assert x.dtype == np.dtype(f"uint{width}")
    as_bytes = x.view(np.uint8).reshape(len(x), -1)
    for lane in as_bytes.T:
        assert randomness.chi_square(np.bincount(lane, minlength=256), len(x) / 256) > 1e-4
    if width == 64:
        p = randomness.p_values(x.view(np.uint32))
        assert min(p.values()) > SMALLEST, p


@pytest.mark.parametrize(
    ("name", "cdf"),
    [
        ("uniform", stats.uniform.cdf),
        ("normal", stats.norm.cdf),
        ("exponential", stats.expon.cdf),
        ("gumbel", stats.gumbel_r.cdf),
    ],
)
def test_distributions(name, cdf):
    """`jax.random` builds these on our bits; a lost or repeated bit bends them."""
    x = np.asarray(getattr(jax.random, name)(prng.key(2), (2**17,)), np.float64)
    assert stats.kstest(x, cdf).pvalue > 1e-4
    assert abs(np.corrcoef(x[:-1], x[1:])[0, 1]) * np.sqrt(len(x)) < 5


def test_categorical_and_integers():
    p = np.array([0.5, 0.25, 0.15, 0.1])
    x = jax.random.categorical(prng.key(4), jnp.log(p), shape=(2**16,))
    assert randomness.chi_square(np.bincount(x, minlength=4), p * x.size) > 1e-4
    x = jax.random.randint(prng.key(5), (2**16,), -3, 4)
    assert randomness.chi_square(np.bincount(x + 3, minlength=7), x.size / 7) > 1e-4


def test_same_numbers_under_jit_vmap_and_in_other_shapes():
    """A result must not depend on how environments are batched."""
    key = prng.key(6)

    def same(a, b):
        a, b = (jax.random.key_data(x) if x.dtype == key.dtype else x for x in (a, b))
        np.testing.assert_array_equal(a, b)

    keys = jax.random.split(key, 12)
    same(jax.random.split(key, 5), keys[:5])
    same(jax.random.split(key, (3, 4)).reshape(12), keys)
    same(jax.jit(lambda k: jax.random.split(k, 12))(key), keys)
    same(jax.vmap(jax.random.split)(keys)[3], jax.random.split(keys[3]))
    same(jax.random.bits(key, (3, 4)).ravel(), jax.random.bits(key, (20,))[:12])
    same(_one_word(keys)[7], jax.random.bits(keys[7], (), jnp.uint32))
    folded = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(4))
    same(folded[2], jax.random.fold_in(key, 2))


def test_same_numbers_on_several_devices():
    """Sharded keys and draws are those of one device."""
    mesh = sharding.mesh(4)
    split = jax.jit(
        lambda key: _one_word(jax.random.split(key, 64)),
        out_shardings=NamedSharding(mesh, PartitionSpec(sharding.AXIS)),
    )
    expected = _one_word(jax.random.split(prng.key(8), 64))
    np.testing.assert_array_equal(split(prng.key(8)), expected)


def test_numbers_never_change():
    """Another hash would change every recorded result: raise the version and say so."""
    key = prng.key(0)
    left, right = jax.random.split(key)
    seen = [jax.random.key_data(k).tolist() for k in (key, left, right, jax.random.fold_in(key, 1))]
    assert seen == GOLDEN_KEYS
    assert jax.random.bits(key, (3,), jnp.uint32).tolist() == GOLDEN_WORDS


def test_engine_keys_of_other_keys():
    """Seeds and JAX's own keys lead to the same engine keys; these stay as they are."""

    def same(a, b):
        return jax.random.key_impl(a) == prng.HASH32 and bool((a == b).all())

    key = prng.key(9)
    assert same(prng.engine_key(jax.random.key(9)), key)
    assert prng.engine_key(key) is key
    assert same(jax.jit(prng.engine_key)(jax.random.key(9)), key)
    batch = jax.random.split(jax.random.key(1), (2, 3))
    one_by_one = jax.vmap(jax.vmap(prng.engine_key))(batch)
    assert same(prng.engine_key(batch), one_by_one)
    words = jax.random.key_data(key)  # as a checkpoint keeps it
    assert same(jax.random.wrap_key_data(words, impl=prng.HASH32), key)
    for raw in (np.zeros(2, np.uint32), 0, None):
        with pytest.raises(TypeError, match=r"typed key such as jax\.random\.key\(0\)"):
            prng.engine_key(raw)  # type: ignore[arg-type]


def test_threefry_by_a_switch(monkeypatch):
    """JAX's own keys are for those who need its numbers, or distrust ours."""
    monkeypatch.setenv("FASTRL_PRNG", "threefry2x32")
    assert jax.random.key_impl(prng.key(0)) == "threefry2x32"
    assert jax.random.key_impl(prng.engine_key(jax.random.key(0))) == "threefry2x32"
    monkeypatch.setenv("FASTRL_PRNG", "fastest")
    with pytest.raises(ValueError, match=r"'fastest'.*hash32.*threefry2x32"):
        prng.key(0)


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5, "7", None, True])
def test_bad_seeds(seed):
    with pytest.raises(ValueError, match="seed="):
        prng.key(seed)
