"""The hidden units of stream learners, for `fastrl.plasticity`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fastrl.streaming import networks
from fastrl.streaming import stream as streams
from fastrl.streaming.networks import Layer, Params
from fastrl.types import Algorithm, Array, Observation

LEARNERS = ("stream_q", "stream_sarsa", "stream_td")


def activations(algorithm: Algorithm) -> Callable[[Any, Observation], list[Array]]:
    """The function `(state, observations [B, *]) -> [B, H]` of each hidden layer.

    Observations are seen by the statistics in the state, as at a first step.  Raises ValueError
    for an algorithm that has other parameters than one network.
    """
    recipe = algorithm.recipe
    if recipe is None or recipe.algorithm not in LEARNERS:
        name = "it has no recipe" if recipe is None else recipe.algorithm
        raise ValueError(f"hidden units are those of {', '.join(LEARNERS)}: {name}")
    config = recipe.config
    parts = streams.parts(recipe.env, config, recipe.reset)  # type: ignore[arg-type]
    (network,) = networks.networks([parts.shape((1,))], "dense", layer_norm=config.layer_norm)

    def hidden(state: Any, observations: Observation) -> list[Array]:
        params, seen = state.params, state.stream.observations
        chain = (*params.hidden, params.heads[0])

        def one(observation: Observation) -> list[Array]:
            x = parts.view(seen, observation, jnp.int32(0), state.time_limit)
            return [
                network.apply(Params(params.hidden[:i], (_identity(chain[i]),)), x)[0]
                for i in range(1, len(chain))
            ]

        return jax.vmap(one)(observations)

    return hidden


def _identity(layer: Layer) -> Layer:
    """A head in the place of `layer` that puts out what comes in: the units of the layer before."""
    size = layer.kernel.shape[0]
    return Layer(jnp.eye(size), jnp.zeros(size))
