"""Random-action stepping by xland-minigrid: the same rollout as `own_stepping`, in its own way.

Its view is tile and colour of 7 by 7 cells, of which none ever hides another.
"""

# Peers are installed in environments of their own.
# pyright: reportMissingImports=false

from typing import Any

import jax
import stepping
import xminigrid
from xminigrid.wrappers import GymAutoResetWrapper

NAMES = {"Empty-Random": "EmptyRandom", "UnlockPickup": "UnlockPickUp"}  # unlike MiniGrid's


def main(settings: dict[str, Any]) -> None:
    """Serves rounds of `seconds`."""
    name = settings["env"].removesuffix("-v0")
    for theirs, own in NAMES.items():
        name = name.replace(theirs, own)
    env, params = xminigrid.make(name)
    env, n = GymAutoResetWrapper(env), settings["num_envs"]
    actions = env.num_actions(params)

    def body(timestep: Any, key: Any) -> Any:
        before = timestep.observation
        action = jax.random.randint(key, (n,), 0, actions)
        timestep = jax.vmap(env.step, (None, 0, 0))(params, timestep, action)
        ended = timestep.last()
        stored = (before, action, timestep.reward, ended, timestep.observation)
        return timestep, (
            (timestep.reward.sum(), ended.sum()),
            stored if settings["store"] else (),
        )

    def run(timestep: Any, key: Any) -> Any:
        keys = jax.random.split(key, settings["steps"])
        timestep, (sums, stored) = jax.lax.scan(body, timestep, keys)
        return timestep, jax.tree.map(lambda x: x.sum(), sums), stored

    def init(key: Any) -> Any:
        return jax.vmap(env.reset, (None, 0))(params, jax.random.split(key, n))

    key = jax.random.PRNGKey(settings["seed"])
    stepping.serve_scan(jax, settings, init, run, key, "xminigrid", "jax")
