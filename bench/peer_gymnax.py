"""Random-action stepping by gymnax: the same rollout as `own_stepping`, in gymnax's own way.

Actions are drawn for all environments at once, which is cheaper than its documented key for each.
"""

# Peers are installed in environments of their own.
# pyright: reportMissingImports=false

from typing import Any

import gymnax
import jax
import jax.numpy as jnp
import stepping


def main(settings: dict[str, Any]) -> None:
    """Serves rounds of `seconds`."""
    env, params = gymnax.make(settings["env"])
    space, n = env.action_space(params), settings["num_envs"]

    def actions(key: Any) -> Any:
        if hasattr(space, "n"):
            return jax.random.randint(key, (n,), 0, space.n)
        return jax.random.uniform(key, (n, *space.shape), minval=space.low, maxval=space.high)

    def body(carry: Any, key: Any) -> Any:
        state, observation = carry
        action_key, step_key = jax.random.split(key)
        action = actions(action_key)
        following, state, reward, *ends, info = jax.vmap(env.step, (0, 0, 0, None))(
            jax.random.split(step_key, n), state, action, params
        )
        reward = jnp.reshape(reward, (n,))
        sums = reward.sum(), jnp.any(jnp.stack(ends), axis=0).sum()
        successor = info.get("final_observation", following)  # none in gymnax 0.0.9
        stored = (observation, action, reward, *ends, successor) if settings["store"] else ()
        return (state, following), (sums, stored)

    def run(carry: Any, key: Any) -> Any:
        keys = jax.random.split(key, settings["steps"])
        carry, (sums, stored) = jax.lax.scan(body, carry, keys)
        return carry, jax.tree.map(jnp.sum, sums), stored

    def init(key: Any) -> Any:
        observation, state = jax.vmap(env.reset, (0, None))(jax.random.split(key, n), params)
        return state, observation

    key = jax.random.PRNGKey(settings["seed"])
    stepping.serve_scan(jax, settings, init, run, key, "gymnax", "jax")
