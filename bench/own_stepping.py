"""Random-action stepping by fastrl: `steps` steps of `num_envs` environments in one scan."""

import os
from typing import Any

import jax
import jax.numpy as jnp
import resets
import stepping

import fastrl
from fastrl import spaces

RESETS: dict[Any, Any] = {**resets.RESETS, "none": resets.none}


def own_params(env: Any) -> fastrl.Reset:
    """The Reset that suits `env`, with a copy of the params for every environment."""
    start = fastrl.reset.default(env)(env)

    def draw(key: Any, memory: Any, params: Any, done: Any) -> Any:
        n = done.shape[0]
        copies = jax.tree.map(lambda x: jnp.broadcast_to(x, (n, *jnp.shape(x))), params)
        if jax.tree.leaves(memory):  # starts are drawn ahead, with the shared params
            return start.draw(key, memory, params, done)._replace(params=copies)
        state, observation = jax.vmap(env.reset)(jax.random.split(key, n), copies)
        return fastrl.Pool((), copies, state, observation)

    return start._replace(draw=draw, per_env_params=True)


def main(settings: dict[str, Any]) -> None:
    """Serves rounds of `seconds`.

    With `per_env` every environment has params of its own; `reset` names another Reset, `keys`
    another kind of keys. With `traced` the params are arguments of the program, as learners have
    them, where they are constants else, as peers have theirs.
    """
    if settings.get("keys"):
        os.environ["FASTRL_PRNG"] = settings["keys"]
    env, num_envs = fastrl.make(settings["env"], **settings["options"]), settings["num_envs"]
    params = env.default_params()
    start = RESETS.get(settings.get("reset"), fastrl.reset.default(env))(env)
    vec_env = fastrl.VecEnv(env, num_envs, own_params(env) if settings.get("per_env") else start)
    space = env.action_space(params)

    def policy(key: Any, observation: Any) -> tuple[Any, tuple]:
        return spaces.sample(key, space, (num_envs,)), ()

    def keep(t: Any, extras: Any) -> Any:
        sums = t.reward.sum(), (t.terminated | t.truncated).sum()
        return sums, t if settings["store"] else ()

    def run(carry: Any, key: Any) -> Any:
        state, given = carry
        task = given if settings.get("traced") else params
        steps = settings["steps"]
        state, (sums, stored), _ = fastrl.rollout(vec_env, policy, key, state, task, steps, keep)
        return (state, given), jax.tree.map(jnp.sum, sums), stored

    def init(key: Any) -> Any:
        return vec_env.init(key, params), jax.tree.map(jnp.asarray, params)

    key = fastrl.key(settings["seed"])
    stepping.serve_scan(jax, settings, init, run, key, "fastrl", "jax")
