"""Records jaxued's maze step by step into `maze.npz`, for `tests/test_maze.py`.

Run with jaxued's sources (DramaCow/jaxued 0f8f128) on the path, and its requirements: jax,
flax, chex, gymnax 0.0.9:

    PYTHONPATH=jaxued/src python tests/golden/make_maze.py

30 random levels with 0 to 60 walls, 60 states of each and the seven actions in all of them:
12,600 transitions.  States in which the agent would stand on a wall or on the goal are left
out; all free cells beside the goal are among them with all directions, and states at the time
limit.
"""

# The original is installed in an environment of its own.
# pyright: reportMissingImports=false, reportArgumentType=false

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxued.environments.maze import Level, Maze
from jaxued.environments.maze.util import make_level_generator

LEVELS, STATES, LIMIT = 30, 60, 250


def main() -> None:
    rng = np.random.default_rng(0)
    env = Maze(normalize_obs=True)
    params = env.default_params
    step = jax.jit(jax.vmap(jax.vmap(env.step, (None, None, 0, None)), (None, 0, None, None)))
    rows: dict[str, list] = {}
    for i in range(LEVELS):
        generate = make_level_generator(13, 13, int(rng.integers(0, 61)))
        level: Level = generate(jax.random.key(i))
        walls = np.asarray(level.wall_map)
        goal = int(level.goal_pos[1]) * 13 + int(level.goal_pos[0])
        cells = np.setdiff1d(np.flatnonzero(~walls), goal)
        near = [c for c in goal + np.array([-13, -1, 1, 13]) if c in cells]
        cells = np.append(rng.choice(cells, STATES - 4 * len(near)), np.repeat(near, 4)).astype(int)
        states = np.stack([cells, np.arange(STATES) % 4, rng.integers(0, LIMIT, STATES)], -1)
        states[:5, 2] = LIMIT - 1
        start = env.init_state_from_level(level)
        many = jax.tree.map(lambda x: jnp.broadcast_to(x, (STATES, *jnp.shape(x))), start)
        many = many.replace(
            agent_pos=jnp.asarray(np.stack([cells % 13, cells // 13], -1), jnp.uint32),
            agent_dir=jnp.asarray(states[:, 1], jnp.uint8),
            time=jnp.asarray(states[:, 2]),
        )
        seen, after, reward, done, _ = step(jax.random.key(0), many, jnp.arange(7), params)
        place = after.agent_pos[..., 1] * 13 + after.agent_pos[..., 0]
        outcome = [place, after.agent_dir, done, seen.agent_dir]
        found = {
            "walls": np.packbits(walls),
            "goal": goal,
            "state": states.astype(np.uint8),
            "image": np.round(np.asarray(seen.image) * 10).astype(np.uint8),
            "outcome": np.stack([np.asarray(o).astype(np.uint8) for o in outcome], -1),
            "reward": np.asarray(reward, np.float32),
        }
        for name, values in found.items():
            rows.setdefault(name, []).append(values)
    np.savez_compressed(
        Path(__file__).with_name("maze.npz"), **{k: np.stack(v) for k, v in rows.items()}
    )


if __name__ == "__main__":
    main()
