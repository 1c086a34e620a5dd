"""RepeatFirst, RepeatPrevious: name a card that was shown before, while others are shown.

Rules of POPGym's `RepeatFirst` and `RepeatPrevious` (Morad et al. 2023, "POPGym: Benchmarking
Partially Observable Reinforcement Learning").  Cards are dealt without replacement; only
their suits matter, so the state counts what is left of each instead of holding a deck.
"""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from fastrl.door import integer
from fastrl.envs import checks
from fastrl.spaces import Discrete
from fastrl.types import Array, Key, Step

SUITS = 4
PER_SUIT = 13  # cards of a suit in a deck


class Params(NamedTuple):
    decks: int = 1  # of 52 cards; an episode has a step less than there are cards


class Pack(NamedTuple):
    """What is left of each suit, int32: together the cards that are still to be dealt."""

    spades: Array
    diamonds: Array
    clubs: Array
    hearts: Array


class FirstState(NamedTuple):
    pack: Pack
    first: Array  # int32, a suit
    shown: Array  # int32, the suit seen now


class PreviousState(NamedTuple):
    pack: Pack
    history: Array  # uint32 [words], two bits a card, the latest in the lowest
    held: Array  # int32, cards dealt so far


@dataclasses.dataclass(frozen=True)
class RepeatFirst:
    """Observation: the suit of the card dealt last, 0 .. 3. Action: a suit.

    Pays 1 / (cards - 1) at every step for the suit of the first card and the same less for
    another, so that returns are within [-1, 1].  Terminates when all cards are dealt.
    """

    version: ClassVar[int] = 1

    def default_params(self) -> Params:
        return Params()

    def reset(self, key: Key, params: Params) -> tuple[FirstState, Array]:
        pack = _full_pack(params)
        first = _draw(jax.random.uniform(key), pack)
        return FirstState(_without(pack, first), first, first), first

    def step(
        self, key: Key, state: FirstState, action: Array, params: Params
    ) -> tuple[FirstState, Step]:
        action = checks.step(self, action, params)
        return self.deal(state, action, _draw(jax.random.uniform(key), state.pack), params)

    def deal(
        self, state: FirstState, action: Array, suit: Array, params: Params
    ) -> tuple[FirstState, Step]:
        """A step whose chance event is given: the suit of the card that is dealt."""
        share = 1.0 / (_cards(params) - 1)
        reward = jnp.where(action == state.first, share, -share).astype(jnp.float32)
        state = FirstState(_without(state.pack, suit), state.first, suit)
        over = _left(state.pack) <= 0
        return state, Step(suit, reward, over, jnp.zeros_like(over))

    def observation_space(self, params: Params) -> Discrete:
        return Discrete(SUITS)

    def action_space(self, params: Params) -> Discrete:
        return Discrete(SUITS)

    def render(self, state: FirstState, params: Params) -> np.ndarray:
        """The first card and the one shown: uint8 `[160, 240, 3]`."""
        return _picture([int(state.first), int(state.shown)], width=240)


@dataclasses.dataclass(frozen=True)
class RepeatPrevious:
    """Observation: the suit of the card dealt last, 0 .. 3. Action: a suit.

    Once `k` cards are dealt, every step pays 1 / (cards - k) for the suit of the card dealt
    k - 1 cards before the one seen now, and the same less for another.  Terminates when all
    cards are dealt.
    """

    k: int = 4

    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        integer("k", self.k, 1, SUITS * PER_SUIT * 16 - 1)

    def default_params(self) -> Params:
        return Params(decks=1 + self.k // (SUITS * PER_SUIT))

    def reset(self, key: Key, params: Params) -> tuple[PreviousState, Array]:
        decks = params.decks
        if not isinstance(decks, Tracer) and not np.all(_cards(params) > self.k):
            raise ValueError(f"decks={decks}: too few cards to ask for one of {self.k} before")
        pack = _full_pack(params)
        first = _draw(jax.random.uniform(key), pack)
        nothing = jnp.zeros(-(-self.k // 16), jnp.uint32)
        state = PreviousState(_without(pack, first), _push(nothing, first), jnp.int32(1))
        return state, first

    def step(
        self, key: Key, state: PreviousState, action: Array, params: Params
    ) -> tuple[PreviousState, Step]:
        action = checks.step(self, action, params)
        return self.deal(state, action, _draw(jax.random.uniform(key), state.pack), params)

    def deal(
        self, state: PreviousState, action: Array, suit: Array, params: Params
    ) -> tuple[PreviousState, Step]:
        """A step whose chance event is given: the suit of the card that is dealt."""
        word, place = divmod(self.k - 1, 16)
        asked = (state.history[word] >> (2 * place)) & 3
        share = 1.0 / (_cards(params) - self.k)
        paid = jnp.where(action == asked.astype(jnp.int32), share, -share)
        reward = jnp.where(state.held >= self.k, paid, 0.0).astype(jnp.float32)
        pack, history = _without(state.pack, suit), _push(state.history, suit)
        over = _left(pack) <= 0
        state = PreviousState(pack, history, state.held + 1)
        return state, Step(suit, reward, over, jnp.zeros_like(over))

    def observation_space(self, params: Params) -> Discrete:
        return Discrete(SUITS)

    def action_space(self, params: Params) -> Discrete:
        return Discrete(SUITS)

    def render(self, state: PreviousState, params: Params) -> np.ndarray:
        """The last `k` cards, at most 16, the newest on the right: uint8 `[160, 480, 3]`."""
        count = min(int(state.held), self.k, 16)
        word = int(np.asarray(state.history)[0])
        return _picture([word >> 2 * i & 3 for i in reversed(range(count))], width=480)


def _cards(params: Params) -> Any:
    return SUITS * PER_SUIT * params.decks


def _full_pack(params: Params) -> Pack:
    return Pack(*[jnp.int32(PER_SUIT) * params.decks] * SUITS)


def _left(pack: Pack) -> Array:
    return pack.spades + pack.diamonds + pack.clubs + pack.hearts


def _draw(share: Array, pack: Pack) -> Array:
    """The suit of a card drawn from `pack`, int32; `share` is uniform in [0, 1)."""
    card = (share * _left(pack).astype(jnp.float32)).astype(jnp.int32)
    spades_diamonds = pack.spades + pack.diamonds
    beyond = (card >= pack.spades, card >= spades_diamonds, card >= spades_diamonds + pack.clubs)
    return sum((b.astype(jnp.int32) for b in beyond), jnp.int32(0))


def _without(pack: Pack, suit: Array) -> Pack:
    return Pack(*(count - (suit == i).astype(jnp.int32) for i, count in enumerate(pack)))


def _push(history: Array, suit: Array) -> Array:
    """`history` with `suit` as the latest card."""
    carried = jnp.concatenate([suit.astype(jnp.uint32)[None], history[:-1] >> 30])
    return (history << 2) | carried


def _picture(suits: list[int], width: int) -> np.ndarray:
    """Cards side by side: a colour for each suit."""
    from fastrl.envs import drawing

    colours = (drawing.INK, drawing.ORANGE, drawing.BLUE, (176, 62, 62))
    canvas = drawing.Canvas(width, 160, left=0.0, right=width / 80, bottom=0.0)
    pitch = width / 80 / max(len(suits), 1)
    for i, suit in enumerate(suits):
        centre, size = ((i + 0.5) * pitch, 1.0), min(0.8 * pitch, 1.0)
        canvas.box(centre, size, 1.4 * size, 0.1 * size, drawing.FIELD)
        canvas.disc(centre, 0.3 * size, colours[suit])
    return canvas.image()
