"""States of our MinAtar games from facts of the package (`minatar_oracle.facts`), and back."""

import importlib
from typing import Any

import numpy as np
from minatar_oracle import names_of_numbers

Arrays = dict[str, np.ndarray]

asterix, breakout, freeway, seaquest, space_invaders = (
    importlib.import_module(f"fastrl.envs.minatar.{name}")
    for name in ("asterix", "breakout", "freeway", "seaquest_rules", "space_invaders")
)

MISSING = -99  # in the package's lists, where there is nothing
FAR = 1000  # a time that no game's limit reaches


def encode(name: str, facts: Arrays) -> Any:
    """Our state of the game `name`."""
    numbers = zip(names_of_numbers(name), facts["numbers"].astype(np.int32), strict=True)
    return _ENCODE[name](dict(numbers), facts)


def decode(name: str, state: Any) -> Arrays:
    """Facts of our state: what `encode` takes."""
    numbers, arrays = _DECODE[name](state)
    numbers["last_action"] = state.last_action
    values = [int(numbers[n]) for n in names_of_numbers(name)]
    return {"numbers": np.array(values, np.int32)} | arrays


def _words(cells: np.ndarray, count: int) -> tuple[np.uint32, ...]:
    """A board of bits in `count` words: see `envs/minatar/bits.py`."""
    flat = cells.reshape(-1)
    powers = 1 << np.arange(30, dtype=np.uint32)
    groups = (flat[30 * i : 30 * i + 30] for i in range(count))
    return tuple(np.uint32((g * powers[: len(g)]).sum()) for g in groups)


def _cells(words: Any) -> np.ndarray:
    """bool `[10, 10]` of a board of bits."""
    bits = np.asarray(words, np.uint32)[:, None] >> np.arange(30, dtype=np.uint32) & 1
    return np.resize(np.append(bits, np.zeros(100)), 100).astype(bool).reshape(10, 10)


def _encode_asterix(n: Any, facts: Arrays) -> Any:
    boards = {field: np.zeros((10, 10), bool) for field in asterix.Things._fields}
    for i, (x, y, to_right, gold) in enumerate(facts["entities"]):
        if x != MISSING:
            assert y == i + 1
            kind = "gold" if gold else "enemies"
            boards[f"{kind}_{'right' if to_right else 'left'}"][y, x] = True
    return asterix.State(
        n["player_x"], n["player_y"], asterix.Things(*(_words(b, 3) for b in boards.values())),
        n["spawn_speed"], n["move_speed"], n["spawn_timer"], n["move_timer"], n["ramp_timer"],
        n["ramp_index"], n["last_action"], np.int32(FAR),
    )  # fmt: skip


def _decode_asterix(s: Any) -> tuple[dict, Arrays]:
    entities = np.full((8, 4), MISSING, np.int16)
    for field, words in s.things._asdict().items():
        for y, x in np.argwhere(_cells(words)):
            assert entities[y - 1, 0] == MISSING, "two things in a row"
            entities[y - 1] = (x, y, field.endswith("right"), field.startswith("gold"))
    return s._asdict(), {"entities": entities}


def _encode_breakout(n: Any, facts: Arrays) -> Any:
    assert not facts["brick_map"][[0, *range(4, 10)]].any()
    return breakout.State(
        n["pos"], n["ball_x"], n["ball_y"], np.bool_(n["ball_dir"] in (1, 2)),
        np.bool_(n["ball_dir"] in (2, 3)), n["last_x"], n["last_y"],
        _words(facts["brick_map"][1:4], 1)[0], np.bool_(n["strike"]), n["last_action"],
        np.int32(FAR),
    )  # fmt: skip


def _decode_breakout(s: Any) -> tuple[dict, Arrays]:
    direction = {(0, 0): 0, (1, 0): 1, (1, 1): 2, (0, 1): 3}[int(s.to_right), int(s.to_bottom)]
    bricks = np.zeros((10, 10), bool)
    bricks[1:4] = _cells([s.bricks])[:3]
    return s._asdict() | {"pos": s.paddle, "ball_dir": direction}, {"brick_map": bricks}


def _encode_freeway(n: Any, facts: Arrays) -> Any:
    x, y, timer, speed = facts["cars"].T.astype(np.int32)
    assert list(y) == list(range(1, 9))
    time = freeway.Params().frames - n["terminate_timer"]
    return freeway.State(n["pos"], x, speed, timer, n["move_timer"], n["last_action"], time)


def _decode_freeway(s: Any) -> tuple[dict, Arrays]:
    cars = np.stack([s.x, np.arange(1, 9), s.timer, s.speed], axis=1).astype(np.int16)
    left = freeway.Params().frames - s.time
    return s._asdict() | {"pos": s.y, "terminate_timer": left}, {"cars": cars}


def _encode_space_invaders(n: Any, facts: Arrays) -> Any:
    maps = (facts[f] for f in ("f_bullet_map", "e_bullet_map", "alien_map"))
    return space_invaders.State(
        n["pos"], *(_words(m, 4) for m in maps), np.bool_(n["alien_dir"] > 0),
        n["enemy_move_interval"], n["alien_move_timer"], n["alien_shot_timer"], n["shot_timer"],
        n["ramp_index"], n["last_action"], np.int32(FAR),
    )  # fmt: skip


def _decode_space_invaders(s: Any) -> tuple[dict, Arrays]:
    maps = {"f_bullet_map": s.shots, "e_bullet_map": s.alien_shots, "alien_map": s.aliens}
    numbers = {
        "pos": s.cannon, "alien_dir": 1 if s.to_right else -1,
        "enemy_move_interval": s.move_interval,
    }  # fmt: skip
    return s._asdict() | numbers, {name: _cells(words) for name, words in maps.items()}


_SEAQUEST = {  # ours: the package's
    "x": "sub_x", "y": "sub_y", "to_right": "sub_or", "surfaced": "surface", "oxygen": "oxygen",
    "aboard": "diver_count", "enemy_interval": "e_spawn_speed", "enemy_timer": "e_spawn_timer",
    "diver_timer": "d_spawn_timer", "move_interval": "move_speed", "shot_timer": "shot_timer",
    "ramp_index": "ramp_index", "last_action": "last_action",
}  # fmt: skip


def _encode_seaquest(n: Any, facts: Arrays) -> Any:
    """Fish and submarines take slots in their order, from any one on."""
    fish, subs = ([row for row in facts[k] if row[0] != MISSING] for k in ("fish", "subs"))
    first = int(n["oxygen"]) % 32
    enemies = seaquest.Enemies(
        *(np.zeros(32, bool if f in ("alive", "submarine", "to_right") else np.int8)
          for f in seaquest.Enemies._fields)
    )  # fmt: skip
    for i, row in enumerate([*fish, *subs]):
        values = (True, len(row) > 4, *row[:4], row[4] if len(row) > 4 else i % 7)
        for array, value in zip(enemies, values, strict=True):
            array[(first + i) % 32] = value
    rows = facts["enemy_bullets"][:, 1:9] @ (1 << np.arange(10, dtype=np.uint32))
    types = {"x": np.int8, "y": np.int8, "to_right": np.bool_, "surfaced": np.bool_}
    return seaquest.State(
        shots=_slots(seaquest.Shot, facts["bullets"]),
        divers=_slots(seaquest.Diver, facts["divers"]),
        enemies=enemies,
        next_slot=np.int8((first + len(fish) + len(subs)) % 32),
        enemy_shots=(rows[1] | rows[0] << 10).astype(np.uint32),
        time=np.int32(FAR),
        **{k: types.get(k, np.int32)(n[v]) for k, v in _SEAQUEST.items()},
    )


def _slots(cls: Any, table: np.ndarray) -> Any:
    """The last slots for what there is; the others hold something that is not alive."""
    rows = [row for row in table if row[0] != MISSING]
    idle = [3, 4, True, 2][: table.shape[1]]
    both = [(False, idle)] * (2 - len(rows)) + [(True, row) for row in rows]
    types = (np.bool_, np.int8, np.int8, np.bool_, np.int8)
    return tuple(
        cls(*(t(v) for t, v in zip(types, (alive, *row), strict=False))) for alive, row in both
    )


def _decode_seaquest(s: Any) -> tuple[dict, Arrays]:
    fish, subs = [], []
    for age in range(32):
        e = [field[(s.next_slot + age) % 32] for field in s.enemies]
        if e[0]:
            (subs if e[1] else fish).append(e[2:] if e[1] else e[2:-1])
    tables = {
        "fish": (fish, 4, 32), "subs": (subs, 5, 32),
        "divers": ([d[1:] for d in s.divers if d.alive], 4, 2),
        "bullets": ([b[1:] for b in s.shots if b.alive], 3, 2),
    }  # fmt: skip
    arrays = {}
    for name, (rows, width, count) in tables.items():
        arrays[name] = np.full((count, width), MISSING, np.int16)
        for i, row in enumerate(rows):
            arrays[name][i] = row
    arrays["enemy_bullets"] = np.zeros((2, 10, 10), bool)
    for direction, shift in ((1, 0), (0, 10)):
        bits = (s.enemy_shots[:, None] >> (shift + np.arange(10, dtype=np.uint32))) & 1
        arrays["enemy_bullets"][direction, 1:9] = bits
    return {package: getattr(s, ours) for ours, package in _SEAQUEST.items()}, arrays


_ENCODE = {
    "asterix": _encode_asterix, "breakout": _encode_breakout, "freeway": _encode_freeway,
    "seaquest": _encode_seaquest, "space_invaders": _encode_space_invaders,
}  # fmt: skip
_DECODE = {
    "asterix": _decode_asterix, "breakout": _decode_breakout, "freeway": _decode_freeway,
    "seaquest": _decode_seaquest, "space_invaders": _decode_space_invaders,
}  # fmt: skip
