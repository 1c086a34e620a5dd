"""Returns against their definitions, written as sums over all later steps in float64 NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fastrl import returns

T, N = 12, 6


def _case(seed, per_step=False, share=None):
    """A rollout with random exclusive flags; `values[t + 1] = next_values[t]` within episodes."""
    rng = np.random.default_rng(seed)
    share = rng.choice([0.0, 0.1, 0.5, 1.0]) if share is None else share
    done = rng.random((T, N)) < share
    term = done & (rng.random((T, N)) < 0.5)
    values = rng.normal(size=(T, N))
    next_values = rng.normal(size=(T, N))
    next_values[:-1] = np.where(done[:-1], next_values[:-1], values[1:])

    def discount(low, high):
        return rng.uniform(low, high, (T, N) if per_step else ())

    return {
        "rewards": rng.normal(size=(T, N)),
        "values": values,
        "next_values": next_values,
        "terminated": term,
        "truncated": done & ~term,
        "rhos": np.exp(rng.normal(size=(T, N))),
        "gamma": discount(0.8, 1.0),
        "lambda_": discount(0.0, 1.0),
    }


def _columns(case):
    """The case of each environment by itself, discounts as `[T]`."""
    for n in range(N):
        yield {
            k: v[:, n] if v.ndim == 2 else np.full(T, v) if k in ("gamma", "lambda_") else v
            for k, v in case.items()
        }


def _oracle(f, case):
    return np.stack([[f(c, t) for t in range(T)] for c in _columns(case)], axis=1)


def _boundary(c, t):
    """The last step of the episode or rollout that `t` belongs to."""
    while t < T - 1 and not (c["terminated"][t] or c["truncated"][t]):
        t += 1
    return t


def _n_step(c, t, n):
    last = min(t + n - 1, _boundary(c, t))
    total, discount = 0.0, 1.0
    for i in range(t, last + 1):
        total += discount * c["rewards"][i]
        discount *= c["gamma"][i]
    return total + discount * (0.0 if c["terminated"][last] else c["next_values"][last])


def _error(c, t, baseline="values"):
    after = 0.0 if c["terminated"][t] else c["next_values"][t]
    return c["rewards"][t] + c["gamma"][t] * after - c[baseline][t]


def _gae(c, t):
    total, weight = 0.0, 1.0
    for i in range(t, _boundary(c, t) + 1):
        total += weight * _error(c, i)
        weight *= c["gamma"][i] * c["lambda_"][i]
    return total


def _lambda_return(c, t):
    """The mean of the n-step returns under geometric weights, the rest on the longest."""
    total, weight, last = 0.0, 1.0, _boundary(c, t)
    for n, i in enumerate(range(t, last), start=1):
        total += weight * (1 - c["lambda_"][i]) * _n_step(c, t, n)
        weight *= c["lambda_"][i]
    return total + weight * _n_step(c, t, T)


def _vtrace_target(c, t, rho_bar=1.0, c_bar=1.0):
    total, weight = c["values"][t], 1.0
    for i in range(t, _boundary(c, t) + 1):
        total += weight * min(rho_bar, c["rhos"][i]) * _error(c, i)
        weight *= c["gamma"][i] * c["lambda_"][i] * min(c_bar, c["rhos"][i])
    return total


def _vtrace_advantage(c, t):
    if c["terminated"][t]:
        beyond = 0.0
    elif t == _boundary(c, t):
        beyond = c["next_values"][t]
    else:
        beyond = _vtrace_target(c, t + 1)
    target = c["rewards"][t] + c["gamma"][t] * beyond
    return min(1.0, c["rhos"][t]) * (target - c["values"][t])


def _retrace(c, t):
    total, weight = c["values"][t], 1.0  # values stand for Q(s_t, a_t)
    for i in range(t, _boundary(c, t) + 1):
        if i > t:
            weight *= c["gamma"][i - 1] * c["lambda_"][i] * min(1.0, c["rhos"][i])
        total += weight * _error(c, i)
    return total


def _call(f, case, *names, **more):
    """`f` on float32 arrays, compiled, with the boundary flags always passed."""
    flags = ("terminated", "truncated")
    arguments = {k: jnp.asarray(case[k], jnp.float32) for k in names}
    arguments |= {k: jnp.asarray(case[k]) for k in flags}
    return jax.jit(f, static_argnames=tuple(more))(**arguments, **more)


COMMON = ("rewards", "next_values", "gamma")
cases = pytest.mark.parametrize(("seed", "per_step"), [(s, s % 2 == 1) for s in range(12)])


@cases
def test_gae(seed, per_step):
    """An off-by-one, or a flag that cuts the bootstrap instead of the recursion or the reverse."""
    case = _case(seed, per_step)
    got = _call(returns.gae, case, *COMMON, "values", "lambda_")
    np.testing.assert_allclose(got, _oracle(_gae, case), atol=2e-5)


@cases
def test_lambda_returns(seed, per_step):
    case = _case(seed, per_step)
    got = _call(returns.lambda_returns, case, *COMMON, "lambda_")
    np.testing.assert_allclose(got, _oracle(_lambda_return, case), atol=2e-5)
    advantages = _call(returns.gae, case, *COMMON, "values", "lambda_")
    np.testing.assert_allclose(advantages + case["values"], got, atol=2e-5)


@cases
@pytest.mark.parametrize("n", [1, 3, 50])
def test_n_step_returns(seed, per_step, n):
    case = _case(seed, per_step)
    got = _call(returns.n_step_returns, case, *COMMON, n=n)
    np.testing.assert_allclose(got, _oracle(lambda c, t: _n_step(c, t, n), case), atol=2e-5)


@cases
def test_vtrace(seed, per_step):
    case = _case(seed, per_step)
    got = _call(returns.vtrace, case, *COMMON, "values", "rhos", "lambda_")
    np.testing.assert_allclose(got.targets, _oracle(_vtrace_target, case), atol=3e-5)
    np.testing.assert_allclose(got.advantages, _oracle(_vtrace_advantage, case), atol=3e-5)


def test_vtrace_clips_the_two_weights_apart():
    """`rho_bar` and `c_bar` swapped would pass every test in which both are 1."""
    case = _case(2)
    got = _call(returns.vtrace, case, *COMMON, "values", "rhos", "lambda_", rho_bar=1.5, c_bar=0.4)
    expected = _oracle(lambda c, t: _vtrace_target(c, t, rho_bar=1.5, c_bar=0.4), case)
    np.testing.assert_allclose(got.targets, expected, atol=3e-5)


@cases
def test_retrace(seed, per_step):
    """The weight of step t + 1 belongs to the action taken there, not to the one before."""
    case = _case(seed, per_step)
    case["q_values"] = case["values"]
    got = _call(returns.retrace, case, *COMMON, "q_values", "rhos", "lambda_")
    np.testing.assert_allclose(got, _oracle(_retrace, case), atol=3e-5)


def test_three_steps_by_hand():
    """gamma = 1/2, lambda = 1/2: the sums below are worked out on paper."""
    half = 0.5
    rewards, values = jnp.array([1.0, 2.0, 4.0]), jnp.array([8.0, 4.0, 2.0])
    next_values = jnp.array([4.0, 2.0, 6.0])
    no = jnp.zeros(3, bool)
    last = jnp.array([False, False, True])
    # going on:   delta = 1 + 2 - 8, 2 + 1 - 4, 4 + 3 - 2 = -5, -1, 5
    #             A_2 = 5, A_1 = -1 + 5/4 = 0.25, A_0 = -5 + 0.25/4 = -4.9375
    on = returns.gae(rewards, values, next_values, no, no, half, half)
    np.testing.assert_array_equal(on, [-4.9375, 0.25, 5.0])
    # truncated at the end: the same, the rollout ends there anyway
    cut = returns.gae(rewards, values, next_values, no, last, half, half)
    np.testing.assert_array_equal(cut, on)
    # terminated: delta_2 = 4 - 2 = 2, A_1 = -1 + 2/4 = -0.5, A_0 = -5 - 0.5/4 = -5.125
    over = returns.gae(rewards, values, next_values, last, no, half, half)
    np.testing.assert_array_equal(over, [-5.125, -0.5, 2.0])
    # two-step returns: 1 + 2/2 + 2/4, 2 + 4/2 + 6/4, 4 + 6/2
    two = returns.n_step_returns(rewards, next_values, no, no, half, 2)
    np.testing.assert_array_equal(two, [2.5, 5.5, 7.0])
    # V-trace, lambda 1, rhos 2, 1/2, 1: weighted delta = -5, -1/2, 5; c = 1, 1/2, 1
    #   v_2 = 2 + 5 = 7, v_1 = 4 - 1/2 + 5/4 = 4.75, v_0 = 8 - 5 + 0.75/2 = 3.375
    #   A = 1 + 4.75/2 - 8, (2 + 7/2 - 4)/2, 4 + 6/2 - 2
    rhos = jnp.array([2.0, 0.5, 1.0])
    v = returns.vtrace(rewards, values, next_values, no, no, rhos, half)
    np.testing.assert_array_equal(v.targets, [3.375, 4.75, 7.0])
    np.testing.assert_array_equal(v.advantages, [-4.625, 0.75, 5.0])
    # Retrace: G_2 = 4 + 3 = 7, G_1 = 2 + (2 + 5)/2 = 5.5, G_0 = 1 + (4 + (5.5 - 4)/2)/2 = 3.375
    g = returns.retrace(rewards, values, next_values, no, no, rhos, half)
    np.testing.assert_array_equal(g, [3.375, 5.5, 7.0])


def test_lambda_one_is_the_discounted_sum_of_rewards():
    """An episode that terminates has a return without any value in it."""
    rewards = jnp.asarray(np.random.default_rng(0).normal(size=(T,)), jnp.float32)
    terminated = jnp.arange(T) == T - 1
    anything, no = jnp.full(T, 123.0), jnp.zeros(T, bool)
    sums = np.array([sum(0.9**k * float(r) for k, r in enumerate(rewards[t:])) for t in range(T)])
    got = returns.lambda_returns(rewards, anything, terminated, no, 0.9, 1.0)
    np.testing.assert_allclose(got, sums, rtol=1e-5)


def test_vtrace_on_policy_is_the_longest_return_and_without_weight_the_value():
    case = _case(3)
    plain = {**case, "rhos": np.ones((T, N)), "lambda_": np.float64(1.0)}
    names = (*COMMON, "values", "rhos", "lambda_")
    longest = _oracle(lambda c, t: _n_step(c, t, T), plain)
    np.testing.assert_allclose(_call(returns.vtrace, plain, *names).targets, longest, atol=3e-5)
    nothing = _call(returns.vtrace, case, *names, rho_bar=0.0, c_bar=0.0)
    np.testing.assert_array_equal(nothing.targets, case["values"].astype(np.float32))


def test_a_long_time_limit_does_not_shorten_the_value():
    """Reward 1 for ever, cut off every 5 steps: the value 1 / (1 - gamma) must be a fixed point."""
    rewards, value = jnp.ones(T), jnp.full(T, 10.0)
    truncated, no = jnp.arange(T) % 5 == 4, jnp.zeros(T, bool)
    got = returns.lambda_returns(rewards, value, no, truncated, 0.9, 0.95)
    np.testing.assert_allclose(got, 10.0, rtol=1e-6)


@pytest.mark.parametrize("name", ["gae", "lambda_returns", "n_step_returns", "vtrace", "retrace"])
def test_what_stands_behind_a_terminal_state_does_not_matter(name):
    """A NaN there (a network fed with a broken state) must reach neither result nor gradient."""
    case = _case(5)
    case["q_values"] = case["values"]
    case["terminated"] = np.random.default_rng(6).random((T, N)) < 0.3
    case["truncated"] = np.zeros((T, N), bool)
    case["next_values"] = np.where(case["terminated"], np.nan, case["next_values"])
    names = {
        "gae": (*COMMON, "values", "lambda_"),
        "lambda_returns": (*COMMON, "lambda_"),
        "n_step_returns": COMMON,
        "vtrace": (*COMMON, "values", "rhos", "lambda_"),
        "retrace": (*COMMON, "q_values", "rhos", "lambda_"),
    }[name]
    more = {"n": 3} if name == "n_step_returns" else {}

    floats = {k: jnp.asarray(case[k], jnp.float32) for k in names}

    def total(floats):
        out = _call(getattr(returns, name), {**case, **floats}, *names, **more)
        return sum(x.sum() for x in jax.tree.leaves(out))

    value, gradients = jax.value_and_grad(total)(floats)
    assert np.isfinite(value)
    for argument, gradient in gradients.items():
        assert np.isfinite(gradient).all(), argument


def test_gradients_flow_to_rewards_values_and_discounts():
    """Meta-gradients differentiate targets; a hidden stop_gradient would make them 0."""
    case = _case(7, share=0.1)
    terminated, truncated = jnp.asarray(case["terminated"]), jnp.asarray(case["truncated"])

    def total(rewards, next_values, gamma, lambda_):
        out = returns.lambda_returns(rewards, next_values, terminated, truncated, gamma, lambda_)
        return out.sum()

    rewards, next_values = jnp.float32(case["rewards"]), jnp.float32(case["next_values"])
    gradients = jax.grad(total, (0, 1, 2, 3))(rewards, next_values, 0.9, 0.8)
    assert all(np.abs(g).max() > 1e-3 for g in gradients)
    up, down = (total(rewards, next_values, 0.9 + e, 0.8) for e in (1e-2, -1e-2))
    np.testing.assert_allclose(gradients[2], (up - down) / 2e-2, rtol=1e-2)


def test_no_recompilation_for_other_discounts():
    traces = []

    @jax.jit
    def f(gamma, lambda_):
        traces.append(())
        flags = jnp.zeros((T, N), bool)
        x = jnp.ones((T, N))
        return returns.gae(x, x, x, flags, flags, gamma, lambda_)

    f(0.9, 0.95)
    f(0.99, 0.5)
    assert len(traces) == 1


def test_bad_shapes_and_types_stop_at_the_door():
    x, no = jnp.ones((T, N)), jnp.zeros((T, N), bool)
    with pytest.raises(AssertionError, match="shape"):
        returns.gae(x, x, x[:-1], no, no, 0.9, 0.9)
    with pytest.raises(AssertionError, match="bool"):
        returns.lambda_returns(x, x, x, no, 0.9, 0.9)
    with pytest.raises(ValueError, match=r"shape \(6,\).*\(12, 6\)"):
        returns.gae(x, x, x, no, no, jnp.ones(N), 0.9)
    with pytest.raises(ValueError, match="n=0"):
        returns.n_step_returns(x, x, no, no, 0.9, 0)
