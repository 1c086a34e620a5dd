"""Random-action stepping by fastrl: `steps` steps of `num_envs` environments in one scan."""

from typing import Any

import jax
import jax.numpy as jnp
import stepping

import fastrl
from fastrl import spaces


def main(settings: dict[str, Any]) -> None:
    """Serves rounds of `seconds`."""
    env, num_envs = fastrl.make(settings["env"]), settings["num_envs"]
    params = env.default_params()
    vec_env = fastrl.VecEnv(env, num_envs, fastrl.reset.default(env)(env))
    space = env.action_space(params)

    def policy(key: Any, observation: Any) -> tuple[Any, tuple]:
        if isinstance(space, spaces.Discrete):
            return jax.random.randint(key, (num_envs,), 0, space.n), ()
        low, high = jnp.asarray(space.low), jnp.asarray(space.high)
        return jax.random.uniform(key, (num_envs, *space.shape), minval=low, maxval=high), ()

    def keep(t: Any, extras: Any) -> Any:
        sums = t.reward.sum(), (t.terminated | t.truncated).sum()
        return sums, t if settings["store"] else ()

    def run(state: Any, key: Any) -> Any:
        steps = settings["steps"]
        state, (sums, stored), _ = fastrl.rollout(vec_env, policy, key, state, params, steps, keep)
        return state, jax.tree.map(jnp.sum, sums), stored

    def init(key: Any) -> Any:
        return vec_env.init(key, params)

    key = fastrl.key(settings["seed"])
    stepping.serve_scan(jax, settings, init, run, key, "fastrl", "jax")
