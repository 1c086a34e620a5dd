"""SNES, xNES and CMA-ES for `meta_evolution`, from evosax: `pip install 'fastrl[evosax]'`.

Their candidates come from one distribution, without pairs; two neighbours still share a task, a
start and random numbers, so pass `Config(shared=True)`, unless tasks are alike, for fitness is
ranked over the whole population.  `hparams.sigma` is their first deviation; learning rates, decays
and shaping are their own.  CMA-ES and xNES hold a matrix of the square of eta's size.
"""

import importlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fastrl import metrics as fm
from fastrl.meta.evolution_search import Search
from fastrl.metrics import Metrics
from fastrl.types import Array, Key, PyTree

_CLASSES = {"snes": "SNES", "xnes": "xNES", "cma_es": "CMA_ES"}


class Memory(NamedTuple):
    """Where a strategy stands."""

    eta: PyTree  # the mean
    state: Any  # evosax's own


def evosax(strategy: str, pairs: int, like: PyTree) -> Search:
    """The search of `strategy`, for etas like `like`. Raises ImportError without evosax >= 0.2."""
    try:
        algorithms = importlib.import_module("evosax.algorithms")
    except ImportError as error:
        raise ImportError(
            f"strategy={strategy!r} needs evosax, version 0.2 or later: "
            "pip install 'fastrl[evosax]', or choose strategy='openai'"
        ) from error
    solution = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
    es = getattr(algorithms, _CLASSES[strategy])(population_size=2 * pairs, solution=solution)

    def params(hparams: Any) -> Any:
        return es.default_params.replace(std_init=jnp.asarray(hparams.sigma, jnp.float32))

    def init(key: Key, eta: PyTree, hparams: Any) -> Memory:
        with jax.numpy_rank_promotion("allow"):
            return Memory(eta, _arrays(es.init(key, eta, params(hparams))))

    def draw(key: Key, memory: Memory, hparams: Any) -> tuple[PyTree, Memory]:
        with jax.numpy_rank_promotion("allow"):  # evosax counts on it
            population, state = es.ask(key, memory.state, params(hparams))
        in_pairs = jax.tree.map(lambda x: x.reshape(pairs, 2, *x.shape[1:]), population)
        return in_pairs, memory._replace(state=_arrays(state))

    def place(memory: Memory, drawn: PyTree, hparams: Any) -> PyTree:
        return drawn

    def tell(
        key: Key, memory: Memory, drawn: PyTree, fitness: Array, ok: Array, hparams: Any
    ) -> tuple[Memory, Metrics]:
        population = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), drawn)
        loss = _loss(fitness, ok).ravel()
        with jax.numpy_rank_promotion("allow"):
            state, _ = es.tell(key, population, loss, memory.state, params(hparams))
        eta = jax.tree.map(lambda x, y: x.astype(y.dtype), es.get_mean(state), memory.eta)
        moved = jax.tree.map(jnp.subtract, eta, memory.eta)
        spread = jnp.mean(jnp.asarray(state.std))
        metrics = {"step_norm": fm.mean(optax.tree.norm(moved)), "sigma": fm.mean(spread)}
        return Memory(eta, _arrays(state)), metrics

    return Search(init, lambda memory: memory.eta, draw, place, tell)


def _loss(fitness: Array, ok: Array) -> Array:
    """What evosax minimises `[P, 2]`: a pair that diverged is as bad as the worst that did not."""
    counts = jnp.broadcast_to(ok[:, None], fitness.shape)
    worst = jnp.where(counts, fitness, jnp.inf).min()
    return -jnp.where(counts, fitness, jnp.where(ok.any(), worst, 0.0))


def _arrays(tree: PyTree) -> PyTree:
    """Strong types: a state must not change them."""
    return jax.tree.map(lambda x: jax.lax.convert_element_type(x, jnp.asarray(x).dtype), tree)
