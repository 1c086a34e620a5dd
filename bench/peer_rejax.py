"""PPO by rejax; whole trainings in one program, its evaluations left out of the time.

It has no annealing of the learning rate.  The return is that of 128 episodes after training.
"""

# Peers are installed in environments of their own.
# pyright: reportMissingImports=false

from typing import Any

import jax
import worker
from rejax import PPO
from rejax.evaluate import evaluate

EPISODES = 128


def main(settings: dict[str, Any]) -> None:
    """Serves rounds of `steps` environment steps (of each member)."""
    members, h = settings.get("members", 1), settings["hparams"]
    algorithm = PPO.create(
        env=settings["env"], num_envs=settings["num_envs"], num_steps=settings["num_steps"],
        num_epochs=settings["num_epochs"], num_minibatches=settings["num_minibatches"],
        learning_rate=h["learning_rate"], gamma=h["gamma"], gae_lambda=h["gae_lambda"],
        clip_eps=h["clip"], ent_coef=h["entropy_coefficient"], vf_coef=h["value_coefficient"],
        max_grad_norm=h["max_grad_norm"], total_timesteps=settings["steps"],
        eval_freq=settings["steps"], skip_initial_evaluation=True,
        agent_kwargs={
            "activation": settings["activation"], "hidden_layer_sizes": settings["hidden_sizes"],
        },
    ).replace(eval_callback=lambda algorithm, state, key: ())  # fmt: skip
    now = {"key": jax.random.PRNGKey(settings["seed"])}

    def keys() -> Any:
        now["key"], draw = jax.random.split(now["key"])
        return draw if members == 1 else jax.random.split(draw, members)

    function = algorithm.train if members == 1 else jax.vmap(algorithm.train)
    program, seconds = worker.compiled(jax, function, keys())

    def round_() -> dict[str, Any]:
        seeds = jax.block_until_ready(keys())
        (now["state"], _), spent = worker.timed(lambda: jax.block_until_ready(program(seeds)))
        return {"steps": settings["steps"] * members, **spent}

    def finish() -> dict[str, Any]:
        state = now["state"] if members == 1 else jax.tree.map(lambda x: x[0], now["state"])
        params = algorithm.env_params
        _, returns = evaluate(
            algorithm.make_act(state), now["key"], algorithm.env, params, EPISODES,
            params.max_steps_in_episode,
        )  # fmt: skip
        return {"return": float(returns.mean())}

    round_()
    versions = worker.versions("rejax", "gymnax", "jax")
    worker.serve(round_, finish, compile_seconds=seconds, versions=versions)
