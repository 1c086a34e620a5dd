"""What resets cost: rollouts with random actions under each Reset, alternating in one process.

python bench/resets.py --json resets.jsonl --rounds 10
python bench/resets.py --only CartPole --num-envs 64 1024

The ratio is the time with `fresh` over the time with the Reset of the row, the median over rounds;
`none` never resets, which no learner could use: what is left to gain.
"""

import dataclasses
import functools
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import options
from report import Report, Row

import fastrl
from fastrl import reset, spaces
from fastrl.spaces import Box, Discrete
from fastrl.types import Array, Key, Pool, Reset, Step

RESETS: dict[str, Callable[[Any], Reset]] = {
    "pool": reset.pool,
    "pool, renewal 1": functools.partial(reset.pool, renewal=1.0),
    "pool, renewal 0.01": functools.partial(reset.pool, renewal=0.01),
    "cached": reset.cached,
}
ROLLOUT = {"CartPole-v1": 2**20, "maze 15x15": 2**18, "brax/inverted_pendulum": 2**14}


class MazeParams(NamedTuple):
    max_steps: int = 100


class MazeState(NamedTuple):
    walls: Array  # bool [S, S]
    place: Array  # int32 [2]
    goal: Array  # int32 [2]
    time: Array


@dataclasses.dataclass(frozen=True)
class Maze:
    """A random maze whose goal is as far as can be: a reset floods the maze, a step is cheap."""

    version: ClassVar[int] = 1
    size: int = 15

    def default_params(self) -> MazeParams:
        return MazeParams()

    def reset(self, key: Key, params: MazeParams) -> tuple[MazeState, Array]:
        walls = jax.random.uniform(key, (self.size, self.size)) < 0.25
        walls = walls.at[0, 0].set(False)
        far = jnp.where(walls, -1, self._distance(walls)).argmax()
        goal = jnp.stack([far // self.size, far % self.size]).astype(jnp.int32)
        state = MazeState(walls, jnp.zeros(2, jnp.int32), goal, jnp.int32(0))
        return state, self._observe(state)

    def step(
        self, key: Key, state: MazeState, action: Array, params: MazeParams
    ) -> tuple[MazeState, Step]:
        sign = jnp.where(action % 2 == 1, 1, -1)
        move = jnp.stack([jnp.where(action < 2, sign, 0), jnp.where(action < 2, 0, sign)])
        to = jnp.clip(state.place + move, 0, self.size - 1)
        place = jnp.where(state.walls[to[0], to[1]], state.place, to)
        state = state._replace(place=place, time=state.time + 1)
        there = (place == state.goal).all()
        late = (state.time >= params.max_steps) & ~there
        return state, Step(self._observe(state), there.astype(jnp.float32), there, late)

    def observation_space(self, params: MazeParams) -> Box:
        return Box(0.0, float(self.size), (4,))

    def action_space(self, params: MazeParams) -> Discrete:
        return Discrete(4)

    def _observe(self, state: MazeState) -> Array:
        return jnp.concatenate([state.place, state.goal]).astype(jnp.float32)

    def _distance(self, walls: Array) -> Array:
        """Steps from the corner, as far as twice the side of a flood that goes round walls."""
        flood = jnp.zeros(walls.shape, bool).at[0, 0].set(True)

        def spread(carry: Any, step: Array) -> Any:
            flood, distance = carry
            near = flood
            for axis, ahead in ((0, 1), (0, -1), (1, 1), (1, -1)):
                edge = jnp.arange(self.size) == (0 if ahead == 1 else self.size - 1)
                edge = jnp.broadcast_to(edge[:, None] if axis == 0 else edge[None], flood.shape)
                near |= jnp.roll(flood, ahead, axis) & ~edge
            near &= ~walls
            return (near, jnp.where(near & ~flood, step, distance)), None

        steps = jnp.arange(1, 4 * self.size, dtype=jnp.int32)
        start = flood, jnp.zeros(walls.shape, jnp.int32)
        return jax.lax.scan(spread, start, steps)[0][1]


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    parser = options.parser(__doc__)
    parser.set_defaults(rounds=10)
    parser.add_argument("--only", default="", metavar="TEXT", help="environments with TEXT")
    parsed = parser.parse_args(arguments)
    chosen = options.options(parsed)
    report = Report("Resets", chosen)
    for name, steps in ROLLOUT.items():
        if parsed.only in name:
            env = Maze() if name.startswith("maze") else fastrl.make(name)
            for n in chosen.num_envs or ((64, 1024) if not name.startswith("brax") else (64,)):
                length = chosen.steps or max(1, steps // n)
                report.add(*measure(name, env, n, length, chosen.rounds))
    report.close()
    return 0


def measure(name: str, env: Any, num_envs: int, length: int, rounds: int) -> list[Row]:
    """A row for each Reset: all in turn, after one round that compiles and does not count."""
    makes = {"fresh": reset.fresh, **RESETS, "none": none}
    runs = {kind: rollout(env, make(env), num_envs, length) for kind, make in makes.items()}
    seconds: dict[str, list[float]] = {kind: [] for kind in runs}
    for turn in range(rounds + 1):
        for kind, run in runs.items():
            start = time.perf_counter()
            jax.block_until_ready(run())
            if turn:
                seconds[kind].append(time.perf_counter() - start)
    return [row(name, num_envs, length, kind, seconds) for kind in (*RESETS, "none")]


def row(name: str, num_envs: int, length: int, kind: str, seconds: dict[str, list[float]]) -> Row:
    """One Reset against `fresh`."""
    ratios = [a / b for a, b in zip(seconds["fresh"], seconds[kind], strict=True)]
    steps = num_envs * length
    ours, fresh = (steps / statistics.median(seconds[k]) for k in (kind, "fresh"))
    return {
        "bench": "resets", "case": f"{name}, {num_envs} envs: {kind}",
        "settings": {"env": name, "num_envs": num_envs, "steps": length, "reset": kind},
        "peer": "fresh", "variant": "", "status": "ok", "note": "",
        "ratio": statistics.median(ratios), "ratios": ratios,
        "unit": "steps/s", "fastrl": ours, "peer_rate": fresh,
    }  # fmt: skip


def rollout(env: Any, resets: Reset, num_envs: int, length: int) -> Callable[[], Any]:
    """Random play that goes on where the last call stopped."""
    batch, params = fastrl.VecEnv(env, num_envs, resets), env.default_params()
    space = env.action_space(params)

    def policy(key: Key, observation: Any) -> tuple[Any, tuple]:
        return spaces.sample(key, space, (num_envs,)), ()

    def play(state: Any, key: Key) -> Any:
        keep = lambda t, _: t.reward.sum()  # noqa: E731
        state, rewards, _ = fastrl.rollout(batch, policy, key, state, params, length, keep)
        return state, rewards.sum()

    program = jax.jit(play)
    now = {"state": jax.jit(batch.init)(fastrl.key(0), params), "key": fastrl.key(1)}

    def run() -> Any:
        now["key"], key = jax.random.split(now["key"])
        now["state"], total = program(now["state"], key)
        return now["state"], total

    return run


def none(env: Any) -> Reset:
    """Starts that are drawn once, each environment's own."""

    def init(key: Key, params: Any, num_envs: int) -> Any:
        return jax.vmap(env.reset, (0, None))(jax.random.split(key, num_envs), params)

    def draw(key: Key, memory: Any, params: Any, done: Array) -> Pool:
        return Pool(memory, (), *memory)

    return Reset(init, draw)


if __name__ == "__main__":
    sys.exit(main())
