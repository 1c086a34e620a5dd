"""Inner lifetimes of a population: trained chunk by chunk, each for as long as it lasts.

A chunk is members that are trained side by side, by `vmap`, for one number of iterations; chunks
follow one another, or are spread over the devices.  The number is traced, so lifetimes of all
lengths are one program, and none is padded to another's length.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec

from fastrl import metrics as fm
from fastrl.meta.evolution_fitness import Fitness
from fastrl.metrics import Metrics
from fastrl.types import Algorithm, Array, Key, PyTree

# (inner hparams, eta, environment steps of the lifetime) -> inner hparams
Install = Callable[[Any, PyTree, Array], Any]
_AXIS = "member"


class Member(NamedTuple):
    """One inner lifetime and what is to be done with it. Leaves are `[M, ...]`."""

    key: Key  # of a new life, and of the evaluation
    eta: PyTree
    task: Any
    steps: Array  # float32: environment steps of the whole lifetime
    iterations: Array  # int32: how many to train for now; the same within a chunk
    begins: Any  # bool: whether a new life begins; () if always
    state: Any  # of the inner algorithm; () if a new life begins always


class Outcome(NamedTuple):
    """What became of members. Leaves are `[M, ...]`."""

    fitness: Array
    ok: Array  # bool: fitness and inner parameters are finite
    metrics: Metrics  # of the measured iterations
    state: Any  # () where nobody needs it


class Lives(NamedTuple):
    """How members live: what stays while keys, etas and tasks change."""

    inner: Algorithm
    install: Install
    fitness: Fitness
    measured: int  # iterations at the end whose metrics count; 0: all
    chunk: int  # members side by side
    devices: int  # over which chunks are spread
    keep: bool  # whether states are handed out

    def __call__(self, members: Member, hparams: Any) -> Outcome:
        """Trains members `[M, ...]`, with `hparams` the inner ones; `chunk` divides M."""
        split = lambda x: x.reshape(-1, self.chunk, *x.shape[1:])  # noqa: E731
        chunks = jax.tree.map(split, members)
        outcomes = _spread(self._chunk, chunks, hparams, self.devices)
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), outcomes)

    def _chunk(self, members: Member, hparams: Any) -> Outcome:
        iterations = members.iterations[0]  # not batched: every chunk ends when it is done
        alone = lambda m: self._live(m, iterations, hparams)  # noqa: E731
        if self.chunk > 1:
            return jax.vmap(alone)(members)
        outcome = alone(jax.tree.map(lambda x: x[0], members))  # branches stay branches
        return jax.tree.map(lambda x: x[None], outcome)

    def _live(self, member: Member, iterations: Array, hparams: Any) -> Outcome:
        """One member: `iterations` of its life, and what it is worth after them."""
        hparams = self.install(hparams, member.eta, member.steps)
        begin_key, fitness_key = jax.random.split(member.key)
        begin = lambda: self.inner.init(begin_key, hparams, member.task)  # noqa: E731
        stand = lambda: member.state  # noqa: E731
        state = jax.lax.cond(member.begins, begin, stand) if self.keep else begin()
        shapes = jax.eval_shape(self.inner.step, state, hparams, member.task)[1]
        first = iterations - self.measured if self.measured else 0

        def body(i: Array, carry: tuple[Any, Metrics]) -> tuple[Any, Metrics]:
            state, metrics = carry
            state, new = self.inner.step(state, hparams, member.task)
            new = jax.tree.map(lambda x: jnp.where(i >= first, x, jnp.zeros_like(x)), new)
            return state, fm.add(metrics, new)

        start = state, fm.zeros_like(shapes)
        state, metrics = jax.lax.fori_loop(0, iterations, body, start)
        fitness = self.fitness(fitness_key, state, metrics, member.task)
        ok = jnp.isfinite(fitness) & _finite(self.inner.parameters(state))
        return Outcome(fitness, ok, metrics, state if self.keep else ())


def install(hparams: Any, eta: PyTree, steps: Array) -> Any:
    """`eta` as `hparams.objective`, and the lifetime as `hparams.anneal_steps` where there is one.

    So the objective sees the share of the lifetime that has passed, and the inner learning rate
    goes to `final_learning_rate` in it.
    """
    if not hasattr(hparams, "anneal_steps"):
        return hparams._replace(objective=eta)
    return hparams._replace(objective=eta, anneal_steps=steps)


def _finite(tree: PyTree) -> Array:
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact)]
    return jnp.stack([jnp.isfinite(x).all() for x in leaves]).all() if leaves else jnp.bool_(True)


def _spread(f: Callable[[Any, Any], Any], chunks: Any, shared: Any, devices: int) -> Any:
    """`f(chunk, shared)` of each chunk, one after the other, on each of the devices.

    Device d takes chunks d, d + D, d + 2 D ...: chunks that are alike stand side by side, and so
    all devices have as much to do.
    """
    if devices == 1:
        return jax.lax.map(lambda chunk: f(chunk, shared), chunks)
    mesh = jax.make_mesh((devices,), (_AXIS,), axis_types=(AxisType.Auto,))
    each, all_ = PartitionSpec(_AXIS), PartitionSpec()
    local = jax.shard_map(
        lambda chunks, shared: jax.lax.map(lambda chunk: f(chunk, shared), chunks),
        mesh=mesh, in_specs=(each, all_), out_specs=each, check_vma=False,
    )  # fmt: skip
    deal = lambda x: jnp.moveaxis(x.reshape(-1, devices, *x.shape[1:]), 1, 0)  # noqa: E731
    gather = lambda x: jnp.moveaxis(x.reshape(devices, -1, *x.shape[1:]), 1, 0)  # noqa: E731
    dealt = jax.tree.map(lambda x: deal(x).reshape(x.shape), chunks)
    return jax.tree.map(lambda x: gather(x).reshape(x.shape), local(dealt, shared))
