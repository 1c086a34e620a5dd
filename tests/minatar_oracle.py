"""What the package MinAtar does, transition by transition, for comparison with `envs/minatar`.

Needs `pip install MinAtar==1.0.15`. `tests/golden/make_minatar.py` records what `play` returns,
for tests without the package.

Chance is matched by recording: the package draws from a `RandomState`, which is wrapped so that
every number drawn in a step is known; `_EVENTS` makes of them the events of that step.  What was
not drawn is filled with other numbers, which must not matter.

Play is random, but reaches far into the games: half of the actions are those of a crude player, a
lost game goes on half of the time (the package keeps a flag and nothing else), and now and then
the state is written over with another one (`_DISTURB`).
"""

# pyright: reportMissingImports=false

from collections.abc import Callable
from typing import Any

import numpy as np

NAMES = ("asterix", "breakout", "freeway", "seaquest", "space_invaders")

Arrays = dict[str, np.ndarray]
Draws = list[tuple[str, Any]]  # the method and what it returned


class Recorder:
    """A `RandomState` that keeps what it returned."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.RandomState(seed)
        self.draws: Draws = []

    def rand(self, *shape: int) -> Any:
        return self._keep("rand", self._random.rand(*shape))

    def randint(self, *args: Any, **options: Any) -> Any:
        return self._keep("randint", self._random.randint(*args, **options))

    def _keep(self, name: str, value: Any) -> Any:
        self.draws.append((name, np.copy(value)))  # the package changes arrays in place
        return value


def play(name: str, steps: int, seed: int) -> Arrays:
    """`steps` transitions of the game: facts before and after, action, events and outcome.

    Facts are what the package's object holds, as arrays of fixed shapes: see `_FACTS`.
    """
    rng = np.random.default_rng(seed)
    made, rows = {}, []
    for ramping in (True, False):
        made[ramping] = make(name, seed + ramping, ramping)
    for t in range(steps):
        ramping = t < steps * 2 // 3
        environment, recorder = made[ramping]
        game = environment.env
        if rng.random() < 0.03:
            _DISTURB[name](game, rng)
        before = facts(name, environment)
        action = _PLAYERS[name](game, rng) if rng.random() < 0.5 else int(rng.integers(6))
        recorder.draws.clear()
        reward, terminal = environment.act(action)
        repeat = recorder.draws[0][1] < environment.sticky_action_prob
        events = _EVENTS[name](before, recorder.draws[1:], rng) | {"repeat": repeat}
        after = facts(name, environment)
        outcome = {
            "action": action, "ramping": ramping, "reward": reward, "terminal": terminal,
            "observation": np.packbits(environment.state()),
        }  # fmt: skip
        parts = {"before": before, "event": events, "after": after, "outcome": outcome}
        rows.append({f"{p}/{k}": v for p, part in parts.items() for k, v in part.items()})
        if terminal:
            if name in ("breakout", "freeway") or rng.random() < 0.5:
                environment.reset()
            game.terminal = False
    return {key: np.array([row[key] for row in rows]) for key in rows[0]}


def starts(name: str, count: int, seed: int) -> Arrays:
    """`count` starts of the game: facts, observation, and what was drawn as `event/...`."""
    environment, recorder = make(name, seed, True)
    rows = []
    for _ in range(count):
        recorder.draws.clear()
        environment.reset()
        draws = [value for _, value in recorder.draws]
        event = {}
        if name == "breakout":
            event = {"from_left": draws[0] == 0}
        elif name == "freeway":
            event = {"speed": _speeds(draws)}
        parts = {"after": facts(name, environment), "event": event}
        row = {f"{p}/{k}": v for p, part in parts.items() for k, v in part.items()}
        rows.append(row | {"outcome/observation": np.packbits(environment.state())})
    return {key: np.array([row[key] for row in rows]) for key in rows[0]}


def make(name: str, seed: int, ramping: bool) -> tuple[Any, Recorder]:
    """The package's environment, drawing from a recorder, after a reset."""
    import minatar

    environment = minatar.Environment(name, difficulty_ramping=ramping)
    recorder = Recorder(seed)
    environment.random = environment.env.random = recorder
    environment.reset()
    return environment, recorder


def facts(name: str, environment: Any) -> Arrays:
    """The whole state, but for `terminal`, as arrays of int32 and bool."""
    numbers, arrays = _FACTS[name]
    game = environment.env
    scalars = [int(getattr(game, n)) for n in numbers] + [environment.last_action]
    return {"numbers": np.array(scalars, np.int32)} | arrays(game)


def names_of_numbers(name: str) -> tuple[str, ...]:
    """What the entries of `numbers` are, by the names of the package."""
    return (*_FACTS[name][0], "last_action")


def _table(rows: Any, shape: tuple[int, int]) -> np.ndarray:
    """A list of lists as int16 of `shape`, with -99 for what there is not."""
    table = np.full(shape, -99, np.int16)
    for i, row in enumerate(rows):
        if row is not None:
            table[i, : len(row)] = row
    return table


def _asterix(game: Any) -> Arrays:
    return {"entities": _table(game.entities, (8, 4))}


def _breakout(game: Any) -> Arrays:
    return {"brick_map": game.brick_map != 0}


def _freeway(game: Any) -> Arrays:
    return {"cars": np.array(game.cars, np.int16)}


def _seaquest(game: Any) -> Arrays:
    """Lists in their order; of the enemies' bullets the cells, by where they go."""
    enemy_bullets = np.zeros((2, 10, 10), bool)
    for x, y, to_right in game.e_bullets:
        if 0 <= x <= 9:
            enemy_bullets[int(to_right), y, x] = True
    return {
        "fish": _table(game.e_fish, (32, 4)), "subs": _table(game.e_subs, (32, 5)),
        "divers": _table(game.divers, (2, 4)), "bullets": _table(game.f_bullets, (2, 3)),
        "enemy_bullets": enemy_bullets,
    }  # fmt: skip


def _space_invaders(game: Any) -> Arrays:
    names = ("f_bullet_map", "e_bullet_map", "alien_map")
    return {name: getattr(game, name) != 0 for name in names}


_FACTS: dict[str, tuple[tuple[str, ...], Callable[[Any], Arrays]]] = {
    "asterix": (
        ("player_x", "player_y", "spawn_speed", "spawn_timer", "move_speed", "move_timer",
         "ramp_timer", "ramp_index"),
        _asterix,
    ),
    "breakout": (("ball_x", "ball_y", "ball_dir", "pos", "strike", "last_x", "last_y"), _breakout),
    "freeway": (("pos", "move_timer", "terminate_timer"), _freeway),
    "seaquest": (
        ("oxygen", "diver_count", "sub_x", "sub_y", "sub_or", "e_spawn_speed", "e_spawn_timer",
         "d_spawn_timer", "move_speed", "ramp_index", "shot_timer", "surface"),
        _seaquest,
    ),
    "space_invaders": (
        ("pos", "alien_dir", "enemy_move_interval", "alien_move_timer", "alien_shot_timer",
         "ramp_index", "shot_timer"),
        _space_invaders,
    ),
}  # fmt: skip


def _asterix_events(before: Arrays, draws: Draws, rng: Any) -> dict[str, Any]:
    values = [value for _, value in draws]
    free = int((before["entities"][:, 0] == -99).sum())
    event = {"to_right": rng.random() < 0.5, "gold": rng.random() < 0.5, "row": rng.random()}
    if values:
        event |= {"to_right": values[0] < 1 / 2, "gold": values[1] < 1 / 3}
    if len(values) > 2:
        event["row"] = (values[2] + 0.5) / free
    return event


def _freeway_events(before: Arrays, draws: Draws, rng: Any) -> dict[str, Any]:
    values = [value for _, value in draws]
    return {"speed": _speeds(values if values else (rng.integers(1, 6, 8), rng.random(8)))}


def _speeds(values: Any) -> np.ndarray:
    speeds, directions = values
    return (speeds * np.sign(directions - 0.5)).astype(np.int32)


def _seaquest_events(before: Arrays, draws: Draws, rng: Any) -> dict[str, Any]:
    values = [value for _, value in draws]
    number = dict(zip(names_of_numbers("seaquest"), before["numbers"], strict=True))
    enemy = values[:3] if number["e_spawn_timer"] == 0 else [*rng.random(2), rng.integers(1, 9)]
    diver = values[-2:] if number["d_spawn_timer"] == 0 else [rng.random(), rng.integers(1, 9)]
    return {
        "enemy_to_right": enemy[0] < 1 / 2, "enemy_submarine": enemy[1] < 1 / 3,
        "enemy_y": np.int8(enemy[2]), "diver_to_right": diver[0] < 1 / 2,
        "diver_y": np.int8(diver[1]),
    }  # fmt: skip


def _no_events(before: Arrays, draws: Draws, rng: Any) -> dict[str, Any]:
    return {}


_EVENTS = {
    "asterix": _asterix_events, "breakout": _no_events, "freeway": _freeway_events,
    "seaquest": _seaquest_events, "space_invaders": _no_events,
}  # fmt: skip


def _toward(have: int, want: int, less: int, more: int) -> int:
    return less if want < have else more if want > have else 0


def _play_asterix(game: Any, rng: Any) -> int:
    """After the gold."""
    gold = [e for e in game.entities if e is not None and e[3]]
    if not gold:
        return int(rng.integers(5))
    x, y = gold[0][:2]
    return _toward(game.player_y, y, 2, 4) or _toward(game.player_x, x, 1, 3)


def _play_breakout(game: Any, rng: Any) -> int:
    return _toward(game.pos, game.ball_x, 1, 3)


def _play_freeway(game: Any, rng: Any) -> int:
    return 2


def _play_seaquest(game: Any, rng: Any) -> int:
    """After divers, up with them, and shooting all the while."""
    if game.diver_count >= rng.integers(1, 7):
        return 2
    if rng.random() < 0.4 or not game.divers:
        return int(rng.choice([5, 4]))
    x, y = game.divers[0][:2]
    return _toward(game.sub_y, y, 2, 4) or _toward(game.sub_x, x, 1, 3)


def _play_space_invaders(game: Any, rng: Any) -> int:
    return int(rng.choice([1, 3, 5, 5]))


_PLAYERS: dict[str, Callable[[Any, Any], int]] = {
    "asterix": _play_asterix, "breakout": _play_breakout, "freeway": _play_freeway,
    "seaquest": _play_seaquest, "space_invaders": _play_space_invaders,
}  # fmt: skip


def _disturb_asterix(game: Any, rng: Any) -> None:
    game.spawn_speed, game.move_speed = rng.integers(1, 11), rng.integers(1, 6)
    game.spawn_timer, game.move_timer = rng.integers(game.spawn_speed), rng.integers(5)
    game.ramp_timer, game.ramp_index = rng.integers(-1, 4), rng.integers(20)
    game.player_x, game.player_y = int(rng.integers(10)), int(rng.integers(1, 9))


def _disturb_breakout(game: Any, rng: Any) -> None:
    """A wall that is nearly or quite broken, and the ball anywhere above the last row."""
    game.brick_map[1:4, :] = rng.random((3, 10)) < rng.choice([0.0, 0.05, 0.5])
    game.ball_x, game.ball_y, game.ball_dir = rng.integers(10), rng.integers(9), rng.integers(4)
    game.last_x, game.last_y, game.pos = rng.integers(10), rng.integers(9), rng.integers(10)
    game.strike = bool(rng.random() < 0.3)


def _disturb_freeway(game: Any, rng: Any) -> None:
    game.pos, game.move_timer = int(rng.integers(1, 10)), int(rng.integers(4))
    game.terminate_timer = int(rng.integers(40))
    for car in game.cars:
        car[0] = int(rng.integers(10))
        car[2] = int(rng.integers(abs(car[3]) + 1))


def _disturb_seaquest(game: Any, rng: Any) -> None:
    """Another place, load and level; the enemies that a lower level let in are gone."""
    game.sub_x, game.sub_y = int(rng.integers(10)), int(rng.integers(9))
    game.sub_or = bool(game.sub_x == 9 or (game.sub_x > 0 and rng.random() < 0.5))
    game.diver_count, game.oxygen = int(rng.integers(-2, 7)), int(rng.integers(201))
    game.surface = bool(rng.random() < 0.5)
    game.e_spawn_speed, game.move_speed, game.ramp_index = 20, 5, 0
    for level in range(int(rng.integers(25))):
        game.move_speed -= int(game.move_speed > 2 and level % 2)
        game.e_spawn_speed -= int(game.e_spawn_speed > 1)
    game.ramp_index = int(rng.integers(20))
    game.e_spawn_timer = int(rng.integers(game.e_spawn_speed + 1))
    game.e_fish, game.e_subs, game.f_bullets = [], [], []


def _disturb_space_invaders(game: Any, rng: Any) -> None:
    """Aliens anywhere, few or many, and shots at random."""
    game.alien_map = (rng.random((10, 10)) < rng.choice([0.01, 0.1, 0.4])).astype(float)
    game.alien_map[rng.integers(9), rng.integers(10)] = 1
    game.f_bullet_map = (rng.random((10, 10)) < 0.05).astype(float)
    game.e_bullet_map = (rng.random((10, 10)) < 0.05).astype(float)
    game.alien_dir = int(rng.choice([-1, 1]))
    game.enemy_move_interval = int(rng.integers(6, 13))
    game.alien_move_timer, game.alien_shot_timer = rng.integers(3), rng.integers(3)
    game.shot_timer, game.pos = int(rng.integers(3)), int(rng.integers(10))


_DISTURB: dict[str, Callable[[Any, Any], None]] = {
    "asterix": _disturb_asterix, "breakout": _disturb_breakout, "freeway": _disturb_freeway,
    "seaquest": _disturb_seaquest, "space_invaders": _disturb_space_invaders,
}  # fmt: skip
