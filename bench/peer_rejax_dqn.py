"""DQN by rejax; whole trainings in one program, its evaluations left out of the time.

Its networks have two layers of 64 whatever is asked for.  Its target network is copied by
environment steps.  The return is that of 128 episodes after training.
"""

# Peers are installed in environments of their own.
# pyright: reportMissingImports=false

from typing import Any

import jax
import worker
from rejax import DQN
from rejax.evaluate import evaluate

EPISODES = 128


def main(settings: dict[str, Any]) -> None:
    """Serves rounds of `steps` environment steps (of each member)."""
    members, h = settings.get("members", 1), settings["hparams"]
    algorithm = DQN.create(
        env=settings["env"], num_envs=settings["num_envs"], num_epochs=1,
        batch_size=settings["batch_size"], buffer_size=settings["buffer_size"],
        fill_buffer=settings["learning_starts"], ddqn=settings["double"],
        learning_rate=h["learning_rate"], gamma=h["gamma"], max_grad_norm=h["max_grad_norm"],
        eps_start=h["epsilon"], eps_end=h["final_epsilon"],
        exploration_fraction=h["exploration_steps"] / settings["steps"],
        target_update_freq=h["target_period"] * settings["num_envs"], polyak=0.0,
        total_timesteps=settings["steps"], eval_freq=settings["steps"],
        skip_initial_evaluation=True, agent_kwargs={"activation": settings["activation"]},
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
