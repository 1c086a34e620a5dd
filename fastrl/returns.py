"""Returns and advantages over a rollout: GAE, lambda-returns, n-step, V-trace, Retrace.

All arrays are time-major, `[T, ...]`, usually `[T, N]`.  The transition at `t` is
`(s_t, a_t, r_t, s'_t)` with two exclusive flags, and `next_values[t] = V(s'_t)` is the value
of the *true* successor, before any reset.  Then one algebra is right at every boundary:

* `terminated`: nothing follows, `V(s'_t)` counts 0;
* `truncated`: the recursion ends, but `V(s'_t)` counts, since the task itself would go on;
* the end of the rollout, `t = T - 1`, is treated like a truncation.

In the equations `term_t` and `done_t = term_t or trunc_t` are 0 or 1; `gamma` and `lambda_`
are numbers or arrays `[T, ...]`.  A value that does not count may be anything, also NaN.

Nothing here stops gradients: everything is differentiable in all its inputs, `gamma` and
`lambda_` included, as meta-gradients want it.  A loss that regresses on a return wraps it in
`jax.lax.stop_gradient`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from fastrl.types import Array


def gae(
    rewards: Array,
    values: Array,
    next_values: Array,
    terminated: Array,
    truncated: Array,
    gamma: float | Array,
    lambda_: float | Array,
) -> Array:
    """Generalised advantage estimates `[T, ...]` (Schulman et al. 2016, equation 16).

        delta_t = r_t + gamma (1 - term_t) V(s'_t) - V(s_t)
        A_t     = delta_t + gamma lambda (1 - done_t) A_{t+1}

    `values[t] = V(s_t)`.  `lambda_ = 0` gives the one-step error, `lambda_ = 1` the discounted
    rewards to the end (bootstrapped where cut off) less `V(s_t)`.  The regression target of
    the values is `A_t + V(s_t)`, which is the lambda-return.
    """

    def step(advantage: Array, now: Any) -> tuple[Array, Array]:
        (r_t, v_t, next_v_t), (term_t, done_t), (gamma_t, lambda_t) = now
        delta_t = r_t + gamma_t * jnp.where(term_t, 0.0, next_v_t) - v_t
        advantage = delta_t + gamma_t * lambda_t * jnp.where(done_t, 0.0, advantage)
        return advantage, advantage

    numbers = rewards, values, next_values
    return _backwards(step, numbers, (terminated, truncated), (gamma, lambda_))


def lambda_returns(
    rewards: Array,
    next_values: Array,
    terminated: Array,
    truncated: Array,
    gamma: float | Array,
    lambda_: float | Array,
) -> Array:
    """Lambda-returns `[T, ...]` (Sutton and Barto 2018, equation 12.18).

        G_t = r_t + gamma (1 - term_t) [(1 - l_t) V(s'_t) + l_t G_{t+1}],  l_t = lambda (1 - done_t)

    with `l_t = 0` at the end of the rollout.  `lambda_ = 0` gives one-step targets,
    `lambda_ = 1` the discounted rewards to the end, bootstrapped where cut off.  With
    `next_values = max_a Q(s'_t, a)` these are the targets of PQN, that is Peng's Q(lambda)
    (Gallici et al. 2024); with an expectation over actions, those of expected SARSA(lambda).
    """
    chex.assert_equal_shape([rewards, next_values, terminated, truncated])

    def step(beyond: Array, now: Any) -> tuple[Array, Array]:  # beyond is G_{t+1}
        (r_t, next_v_t), (term_t, done_t), (gamma_t, lambda_t) = now
        next_v_t = jnp.where(term_t, 0.0, next_v_t)
        mixed = (1 - lambda_t) * next_v_t + lambda_t * beyond
        return_t = r_t + gamma_t * jnp.where(done_t, next_v_t, mixed)
        return return_t, return_t

    last = jnp.where(terminated[-1], 0.0, next_values[-1])
    return _backwards(step, (rewards, next_values), (terminated, truncated), (gamma, lambda_), last)


def n_step_returns(
    rewards: Array,
    next_values: Array,
    terminated: Array,
    truncated: Array,
    gamma: float | Array,
    n: int,
) -> Array:
    """Returns of at most `n` rewards, `[T, ...]` (Sutton and Barto 2018, equation 7.1).

        G_t = r_t + gamma r_{t+1} + ... + gamma^{k-1} r_{t+k-1} + gamma^k (1 - term) V(s'_{t+k-1})

    where `k <= n` steps lead to the next boundary: an end of the episode or of the rollout.
    `n = 1` gives one-step targets, `n >= T` the same as `lambda_returns` with `lambda_ = 1`.
    Costs `n` passes over the arrays.  Raises ValueError if `n` is below 1.
    """
    if n < 1:
        raise ValueError(f"n_step_returns(n={n}): needs at least one step")
    chex.assert_equal_shape([rewards, next_values, terminated, truncated])
    rewards, next_values = _floats(rewards, next_values)
    (gamma,) = _per_step(rewards, gamma)
    gamma = gamma.reshape(gamma.shape + (1,) * (rewards.ndim - gamma.ndim))  # along time
    term, done = _ends(terminated, truncated)

    def lengthen(_: Any, shorter: Array) -> Array:  # from the returns of k - 1 steps to k
        beyond = jnp.concatenate([shorter[1:], next_values[-1:]])
        beyond = jnp.where(done, next_values, beyond)
        return rewards + gamma * jnp.where(term, 0.0, beyond)

    one_step = rewards + gamma * jnp.where(term, 0.0, next_values)
    return jax.lax.fori_loop(1, min(n, rewards.shape[0]), lengthen, one_step)


class VTrace(NamedTuple):
    """What an actor-critic regresses on; both `[T, ...]`."""

    targets: Array  # of the values
    advantages: Array  # of the policy gradient, importance weight included


def vtrace(
    rewards: Array,
    values: Array,
    next_values: Array,
    terminated: Array,
    truncated: Array,
    rhos: Array,
    gamma: float | Array,
    lambda_: float | Array = 1.0,
    rho_bar: float | Array = 1.0,
    c_bar: float | Array = 1.0,
) -> VTrace:
    """V-trace targets and advantages (Espeholt et al. 2018, section 4.1).

        rho_t   = min(rho_bar, rhos_t),  c_t = lambda min(c_bar, rhos_t)
        delta_t = rho_t (r_t + gamma (1 - term_t) V(s'_t) - V(s_t))
        v_t     = V(s_t) + e_t,  e_t = delta_t + gamma c_t (1 - done_t) e_{t+1}
        A_t     = rho_t (r_t + gamma (1 - term_t) (V(s'_t) + (1 - done_t) e_{t+1}) - V(s_t))

    `rhos` are the plain ratios `pi(a_t | s_t) / mu(a_t | s_t)`, of the learned policy to the one
    that acted.  With `pi = mu` and `lambda_ = 1` the targets are the bootstrapped returns, with
    `rho_bar = c_bar = 0` they are `V`.  `rho_bar` decides where the values converge, `c_bar` only
    how fast.
    """

    def step(error: Array, now: Any) -> tuple[Array, VTrace]:  # error is e_{t+1}
        (r_t, v_t, next_v_t, ratio_t), (term_t, done_t), (gamma_t, lambda_t) = now
        rho_t = jnp.minimum(rho_bar, ratio_t)
        c_t = lambda_t * jnp.minimum(c_bar, ratio_t)
        error = jnp.where(done_t, 0.0, error)
        target_t = r_t + gamma_t * jnp.where(term_t, 0.0, next_v_t + error)
        delta_t = rho_t * (r_t + gamma_t * jnp.where(term_t, 0.0, next_v_t) - v_t)
        error = delta_t + gamma_t * c_t * error
        return error, VTrace(v_t + error, rho_t * (target_t - v_t))

    numbers = rewards, values, next_values, rhos
    return _backwards(step, numbers, (terminated, truncated), (gamma, lambda_))


def retrace(
    rewards: Array,
    q_values: Array,
    next_values: Array,
    terminated: Array,
    truncated: Array,
    rhos: Array,
    gamma: float | Array,
    lambda_: float | Array = 1.0,
) -> Array:
    """Retrace(lambda) targets of `Q_t = Q(s_t, a_t)`, `[T, ...]` (Munos et al. 2016, section 3).

        G_t = r_t + gamma (1 - term_t) [V(s'_t) + (1 - done_t) c_{t+1} (G_{t+1} - Q_{t+1})]
        c_t = lambda min(1, rhos_t)

    `q_values[t] = Q_t`, `next_values[t]` is the mean of `Q(s'_t, .)` under the target
    policy `pi`, and `rhos` are the plain ratios `pi(a_t | s_t) / mu(a_t | s_t)`.  `lambda_ = 0`
    gives expected SARSA; `lambda_ = 1` and `pi = mu` the return, corrected by a control variate.
    """

    def step(error: Array, now: Any) -> tuple[Array, Array]:  # error is c_{t+1} (G_{t+1} - Q_{t+1})
        (r_t, q_t, next_v_t, ratio_t), (term_t, done_t), (gamma_t, lambda_t) = now
        beyond = next_v_t + jnp.where(done_t, 0.0, error)
        return_t = r_t + gamma_t * jnp.where(term_t, 0.0, beyond)
        return lambda_t * jnp.minimum(1.0, ratio_t) * (return_t - q_t), return_t

    numbers = rewards, q_values, next_values, rhos
    return _backwards(step, numbers, (terminated, truncated), (gamma, lambda_))


def _backwards(
    step: Callable[[Any, Any], tuple[Any, Any]],
    numbers: tuple[Array, ...],
    flags: tuple[Array, Array],
    discounts: tuple[float | Array, ...],
    last: Array | float = 0.0,
) -> Any:
    """The outputs of `step(carry, x_t)` for t = T-1 .. 0, where `carry` begins as `last`.

    `x_t` is (numbers at t, in one floating type; `term_t` and `done_t`; discounts at t).
    On CPU one loop with everything inside beats unrolling, precomputed errors and
    `associative_scan`.
    """
    chex.assert_equal_shape([*numbers, *flags])
    numbers = _floats(*numbers)
    start = jnp.broadcast_to(jnp.asarray(last, numbers[0].dtype), numbers[0].shape[1:])
    xs = numbers, _ends(*flags), _per_step(numbers[0], *discounts)
    return jax.lax.scan(step, start, xs, reverse=True)[1]


def _ends(terminated: Array, truncated: Array) -> tuple[Array, Array]:
    """`term` and `done`."""
    chex.assert_type([terminated, truncated], bool)
    return terminated, terminated | truncated


def _floats(*arrays: Array) -> tuple[Array, ...]:
    """All in one floating type, of at least float32."""
    dtype = jnp.result_type(jnp.float32, *arrays)
    return tuple(jnp.asarray(a, dtype) for a in arrays)


def _per_step(rewards: Array, *numbers: float | Array) -> tuple[Array, ...]:
    """Numbers as `[T]` and arrays `[T, ...]` as they are, to scan over."""
    for x in numbers:
        if jnp.shape(x) not in ((), rewards.shape):
            raise ValueError(
                f"gamma and lambda_ of shape {jnp.shape(x)}: pass a number or an array "
                f"of the shape of the rewards, {rewards.shape}"
            )
    steps = rewards.shape[:1]
    arrays = [jnp.asarray(x, rewards.dtype) for x in numbers]
    return tuple(a if a.ndim else jnp.broadcast_to(a, steps) for a in arrays)
