"""A window of all lives: in chunks, one after the other, on each of the devices."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec

from fastrl import metrics as fm
from fastrl.meta.meta_gradient_lives import Life, Lives, pick
from fastrl.metrics import Metrics
from fastrl.types import Array, Key, PyTree

_AXIS = "life"


class Windows(NamedTuple):
    """What stays while eta, lives and numbers change."""

    life: Life
    chunk: int  # lives side by side
    devices: int  # over which chunks are spread

    def begin(self, eta: PyTree, hparams: Any, keys: Key, tasks: Any) -> Lives:
        """New lives `[L, ...]`."""

        def local(shared: Any, items: Any) -> tuple[tuple[()], Lives]:
            eta, hparams = shared
            return (), self._mapped(lambda item: self._begun(eta, hparams, *item), items)

        return self._spread(local, (eta, hparams), (keys, tasks))[1]

    def __call__(
        self, eta: PyTree, hparams: Any, lives: Lives, ended: Array, keys: Key, tasks: Any
    ) -> tuple[PyTree, Array, Metrics, Lives]:
        """A window of lives `[L, ...]`, with new ones on `tasks` where they `ended`.

        Returns the sum of the gradients in eta of those whose numbers are finite, how many these
        are, their metrics, and the lives.
        """

        def local(shared: Any, items: Any) -> tuple[Any, Lives]:
            eta, hparams = shared
            chunks = jax.tree.map(lambda x: x.reshape(-1, self.chunk, *x.shape[1:]), items)
            zeros = jax.tree.map(jnp.zeros_like, eta), jnp.int32(0)

            def step(carry: Any, chunk: Any) -> tuple[Any, Any]:
                return self._chunk(eta, hparams, carry, chunk)

            (total, count), (lives, metrics) = jax.lax.scan(step, zeros, chunks)
            lives = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), lives)
            return (total, count, fm.fold(metrics)), lives

        sums, lives = self._spread(local, (eta, hparams), (lives, ended, keys, tasks))
        return *sums, lives

    def _chunk(
        self, eta: PyTree, hparams: Any, carry: tuple[PyTree, Array], chunk: Any
    ) -> tuple[tuple[PyTree, Array], tuple[Lives, Metrics]]:
        """The window of some lives; adds their gradients to those of the chunks before."""
        (lives, ended, keys, tasks), (total, count) = chunk, carry
        begun = lambda: pick(ended, self._alike(  # noqa: E731
            lambda item: self._begun(eta, hparams, *item), (keys, tasks)), lives)  # fmt: skip
        lives = jax.lax.cond(ended.any(), begun, lambda: lives)
        gradient = jax.grad(self.life.loss, has_aux=True)
        gradients, (lives, metrics) = self._alike(lambda life: gradient(eta, life, hparams), lives)
        good = jax.vmap(_finite)((gradients, lives, metrics["loss"]))
        last = good & (lives.age >= lives.end)
        if "inner_episode_return" in metrics:
            returns = metrics["inner_episode_return"]
            metrics = metrics | {"final_return": jax.tree.map(lambda x: x * last, returns)}
        only = lambda x: pick(good, x, jnp.zeros_like(x)).sum(0)  # noqa: E731
        total = jax.tree.map(lambda t, g: t + only(g), total, gradients)
        lives = lives._replace(age=jnp.where(good, lives.age, lives.end))  # the others begin anew
        return (total, count + good.sum()), (lives, jax.tree.map(only, metrics))

    def _begun(self, eta: PyTree, hparams: Any, key: Key, task: Any) -> Lives:
        return self.life.begin(key, eta, hparams.inner, task)

    def _alike(self, f: Callable[[Any], Any], items: Any) -> Any:
        """`f` of the items of a chunk side by side; alone, so that branches stay branches."""
        if self.chunk > 1:
            return jax.vmap(f)(items)
        return jax.tree.map(lambda x: x[None], f(jax.tree.map(lambda x: x[0], items)))

    def _mapped(self, f: Callable[[Any], Any], items: Any) -> Any:
        chunks = jax.tree.map(lambda x: x.reshape(-1, self.chunk, *x.shape[1:]), items)
        results = jax.lax.map(lambda chunk: self._alike(f, chunk), chunks)
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), results)

    def _spread(self, f: Callable[[Any, Any], tuple[Any, Any]], shared: Any, items: Any) -> Any:
        """`f(shared, items [L / D, ...]) -> (sums, items)` on each of the devices."""
        if self.devices == 1:
            return f(shared, items)
        mesh = jax.make_mesh((self.devices,), (_AXIS,), axis_types=(AxisType.Auto,))

        def local(shared: Any, items: Any) -> tuple[Any, Any]:
            sums, items = f(shared, items)
            return jax.lax.psum(sums, _AXIS), items

        every, all_ = PartitionSpec(_AXIS), PartitionSpec()
        return jax.shard_map(
            local, mesh=mesh, in_specs=(all_, every), out_specs=(all_, every), check_vma=False
        )(shared, items)


def _finite(tree: PyTree) -> Array:
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact)]
    return jnp.stack([jnp.isfinite(x).all() for x in leaves]).all()
