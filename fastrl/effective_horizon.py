"""How far ahead one must look where exploration is random: exact analysis of small processes.

After Laidlaw, Russell and Dragan 2023, "Bridging RL Theory and Practice with the Effective
Horizon" (arXiv:2304.09853), and Laidlaw, Zhu, Russell and Dragan 2024, "The Effective Horizon
Explains Deep RL Performance in Stochastic Environments" (arXiv:2312.08369).  For steps
t = 0 .. T - 1 of a process of finite horizon,

    Q^1_t     = r + P mean_a Q^1_{t+1}         (of random play)
    Q^{i+1}_t = r + P max_a  Q^i_{t+1}         with Q_T = 0

A process is k-QVI-solvable if to act greedily on Q^k at every step is optimal, whatever ties are
broken to; the gap is the least distance from the best action to the best that is not optimal, over
the steps and states that such play meets.  With A actions,

    H_k  = k + log_A max(1, max 16 v / gap^2 log(2 T A^k))    GORP, deterministic processes
    H'_k = k + log_A ceil((range / gap)^2)                    SQIRL, stochastic ones

and the effective horizon is the least over k.  `v = (Q^1 - worst)(best - worst)` bounds the
variance of a random return, `range` is the largest less the least return.  Samples needed are of
order `T^2 A^H`, against `A^T` for blind search.

`gorp` is the planner that the first of these describes, from copies of a state.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastrl import door
from fastrl.spaces import Discrete
from fastrl.types import Array, Env, Key

PRECISION = 1e-9  # values nearer than this count as equal


class MDP(NamedTuple):
    """A process of finite horizon, in float64."""

    transitions: np.ndarray  # [S, A, S], probabilities of the next state
    rewards: np.ndarray  # [S, A]
    start: np.ndarray  # [S]
    horizon: int


class Depth(NamedTuple):
    """What looking `k` deep gives."""

    k: int
    solvable: bool  # whether greedy play on Q^k is optimal
    gap: float  # 0 where not solvable; inf where no action is ever wrong
    stochastic: float  # H'_k, inf where not solvable
    deterministic: float  # H_k, inf where not solvable or where the process is stochastic


class Analysis(NamedTuple):
    """The effective horizon of a process."""

    k: int  # the least depth that solves it
    gap: float  # at that depth
    stochastic: float  # the least H'_k
    deterministic: float  # the least H_k; inf for stochastic processes
    optimal_return: float
    random_return: float
    depths: tuple[Depth, ...]  # for k = 1 .. T


def of(env: Any) -> MDP:
    """The process of a tabular environment, such as `tabular/Lock-v0`."""
    if not callable(getattr(env, "tables", None)):
        raise TypeError(f"{type(env).__name__} has no tables(): pass a tabular environment")
    transitions, rewards = (np.asarray(x, np.float64) for x in env.tables())
    return MDP(transitions, rewards, np.eye(len(rewards))[0], env.horizon)


def values(mdp: MDP, backup: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Q `[T, S, A]` of the play whose state value is `backup(Q_t)` `[S]`."""
    q = np.zeros((mdp.horizon + 1, *mdp.rewards.shape))
    for t in reversed(range(mdp.horizon)):
        q[t] = mdp.rewards
        if t + 1 < mdp.horizon:
            q[t] = q[t] + mdp.transitions @ backup(q[t + 1])
    return q[:-1]


def random_values(mdp: MDP) -> np.ndarray:
    """Q^1 `[T, S, A]`: a first action, then random ones."""
    return values(mdp, lambda q: q.mean(-1))


def optimal_values(mdp: MDP) -> np.ndarray:
    """Q* `[T, S, A]`."""
    return values(mdp, lambda q: q.max(-1))


def deeper(mdp: MDP, q: np.ndarray) -> np.ndarray:
    """Q^{i+1} of Q^i, both `[T, S, A]`."""
    following = np.concatenate([q[1:], np.zeros_like(q[:1])]).max(-1)  # [T, S]
    return mdp.rewards[None] + np.einsum("ijk,tk->tij", mdp.transitions, following)


def effective_horizon(mdp: MDP) -> Analysis:
    """The least k, its gap, and the effective horizon of `mdp`.

    Takes about `T^2 S^2 A` operations.  Raises ValueError where tables are no process.
    """
    _check(mdp)
    best, worst = optimal_values(mdp), values(mdp, lambda q: q.min(-1))
    q = random_values(mdp)
    variance = (q - worst) * (best - worst)  # of a random return, at most
    depths: list[Depth] = []
    spread = float((best.max(-1)[0] - worst.min(-1)[0])[mdp.start > 0].max())
    random_return = float(mdp.start @ q[0].mean(-1))
    for k in range(1, mdp.horizon + 1):
        depths.append(_depth(mdp, k, q, best, variance, spread))
        q = deeper(mdp, q)
        beyond = np.concatenate([variance[1:], np.zeros_like(variance[:1])]).max(-1)
        variance = np.where(mdp.transitions[None] > 0, beyond[:, None, None], 0.0).max(-1)
    first = next(d for d in depths if d.solvable)
    return Analysis(
        first.k, first.gap, min(d.stochastic for d in depths),
        min(d.deterministic for d in depths), float(mdp.start @ best[0].max(-1)),
        random_return, tuple(depths),
    )  # fmt: skip


def _check(mdp: MDP) -> None:
    door.integer("horizon", mdp.horizon, 1)
    states, actions = mdp.rewards.shape
    if mdp.transitions.shape != (states, actions, states) or mdp.start.shape != (states,):
        raise ValueError(
            f"tables of shapes {mdp.transitions.shape}, {mdp.rewards.shape}, {mdp.start.shape}: "
            "need [S, A, S], [S, A] and [S]"
        )
    for name, rows in (("transitions", mdp.transitions), ("start", mdp.start)):
        if (rows < 0).any() or not np.allclose(rows.sum(-1), 1.0, atol=1e-5):
            raise ValueError(f"{name} are no probabilities: each row must sum to 1")


def _depth(
    mdp: MDP, k: int, q: np.ndarray, best: np.ndarray, variance: np.ndarray, spread: float
) -> Depth:
    """Follows greedy play on `q` from the start, by every tie, and asks whether it is optimal.

    The gap, and the runs that make estimates good to half of it, are taken over what is met by all
    actions above the best wrong one: an estimate may prefer any of them.
    """
    actions = mdp.rewards.shape[1]
    met = nearly_met = mdp.start > 0
    gap, runs = math.inf, 1.0
    for t in range(mdp.horizon):
        wrong = best[t] < best[t].max(-1, keepdims=True) - PRECISION
        top, top_wrong = q[t].max(-1), np.where(wrong, q[t], -np.inf).max(-1)
        distance = top - top_wrong  # [S], inf where nothing is wrong
        if (distance[met] <= PRECISION).any():
            return Depth(k, False, 0.0, math.inf, math.inf)
        gap = min(gap, float(distance[nearly_met].min()))
        with np.errstate(divide="ignore", invalid="ignore"):
            needed = 16 * variance[t].max(-1) / distance**2
        needed = needed * math.log(2 * mdp.horizon * actions**k)
        runs = max(runs, math.ceil(needed[nearly_met].max()) if gap > PRECISION else math.inf)
        met = _following(mdp, met, q[t] >= top[:, None] - PRECISION)
        nearly_met = _following(mdp, nearly_met, q[t] > top_wrong[:, None])
    if gap <= PRECISION:
        return Depth(k, True, 0.0, math.inf, math.inf)
    base = math.log(max(actions, 2))
    samples = max(1, math.ceil((spread / gap) ** 2))
    deterministic = bool((np.isin(mdp.transitions, (0.0, 1.0))).all())
    planned = k + math.log(runs) / base if deterministic else math.inf
    return Depth(k, True, gap, k + math.log(samples) / base, planned)


def _following(mdp: MDP, met: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """The states, bool `[S]`, that the actions `taken` `[S, A]` in those `met` may lead to."""
    return np.asarray((mdp.transitions[taken & met[:, None]] > 0).any(0))


class Plan(NamedTuple):
    """What `gorp` found."""

    actions: Array  # int32 [T]
    rewards: Array  # float32 [T], 0 after the end
    returns: Array  # float32 [T, A ** k]: the mean return of every sequence that was tried
    steps: int  # environment steps simulated


def gorp(
    env: Env, params: Any, key: Key, *, horizon: int, k: int = 1, runs: int = 10
) -> Plan:  # fmt: skip
    """Greedy over random policy (Laidlaw et al. 2023, algorithm 1), for deterministic environments.

    At each step tries every sequence of `k` actions, followed `runs` times by random ones to the
    end of the `horizon` steps, and takes the first action of the sequence with the best mean
    return.  States are copied, so nothing is replayed: a step costs `A^k runs (T - t)`
    environment steps.  Pure: jit it with `horizon`, `k` and `runs` static.

    Raises ValueError unless actions are Discrete, and for more than 10,000 sequences.
    """
    door.environment(env)
    for name, value in (("horizon", horizon), ("k", k), ("runs", runs)):
        door.integer(name, value, 1)
    space = env.action_space(params)
    if not isinstance(space, Discrete):
        raise ValueError(f"gorp needs one Discrete action, not {space}")
    if space.n**k > 10_000:
        raise ValueError(f"k={k}: {space.n}**{k} sequences are more than 10,000")
    digits = np.arange(space.n**k)[:, None] // space.n ** np.arange(k)[None, ::-1] % space.n
    sequences = jnp.asarray(digits, jnp.int32)  # [A ** k, k]
    first_key, plan_key = jax.random.split(key)
    start = env.reset(first_key, params)[0]

    def try_one(key: Key, sequence: Array, state: Any, over: Array, left: Array) -> Array:
        """The return of `sequence` and then random actions, within `left` steps."""

        def body(carry: Any, now: Any) -> Any:
            (state, going), (key, i) = carry, now
            action_key, step_key = jax.random.split(key)
            at_random = jax.random.randint(action_key, (), 0, space.n)
            action = jnp.where(i < k, sequence[jnp.minimum(i, k - 1)], at_random)
            state, step = env.step(step_key, state, action, params)
            reward = jnp.where(going, step.reward, 0.0)
            return (state, going & ~(step.terminated | step.truncated) & (i + 1 < left)), reward

        times = jax.random.split(key, horizon), jnp.arange(horizon)
        return jax.lax.scan(body, (state, ~over), times)[1].sum()

    def decide(carry: Any, now: Any) -> Any:
        (state, over), (key, t) = carry, now
        try_key, step_key = jax.random.split(key)
        keys = jax.random.split(try_key, (len(sequences), runs))
        each = jax.vmap(try_one, (0, None, None, None, None))
        tried = jax.vmap(each, (0, 0, None, None, None))(keys, sequences, state, over, horizon - t)
        means = tried.mean(1)
        action = sequences[jnp.argmax(means), 0]
        state, step = env.step(step_key, state, action, params)
        reward = jnp.where(over, 0.0, step.reward)
        return (state, over | step.terminated | step.truncated), (action, reward, means)

    times = jax.random.split(plan_key, horizon), jnp.arange(horizon)
    _, (actions, rewards, means) = jax.lax.scan(decide, (start, jnp.bool_(False)), times)
    steps = len(sequences) * runs * horizon * (horizon + 1) // 2
    return Plan(actions, rewards, means, steps)
