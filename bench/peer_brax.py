"""PPO by `brax.training`; all rounds are parts of one training, evaluated at the end.

`jax.device_put_replicated`, which it calls, is gone from JAX 0.10; here is one.  Its trainer has
the loop in its own hands, so rounds are what happens between two calls of `progress_fn`; the
first two parts compile, each for another layout of the state.
"""

# Peers are installed in environments of their own.
# pyright: reportMissingImports=false

import time
from typing import Any

import jax
import jax.numpy as jnp
import worker


def _device_put_replicated(tree: Any, devices: Any) -> Any:
    return jax.tree.map(lambda x: jnp.stack([x] * len(devices)), tree)


if not hasattr(jax, "device_put_replicated"):
    jax.device_put_replicated = _device_put_replicated

import flax.linen as nn  # noqa: E402
from brax import envs  # noqa: E402
from brax.training import acting  # noqa: E402
from brax.training.agents.ppo import networks, train  # noqa: E402


class _Finished(Exception):  # noqa: N818 - no error: the way out of brax's loop
    """Enough rounds."""


def main(settings: dict[str, Any]) -> None:
    """Serves rounds of `steps` environment steps."""
    env = envs.get_environment(settings["env"].removeprefix("brax/"), **settings["env_options"])
    rounds, latest, began = worker.rounds(), {}, time.perf_counter()

    def keep(step: int, make_policy: Any, params: Any) -> None:
        latest.update(make_policy=make_policy, params=params, step=step)

    def progress(step: int, metrics: Any) -> None:
        seconds, cpu = float(metrics["training/walltime"]), time.process_time()
        latest["parts"] = latest.get("parts", 0) + 1
        if latest["parts"] < settings["warmups"]:
            return
        if latest["parts"] == settings["warmups"]:
            compiling = time.perf_counter() - began
            worker.say(compile_seconds=compiling, versions=worker.versions("brax", "jax"))
        else:
            spent = {"seconds": seconds - latest["walltime"], "cpu_seconds": cpu - latest["cpu"]}
            worker.say(steps=step - latest["seen"], **spent)
        if next(rounds, worker) is worker:
            raise _Finished
        latest.update(walltime=seconds, seen=step, cpu=time.process_time())

    try:
        train.train(
            environment=env, policy_params_fn=keep, progress_fn=progress, **_options(settings)
        )
    except _Finished:
        worker.say(**{"return": _evaluate(env, settings, latest)})


def _options(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of the case as brax names them: sequences of `num_steps` are its samples."""
    h, n, minibatches = settings["hparams"], settings["num_envs"], settings["num_minibatches"]
    if n % minibatches:
        raise ValueError(f"num_envs={n} is not divisible by num_minibatches={minibatches}")
    parts = settings["rounds"] + settings["warmups"]
    activation, sizes = getattr(nn, settings["activation"]), tuple(settings["hidden_sizes"])

    def network(*args: Any, **kwargs: Any) -> Any:
        return networks.make_ppo_networks(
            *args, policy_hidden_layer_sizes=sizes, value_hidden_layer_sizes=sizes,
            activation=activation, **kwargs,
        )  # fmt: skip

    return {
        "num_timesteps": parts * settings["steps"], "num_evals": parts + 1, "run_evals": False,
        "num_envs": n, "unroll_length": settings["num_steps"], "batch_size": n // minibatches,
        "num_minibatches": minibatches, "num_updates_per_batch": settings["num_epochs"],
        "episode_length": 1000, "normalize_observations": settings["normalize_observation"],
        "learning_rate": h["learning_rate"], "discounting": h["gamma"],
        "gae_lambda": h["gae_lambda"], "clipping_epsilon": h["clip"],
        "entropy_cost": h["entropy_coefficient"], "max_grad_norm": h["max_grad_norm"],
        "reward_scaling": settings["reward_scaling"], "network_factory": network,
        "seed": settings["seed"],
    }  # fmt: skip


def _evaluate(env: Any, settings: dict[str, Any], latest: dict[str, Any]) -> float:
    """The mean return of `episodes` episodes of the policy's mode."""
    from brax.envs.wrappers.training import wrap

    evaluator = acting.Evaluator(
        wrap(env, episode_length=1000),
        lambda params: latest["make_policy"](params, deterministic=True),
        num_eval_envs=settings["episodes"], episode_length=1000, action_repeat=1,
        key=jax.random.PRNGKey(settings["seed"] + 1),
    )  # fmt: skip
    return float(evaluator.run_evaluation(latest["params"], {})["eval/episode_reward"])
