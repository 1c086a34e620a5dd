"""What a meta-gradient asks of an inner learner beside the Algorithm: a view into it.

An Algorithm's `step` can be differentiated in `hparams.objective`.  The outer loss also wants
the log-probabilities of the policy that came of it, on a rollout of its own, and where the
learner knows them, the rollouts that it learned from and the sizes of its targets.  A `View` is
made from the outside, so no inner algorithm knows of it.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fastrl import networks, vec
from fastrl.distributions import Distribution
from fastrl.meta import disco_agent, lpg_agent
from fastrl.meta.lpg_types import Regularisers
from fastrl.metrics import Metrics
from fastrl.types import Algorithm, Array, Key, Observation, Transition
from fastrl.vec import VecEnv


class Advanced(NamedTuple):
    """What came of one iteration of the inner learner."""

    state: Any
    transitions: Any  # what it learned from, `[T, N]`; () where it does not say
    regularisers: Regularisers
    metrics: Metrics


class View(NamedTuple):
    """Pure functions of an inner learner's state."""

    advance: Callable[[Any, Any, Any], Advanced]  # (state, hparams, task)
    # (key, state, task) -> (state, Transition [T, N], metrics): a rollout of its policy
    collect: Callable[[Key, Any, Any], tuple[Any, Transition, Metrics]]
    policy: Callable[[Any, Observation], Distribution]  # (state, observation)
    steps: int  # environment steps of `collect`


ViewFactory = Callable[[Algorithm], View]


def of(inner: Algorithm) -> View:
    """The view that belongs to `inner`, by the class of its config.

    Raises ValueError for an algorithm that none is known of.
    """
    config = None if inner.recipe is None else inner.recipe.config
    if type(config) not in _VIEWS:
        raise ValueError(
            f"inner is {_name(inner)}, no agent that learns by rules (lpg_agent, disco_agent): "
            "pass view=meta_gradient_inner.of_actor_critic, or one of your own"
        )
    return _VIEWS[type(config)](inner)


@functools.lru_cache(maxsize=256)
def of_rule(inner: Algorithm) -> View:
    """The view of an agent of `lpg_agent`.

    Raises ValueError for another algorithm.
    """
    agent = _agent(inner, lpg_agent)

    def advance(state: lpg_agent.State, hparams: Any, task: Any) -> Advanced:
        key, rollout_key = jax.random.split(state.key)
        state, transitions, metrics = agent.collect(rollout_key, state._replace(key=key), task)
        state, regularisers, update_metrics = agent.update(state, transitions, hparams)
        return Advanced(state, transitions, regularisers, metrics | update_metrics)

    return View(advance, agent.collect, agent.policy, inner.steps_per_iteration)


@functools.lru_cache(maxsize=256)
def of_disco(inner: Algorithm) -> View:
    """The view of an agent of `disco_agent`.

    Raises ValueError for another algorithm.
    """
    agent = _agent(inner, disco_agent)

    def advance(state: disco_agent.State, hparams: Any, task: Any) -> Advanced:
        return Advanced(*agent.advance(state, hparams, task))

    return View(advance, agent.collect, agent.policy, inner.steps_per_iteration)


@functools.lru_cache(maxsize=256)
def of_actor_critic(inner: Algorithm) -> View:
    """The view of PPO, A2C and others that keep `params` and `env` in their state.

    Raises ValueError where the policy can't be told from the recipe.
    """
    recipe = inner.recipe
    shape = getattr(getattr(recipe, "config", None), "network", None)
    if recipe is None or recipe.reset is None or shape is None:
        raise ValueError(f"inner is {_name(inner)}: its policy is not known: pass view=")
    if getattr(recipe.config, "normalize_observation", False):
        raise ValueError("normalize_observation=true: the view has no statistics: pass view=")
    env, config = recipe.env, recipe.config
    task = env.default_params()
    network = networks.actor_critic(env.observation_space(task), env.action_space(task), shape)
    vec_env = VecEnv(env, config.num_envs, recipe.reset(env))

    def advance(state: Any, hparams: Any, task: Any) -> Advanced:
        state, metrics = inner.step(state, hparams, task)
        nothing = jnp.float32(0)
        return Advanced(state, (), Regularisers(*[nothing] * 4), metrics)

    def collect(key: Key, state: Any, task: Any) -> tuple[Any, Transition, Metrics]:
        params = jax.lax.stop_gradient(state.params)

        def act(key: Key, observation: Observation) -> tuple[Array, Any]:
            return network.policy(params, observation).sample(key), ()

        env_state, transitions, metrics = vec.rollout(
            vec_env, act, key, state.env, task, config.num_steps, keep=lambda t, _: t
        )
        return state._replace(env=env_state), transitions, metrics

    policy = lambda state, x: network.policy(state.params, x)  # noqa: E731
    return View(advance, collect, policy, config.num_envs * config.num_steps)


# Whose view is taken without asking: agents that learn by rules.
_VIEWS: dict[type, ViewFactory] = {lpg_agent.Config: of_rule, disco_agent.Config: of_disco}


def _agent(inner: Algorithm, module: Any) -> Any:
    """What `inner`, made by the module's `make`, is made of."""
    recipe = inner.recipe
    if recipe is None or not isinstance(recipe.config, module.Config):
        raise ValueError(f"inner is {_name(inner)}, not what {module.__name__}.make gives")
    return module.agent(
        recipe.env, recipe.config, objective=recipe.objective, reset=recipe.reset
    )  # fmt: skip


def _name(inner: Algorithm) -> str:
    return "an Algorithm without a recipe" if inner.recipe is None else inner.recipe.algorithm
