"""Random-action stepping by navix: the same rollout as `own_stepping`, in navix's own way.

`view` is "egocentric" for what MiniGrid shows, 7 by 7 cells with what walls hide, or "whole" for
navix's default, all of the grid.
"""

# Peers are installed in environments of their own.
# pyright: reportMissingImports=false

from typing import Any

import jax
import navix
import stepping


def main(settings: dict[str, Any]) -> None:
    """Serves rounds of `seconds`. MiniGrid's names are navix's, but for their first word."""
    see = navix.observations
    view = see.symbolic if settings.get("view") == "whole" else see.symbolic_first_person
    env = navix.make(settings["env"].replace("MiniGrid", "Navix"), observation_fn=view)
    n, actions = settings["num_envs"], len(env.action_set)

    def body(timestep: Any, key: Any) -> Any:
        before = timestep.observation
        action = jax.random.randint(key, (n,), 0, actions)
        timestep = jax.vmap(env.step)(timestep, action)
        ended = timestep.step_type > 0  # it resets with the next step
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
        return jax.vmap(env.reset)(jax.random.split(key, n))

    key = jax.random.PRNGKey(settings["seed"])
    stepping.serve_scan(jax, settings, init, run, key, "navix", "jax")
