"""Gymnasium's simulators on the host, behind functions that are pure.

Where an episode stands is told by how it began and what was done in it (`Ticket`), so a step is
a function of its arguments as long as the simulator is: it starts alike from equal seeds and
draws on nothing else.  The simulators that are kept here are a cache of such states.  One that
is not among them (after a resume, in a branch, under `vmap`) is made again by playing its
actions, so it does not matter how often, when or in what order JAX calls.
"""

import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np

from fastrl.envs.adapters.gymnasium_spaces import Link

SEED, EPISODE, TIME, DIGEST, OVER = range(5)  # the words of a ticket
NO_WORDS = 5
TERMINATED, TRUNCATED, MISSING = 1, 2, 4  # the bits of flags

Ticket = tuple[int, int, int, int]  # seed, episode, steps taken, digest of the actions


class Outcome(NamedTuple):
    """What a batch of steps led to. Leaves are `[..., *]`."""

    observation: list[np.ndarray]  # leaves
    reward: np.ndarray  # float32
    flags: np.ndarray  # uint8
    digest: np.ndarray  # uint32


class Hosts:
    """The simulators that `make` makes, as many as are in use at once."""

    def __init__(
        self, name: str, make: Callable[[], Any], observations: Link, actions: Link, threads: int
    ) -> None:
        self._name, self._make = name, make
        self._observations, self._actions = observations, actions
        self._spaces = jax.tree.leaves(observations.space, is_leaf=_is_space)
        self._live: OrderedDict[Ticket, Any] = OrderedDict()
        self._idle: list[Any] = []
        self._most = 0  # tickets in one call so far
        self._lock = threading.RLock()
        self._threads = ThreadPoolExecutor(threads) if threads > 1 else None
        self._workers = threads

    def add(self, host: Any) -> None:
        """A simulator that was made elsewhere, to be used here."""
        self._give_back(host)

    def action(self, leaves: list[np.ndarray]) -> Any:
        """The action of Gymnasium's with these leaves."""
        return self._actions.value(leaves)

    def begin(self, starts: Any, wanted: Any) -> list[np.ndarray]:
        """First observations of the episodes `[..., 2]` (seed, episode), zeros if not `wanted`."""
        starts, wanted = np.asarray(starts), np.asarray(wanted)
        batch = starts.shape[:-1]
        observation = self._blank(wanted.size)
        flat = starts.reshape(-1, 2).tolist()

        def one(row: int) -> None:
            seed, episode = flat[row]
            host = self._started(seed)
            self._write(observation, row, host[1])
            self._keep((seed, episode, 0, 0), host[0])

        self._each(one, np.flatnonzero(wanted))
        return _shaped(observation, batch)

    def step(self, tickets: Any, actions: list[Any]) -> Outcome:
        """Steps the simulators of `tickets` `[..., 5]`; where there is none the flag is MISSING.

        An episode that is over stays so: its step is no step and gives no reward.
        """
        return self._stepped(tickets, actions, self._take)

    def step_once(self, tickets: Any, actions: list[Any]) -> Outcome:
        """`step` for simulators that cannot be made again. Raises RuntimeError where one is not."""
        done = self._stepped(tickets, actions, self._take)
        if (done.flags & MISSING).any():
            raise RuntimeError(
                f"{self._name}: the simulator of this state has moved on or belongs to another "
                "process, and replay=False keeps nothing from which to make it again: such a run "
                "can't be resumed, branched or vmapped; begin anew, or use replay=True"
            )
        return done

    def replay(self, tickets: Any, actions: list[Any], logs: list[Any], done: Any) -> Outcome:
        """`done`, with the steps that were MISSING; `logs` `[..., L, *]` are all actions so far."""
        done = Outcome(*done)
        flags = np.asarray(done.flags)
        rows = np.flatnonzero(flags & MISSING)
        flat_logs = [np.asarray(x).reshape(flags.size, *np.shape(x)[flags.ndim :]) for x in logs]

        def again(row: int, ticket: Ticket) -> Any:
            host, _ = self._started(ticket[SEED])
            for t in range(ticket[TIME]):
                self._one_step(host, [x[row, t] for x in flat_logs])
            return host

        made = self._stepped(tickets, actions, again, rows)
        missing = (flags & MISSING) > 0

        def pick(new: np.ndarray, old: Any) -> np.ndarray:
            where = missing.reshape(missing.shape + (1,) * (new.ndim - missing.ndim))
            return np.where(where, new, np.asarray(old))

        return jax.tree.map(pick, made, done)

    def _stepped(
        self, tickets: Any, actions: list[Any], find: Callable[[int, Ticket], Any],
        rows: Iterable[int] | None = None,
    ) -> Outcome:  # fmt: skip
        words = np.asarray(tickets)
        batch = words.shape[:-1]
        flat = words.reshape(-1, NO_WORDS).tolist()
        n = len(flat)
        given = [np.asarray(a) for a in actions]
        given = [a.reshape(n, *a.shape[len(batch) :]) for a in given]
        observation = self._blank(n)
        reward, flags = np.zeros(n, np.float32), np.zeros(n, np.uint8)
        digests = words.reshape(-1, NO_WORDS)[:, DIGEST].copy()

        def one(row: int) -> None:
            seed, episode, time, before, over = flat[row]
            if over:
                flags[row] = over
                return
            host = find(row, (seed, episode, time, before))
            if host is None:
                flags[row] = MISSING
                return
            action = [a[row] for a in given]
            seen, reward[row], terminated, truncated = self._one_step(host, action)
            self._write(observation, row, seen)
            digests[row] = after = digest(before, action)
            if terminated or truncated:  # both at once is the task's own end
                flags[row] = TERMINATED if terminated else TRUNCATED
                self._give_back(host)
            else:
                self._keep((seed, episode, time + 1, after), host)

        self._each(one, range(n) if rows is None else rows)
        return Outcome(
            _shaped(observation, batch), reward.reshape(batch), flags.reshape(batch),
            digests.reshape(batch),
        )  # fmt: skip

    def _one_step(self, host: Any, action: list[np.ndarray]) -> tuple[Any, float, bool, bool]:
        returned = host.step(self._actions.value(action))
        if len(returned) != 5:
            raise TypeError(
                f"{self._name}.step returned {len(returned)} values: it must return Gymnasium's "
                "observation, reward, terminated, truncated, info (gym before 0.26 had four)"
            )
        return returned[:4]

    def _each(self, one: Callable[[int], None], rows: Iterable[int]) -> None:
        """`one(row)` for all rows, in as many threads as there are."""
        rows = [int(row) for row in rows]
        with self._lock:
            self._most = max(self._most, len(rows))
        if self._threads is None:
            for row in rows:
                one(row)
            return

        def some(first: int) -> None:
            for row in rows[first :: self._workers]:
                one(row)

        list(self._threads.map(some, range(self._workers)))

    def _started(self, seed: int) -> tuple[Any, Any]:
        """A simulator at the start that `seed` gives, and its observation."""
        host = self._spare()
        returned = host.reset(seed=seed)
        if not (isinstance(returned, tuple) and len(returned) == 2):
            raise TypeError(f"{self._name}.reset must return observation, info as Gymnasium's do")
        return host, returned[0]

    def _spare(self) -> Any:
        with self._lock:
            if self._idle:
                return self._idle.pop()
            # Running episodes, as many starts that were offered and not taken, an evaluation.
            if len(self._live) > max(3 * self._most, 16):
                return self._live.popitem(last=False)[1]
        return self._make()

    def _take(self, row: int, ticket: Ticket) -> Any:
        with self._lock:
            return self._live.pop(ticket, None)

    def _keep(self, ticket: Ticket, host: Any) -> None:
        with self._lock:
            if (other := self._live.pop(ticket, None)) is not None:
                self._idle.append(other)
            self._live[ticket] = host

    def _give_back(self, host: Any) -> None:
        with self._lock:
            self._idle.append(host)

    def _blank(self, n: int) -> list[np.ndarray]:
        return [np.zeros((n, *s.shape), s.dtype) for s in self._spaces]

    def _write(self, observation: list[np.ndarray], row: int, seen: Any) -> None:
        try:
            for leaf, part in zip(observation, self._observations.leaves(seen), strict=True):
                leaf[row] = part
        except (TypeError, ValueError, KeyError) as error:
            raise ValueError(
                f"{self._name} gave an observation that is not of its observation_space: {error}"
            ) from error


def _shaped(leaves: list[np.ndarray], batch: tuple[int, ...]) -> list[np.ndarray]:
    return [x.reshape(batch + x.shape[1:]) for x in leaves]


def digest(before: int, action: list[np.ndarray]) -> int:
    """The digest of the actions so far, from that of those before and the leaves of the last."""
    for part in action:
        before = zlib.crc32(part.tobytes(), before)
    return before


def _is_space(x: Any) -> bool:
    from fastrl.spaces import is_leaf

    return is_leaf(x)
