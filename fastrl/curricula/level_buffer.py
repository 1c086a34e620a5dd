"""Levels with scores, from which the next ones are drawn: prioritised level replay.

    rank_i  = 1 + #{j : S_j > S_i}, ties by index
    P_S(i)  ~ rank_i^(-1/beta)                        over the slots that may be replayed
    P_C(i)  ~ c - C_i                                 c: a counter, C_i: its value when i was used
    P(i)    = (1 - rho) P_S(i) + rho P_C(i)

(Jiang et al. 2021, arXiv:2010.03934.)  The counter grows with every level that is drawn or
offered, so within a batch what was just drawn has no staleness, and P changes from draw to draw.
Where nothing is stale, P_C is uniform.  A level that is `active`, because somebody trains on it, is
neither replayed nor evicted.

Pure functions of a `Buffer`; jit them, vmap them over buffers.  Levels are pytrees, the same for
all slots.
"""

import dataclasses
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from fastrl import door
from fastrl.types import Array, Key, PyTree

NOWHERE = -1  # the slot of a level that is not in the buffer


class Buffer(NamedTuple):
    """Levels and what is known of them. Leaves are `[C, ...]` but for the counter."""

    levels: PyTree
    score: Array  # float32; -inf in empty slots
    used: Array  # int32: the counter when the level was last drawn or inserted
    filled: Array  # bool
    active: Array  # bool
    counter: Array  # int32 []


@dataclasses.dataclass(frozen=True)
class Replay:
    """How levels are drawn."""

    prioritisation: Literal["rank", "proportional", "top"] = "rank"
    temperature: float = 0.3  # beta; small: nearly always the best
    staleness: float = 0.3  # rho: the share of P_C

    def __post_init__(self) -> None:
        door.choice("prioritisation", self.prioritisation, ("rank", "proportional", "top"))
        for name in ("temperature", "staleness"):
            door.number(name, getattr(self, name), 0.0)
        if self.temperature == 0 or self.staleness > 1:
            raise ValueError(
                f"temperature={self.temperature}, staleness={self.staleness}: the first must be "
                "above 0, the second at most 1"
            )


def init(level: PyTree, capacity: int) -> Buffer:
    """An empty buffer for levels like `level` (arrays or their shapes)."""
    capacity = door.integer("capacity", capacity, 1)
    levels = jax.tree.map(lambda x: jnp.zeros((capacity, *jnp.shape(x)), x.dtype), level)
    nothing = jnp.zeros(capacity, bool)
    score = jnp.full(capacity, -jnp.inf, jnp.float32)
    return Buffer(levels, score, jnp.zeros(capacity, jnp.int32), nothing, nothing, jnp.int32(0))


def size(buffer: Buffer) -> Array:
    """How many levels there are, int32."""
    return buffer.filled.sum(dtype=jnp.int32)


def replayable(buffer: Buffer) -> Array:
    """bool `[C]`: levels that may be drawn."""
    return buffer.filled & ~buffer.active


def distribution(buffer: Buffer, replay: Replay, where: Array | None = None) -> Array:
    """P `[C]` over the slots `where`, by default those that may be replayed; 0 if there is none."""
    where = replayable(buffer) if where is None else where
    preferred = by_score(buffer.score, where, replay)
    stale = by_staleness(buffer, where)
    return (1 - replay.staleness) * preferred + replay.staleness * stale


def by_score(score: Array, where: Array, replay: Replay) -> Array:
    """P_S `[C]`.

    "rank": as above.  "proportional": to max(score, 0)^(1/beta), uniform where no score is above
    0.  "top": all on the best.
    """
    if replay.prioritisation == "proportional":
        positive = jnp.where(where, jnp.maximum(score, 0.0), 0.0)
        scaled = positive / jnp.maximum(positive.max(), 1e-30)  # so that no power overflows
        weights = jnp.where(positive > 0, scaled ** (1 / replay.temperature), 0.0)
        return _normalised(jnp.where(weights.sum() > 0, weights, where.astype(jnp.float32)))
    rank = ranks(score, where)
    if replay.prioritisation == "top":
        return (where & (rank == 1)).astype(jnp.float32)
    return _normalised(jnp.where(where, rank.astype(jnp.float32) ** (-1 / replay.temperature), 0.0))


def by_staleness(buffer: Buffer, where: Array) -> Array:
    """P_C `[C]`."""
    age = jnp.where(where, buffer.counter - buffer.used, 0).astype(jnp.float32)
    return _normalised(jnp.where(age.sum() > 0, age, where.astype(jnp.float32)))


def ranks(score: Array, where: Array) -> Array:
    """int32 `[C]`: 1 for the best of the slots `where`; the others come behind."""
    order = jnp.argsort(jnp.where(where, -score, jnp.inf), stable=True)
    place = jnp.arange(1, score.shape[0] + 1, dtype=jnp.int32)
    return jnp.zeros_like(place).at[order].set(place, unique_indices=True)


def sample(key: Key, buffer: Buffer, replay: Replay, num: int) -> tuple[Buffer, Array]:
    """`num` draws one after the other, as slots `[num]`; the same one may be drawn again.

    Exact: the staleness, though not the ranks, changes from draw to draw.  Without a level that
    may be replayed the slots are `NOWHERE`.  Consumes `key`.
    """
    where = replayable(buffer)
    preferred = by_score(buffer.score, where, replay)

    def draw(buffer: Buffer, key: Key) -> tuple[Buffer, Array]:
        stale = by_staleness(buffer, where)
        slot = _choose(key, (1 - replay.staleness) * preferred + replay.staleness * stale)
        return touch(buffer, slot), slot

    return jax.lax.scan(draw, buffer, jax.random.split(key, num))


def take(key: Key, buffer: Buffer, replay: Replay) -> tuple[Buffer, Array]:
    """One level that becomes active: its slot, or `NOWHERE`. Consumes `key`."""
    slot = _choose(key, distribution(buffer, replay))
    return mark(touch(buffer, slot), slot, True), slot


def touch(buffer: Buffer, slot: Array) -> Buffer:
    """The level in `slot` is used now: its staleness is 0, and the counter grows."""
    counter = buffer.counter + 1
    return buffer._replace(used=_set(buffer.used, slot, counter), counter=counter)


def mark(buffer: Buffer, slot: Array, active: Any) -> Buffer:
    """Whether somebody trains on the level in `slot`; nothing for `NOWHERE`."""
    return buffer._replace(active=_set(buffer.active, slot, active))


def update(buffer: Buffer, slot: Array, score: Array) -> Buffer:
    """Another score for the level in `slot`; nothing for `NOWHERE`, or for a score of -inf."""
    slot = jnp.where(score > -jnp.inf, slot, NOWHERE)
    return buffer._replace(score=_set(buffer.score, slot, score))


def insert(
    buffer: Buffer, level: PyTree, score: Array, replay: Replay, unique: bool = False
) -> tuple[Buffer, Array]:
    """Offers one level; returns the slot that it took, or `NOWHERE`.

    It takes an empty slot, or if there is none that of the level with the smallest P, score and
    staleness together (of several the one with the lowest score), where that level's score is
    below its own.  Active levels stay; a score of -inf or NaN is not taken.  With `unique` a
    level that is there already gets the new score, and is not inserted again.  The counter grows
    in any case.
    """
    idle = replayable(buffer)
    chance = jnp.where(idle, distribution(buffer, replay), jnp.inf)
    chance = jnp.where(buffer.filled, chance, -1.0)
    slot = jnp.argmin(jnp.where(chance == chance.min(), buffer.score, jnp.inf))
    better = ~buffer.filled[slot] | (idle[slot] & (buffer.score[slot] < score))
    known = find(buffer, level) if unique else jnp.int32(NOWHERE)
    there = known != NOWHERE
    better, slot = better | there, jnp.where(there, known, slot)
    slot = jnp.where(better & (score > -jnp.inf), slot, NOWHERE).astype(jnp.int32)
    put = lambda all_, one: _set(all_, slot, one)  # noqa: E731
    buffer = buffer._replace(
        levels=jax.tree.map(put, buffer.levels, level),
        score=put(buffer.score, score),
        filled=put(buffer.filled, True),
    )
    return touch(buffer, slot), slot


def insert_all(
    buffer: Buffer, levels: PyTree, scores: Array, replay: Replay, unique: bool = False
) -> tuple[Buffer, Array]:
    """`insert` of levels `[B, ...]`, one after the other: the buffer and the slots `[B]`."""

    def one(buffer: Buffer, item: tuple[PyTree, Array]) -> tuple[Buffer, Array]:
        return insert(buffer, *item, replay, unique)

    return jax.lax.scan(one, buffer, (levels, scores))


def find(buffer: Buffer, level: PyTree) -> Array:
    """The slot of a level that equals `level` in all numbers, or `NOWHERE`."""

    def same(all_: Array, one: Array) -> Array:
        equal = all_ == jnp.asarray(one)[None]
        return equal.reshape(equal.shape[0], -1).all(1)

    equal = jnp.stack(jax.tree.leaves(jax.tree.map(same, buffer.levels, level))).all(0)
    equal = equal & buffer.filled
    return jnp.where(equal.any(), jnp.argmax(equal), NOWHERE).astype(jnp.int32)


def get(buffer: Buffer, slots: Array) -> PyTree:
    """The levels in `slots` `[...]`: leaves `[..., *]`; that of slot 0 for `NOWHERE`."""
    return jax.tree.map(lambda x: x[jnp.maximum(slots, 0)], buffer.levels)


def _set(all_: Array, slot: Array, value: Any) -> Array:
    """`all_` with `value` in `slot`, and as it is for `NOWHERE`."""
    beyond = jnp.where(slot == NOWHERE, all_.shape[0], slot)
    return all_.at[beyond].set(value, mode="drop")


def _choose(key: Key, p: Array) -> Array:
    """A slot, drawn with probabilities `p` that need not add up to 1; `NOWHERE` if all are 0."""
    total = jnp.cumsum(p)
    u = jax.random.uniform(key) * total[-1]
    slot = jnp.minimum(jnp.searchsorted(total, u, side="right"), p.shape[0] - 1)
    slot = jnp.where(p[slot] > 0, slot, jnp.argmax(p))  # rounding at the upper end
    return jnp.where(total[-1] > 0, slot, NOWHERE).astype(jnp.int32)


def _normalised(weights: Array) -> Array:
    return weights / jnp.maximum(weights.sum(), 1e-30)
