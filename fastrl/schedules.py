"""Learning-rate schedules: linear decay, and schedules refined from recorded gradient norms.

Defazio, Cutkosky, Mehta and Mishchenko 2023, "Optimal Linear Decay Learning Rate Schedules and
Further Refinements" (arXiv:2310.07831).  For the last iterate of (stochastic) gradient descent
on a convex function with bounded gradients the best schedule is linear decay.  If the gradient
norms `G_t` of `T` updates are known, with `w_t` proportional to `G_t^-2` it is

    eta_t  proportional to  w_t * sum of w_p over p = t + 1 .. T,

which is linear decay again where `G` is constant, warms up where `G` falls from a high start,
and drops faster where it rises at the end.  For Adam `w_t` is `1 / ||g_t||_1`.  Norms are those
of an earlier run, smoothed by a median (algorithm 1; widths and edges as in the authors' code).

`linear_decay` and `refined` are optax schedules, functions of the number of updates.
`scheduled` puts any such schedule on any learner of fastrl, `recorded` makes it report the norms.
"""

import bisect
import functools
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fastrl import door
from fastrl import metrics as fm
from fastrl.metrics import Metrics
from fastrl.types import Algorithm, Array, Scalar

Norm = Literal["l1", "l2"]
_POWERS: dict[str, int] = {"l1": -1, "l2": -2}  # of Adam, of SGD


def linear_decay(
    peak: Scalar, steps: int, *, warmup_steps: int = 0, final: Scalar = 0.0
) -> optax.Schedule:
    """`peak * (1 - t / steps)`: the default where nothing is known about the gradients.

    With `warmup_steps` the rate first rises to `peak`, in equal parts, and decays in what is left
    of `steps`; it ends at `final` and stays there.  `peak` and `final` may be traced.
    """
    steps = door.integer("steps", steps, 1)
    warmup_steps = door.integer("warmup_steps", warmup_steps, 0, steps - 1)

    def schedule(count: Any) -> Array:
        t = jnp.asarray(count, jnp.float32)
        passed = jnp.clip((t - warmup_steps) / (steps - warmup_steps), 0.0, 1.0)
        rising = jnp.minimum((t + 1.0) / (warmup_steps + 1.0), 1.0)
        return rising * (peak + (final - peak) * passed)

    return schedule


def refined(
    gradient_norms: Sequence[float] | np.ndarray, peak: Scalar = 1.0, steps: int | None = None,
    *, norm: Norm = "l1", smoothing: float = 0.1,
) -> optax.Schedule:  # fmt: skip
    """`peak` times `refine(gradient_norms)`, for a run of `steps` updates.

    By default as many as there are norms; a run of another length, or norms that are means over
    several updates, stretch the same shape.  From the end on the rate is 0.
    """
    multipliers = refine(gradient_norms, norm=norm, smoothing=smoothing)
    points = len(multipliers)
    steps = door.integer("steps", points if steps is None else steps, 2)
    table = multipliers.astype(np.float32)

    def schedule(count: Any) -> Array:
        place = jnp.asarray(count, jnp.float32) * ((points - 1) / (steps - 1))
        return peak * jnp.interp(place, jnp.arange(points, dtype=jnp.float32), table)

    return schedule


def refine(
    gradient_norms: Sequence[float] | np.ndarray, *, norm: Norm = "l1", smoothing: float = 0.1
) -> np.ndarray:
    """Factors of the learning rate for every update, the largest of them 1: `[T]`, float64.

    `gradient_norms` `[T]` are those of one run, in order.  `norm` says which they are, and with
    it the weights: "l1" for Adam and its like (`1 / G`), "l2" for SGD (`1 / G^2`).  `smoothing` is
    the width of the median as a share of the run; the authors' is a tenth.

    Raises ValueError for fewer than two norms, for one that is negative or not finite, and
    where their median is 0: such a run stood still, and says nothing about its rate.
    """
    norms = np.asarray(gradient_norms, np.float64)
    if norms.ndim != 1 or len(norms) < 2:
        raise ValueError(f"gradient_norms have shape {norms.shape}: needs [T], at least two")
    if not np.all(np.isfinite(norms) & (norms >= 0.0)):
        wrong = norms[~(np.isfinite(norms) & (norms >= 0.0))][0]
        raise ValueError(f"gradient_norms hold {wrong}: leave out what is no norm of a gradient")
    door.choice("norm", norm, tuple(_POWERS))
    if not 0.0 <= smoothing <= 1.0:
        raise ValueError(f"smoothing={smoothing!r}: needs a share of the run, from 0 to 1")
    smooth = _running_median(norms, 2 * (int(smoothing * len(norms)) // 2) + 1)
    if not smooth.min() > 0.0:
        raise ValueError(
            f"the median of gradient_norms is 0 around update {int(smooth.argmin())}: "
            "nothing was learned there, so there is nothing to refine"
        )
    weights = (smooth / smooth.min()) ** _POWERS[norm]
    after = np.append(np.cumsum(weights[:0:-1])[::-1], 0.0)  # the sum of all later weights
    factors = weights * after
    return factors / factors.max()


def _running_median(values: np.ndarray, width: int) -> np.ndarray:
    """The median of `width` values around each; the first is repeated, the end is mirrored."""
    half = width // 2
    padded = np.pad(np.pad(values, (0, half), "reflect"), (half, 0), "edge").tolist()
    window = sorted(padded[:width])
    medians = [window[half]]
    for old, new in zip(padded, padded[width:], strict=False):
        del window[bisect.bisect_left(window, old)]
        bisect.insort(window, new)
        medians.append(window[half])
    return np.array(medians)


class RecordedNorms(NamedTuple):
    """What `norm_recorder` has seen; entries from `updates` on are 0."""

    updates: Array
    l1: Array  # [steps]
    l2: Array  # [steps]


def norm_recorder(steps: int) -> optax.GradientTransformation:
    """Changes nothing and remembers the norms of the first `steps` gradients in its state.

    For optax alone: `optax.chain(norm_recorder(1000), optax.adam(rate))`.
    """
    steps = door.integer("steps", steps, 1)

    def init(params: Any) -> RecordedNorms:
        del params
        return RecordedNorms(jnp.int32(0), jnp.zeros(steps), jnp.zeros(steps))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, RecordedNorms]:
        del params
        leaves = jax.tree.leaves(updates)
        absolute, square = sum(jnp.abs(x).sum() for x in leaves), sum((x**2).sum() for x in leaves)
        l1 = state.l1.at[state.updates].set(absolute, mode="drop")
        l2 = state.l2.at[state.updates].set(jnp.sqrt(square), mode="drop")
        return updates, RecordedNorms(state.updates + 1, l1, l2)

    return optax.GradientTransformation(init, update)


class Scheduled(NamedTuple):
    """The state of a learner under a schedule."""

    learner: Any
    iteration: Array


@functools.lru_cache(maxsize=256)
def scheduled(
    algorithm: Algorithm, schedule: optax.Schedule, fields: tuple[str, ...] = ("learning_rate",)
) -> Algorithm:
    """The algorithm with `fields` of its hparams multiplied by `schedule(iteration)`.

    The schedule gives factors, so its peak is 1 and the rate itself stays a traced number in
    `hparams`; it is read once for each iteration.  Leave a schedule of the learner's own switched
    off (PPO: `anneal_steps` at its default), or both apply.

    Raises ValueError for a field that the algorithm's hparams do not have.
    """
    door.algorithm(algorithm)
    door.function("schedule", schedule, "schedules.linear_decay(1.0, iterations)")
    known = tuple(algorithm.default_hparams._fields)
    for field in fields:
        door.choice("field of hparams", field, known)

    def init(key: Any, hparams: Any, task: Any) -> Scheduled:
        return Scheduled(algorithm.init(key, hparams, task), jnp.int32(0))

    def step(state: Scheduled, hparams: Any, task: Any) -> tuple[Scheduled, Metrics]:
        factor = schedule(state.iteration)
        now = {field: getattr(hparams, field) * factor for field in fields}
        learner, metrics = algorithm.step(state.learner, hparams._replace(**now), task)
        metrics = metrics | {"learning_rate": fm.mean(now[fields[0]])}
        return Scheduled(learner, state.iteration + 1), metrics

    value = algorithm.value
    return algorithm._replace(
        init=init,
        step=step,
        act=lambda state, *rest: algorithm.act(state.learner, *rest),
        value=None if value is None else lambda state, *rest: value(state.learner, *rest),
        parameters=lambda state: algorithm.parameters(state.learner),
        recipe=None,  # no config can name it: scripts that load a run pass algorithm=
    )


@functools.lru_cache(maxsize=256)
def recorded(algorithm: Algorithm, decay: float = 0.999) -> Algorithm:
    """The algorithm with two more metrics: `gradient_norm_l1` and `gradient_norm_l2`.

    They are read from Adam's second moments before and after an iteration, whatever the learner
    (all its optimisers together).  `n` updates take `v` to
    `decay^n v + (1 - decay) sum_i decay^(n - i) g_i^2`, so the mean of `g^2` over them, all but
    evenly weighted, is known exactly.  The l2 norm is the root of its sum, the l1 norm the sum of
    its roots; both are of the gradients that Adam gets, after clipping.  `decay` is Adam's `b2`.
    """
    door.algorithm(algorithm)

    def step(state: Any, hparams: Any, task: Any) -> tuple[Any, Metrics]:
        after, metrics = algorithm.step(state, hparams, task)
        return after, metrics | _norms(state, after, decay)

    return algorithm._replace(step=step, recipe=None)


def _norms(before: Any, after: Any, decay: float) -> Metrics:
    """The norms of an iteration's gradients, from what Adam keeps."""
    squares: list[Array] = []
    counts = []
    for old, new in zip(_adam_states(before), _adam_states(after), strict=True):
        count = new.count - old.count
        kept = jnp.asarray(decay, jnp.float32) ** count
        mean = lambda v, w, kept=kept: (w - kept * v) / jnp.maximum(1.0 - kept, 1e-6)  # noqa: E731
        squares += jax.tree.leaves(jax.tree.map(mean, old.nu, new.nu))
        counts.append(count)
    if not squares:
        raise ValueError("recorded: the algorithm's state holds no state of Adam (optax)")
    squares = [jnp.maximum(x, 0.0) for x in squares]
    updated = jnp.stack(counts).max() > 0
    l1, l2 = sum(jnp.sqrt(x).sum() for x in squares), jnp.sqrt(sum(x.sum() for x in squares))
    norms = {"gradient_norm_l1": jnp.asarray(l1), "gradient_norm_l2": l2}
    return {name: fm.mean(x, updated) for name, x in norms.items()}


def _adam_states(state: Any) -> list[Any]:
    is_adam = lambda x: isinstance(x, optax.ScaleByAdamState)  # noqa: E731
    return [x for x in jax.tree.leaves(state, is_leaf=is_adam) if is_adam(x)]
