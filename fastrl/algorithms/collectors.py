"""How a learner's rollout is run: as an XLA scan, or on a GPU as one kernel where that is possible.

Both play the same episodes but for rounding.
"""

import functools
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from fastrl import metrics as fm
from fastrl import normalize, sharding
from fastrl import reset as resets
from fastrl.algorithms import on_policy
from fastrl.algorithms.on_policy import Sample
from fastrl.kernels import prng
from fastrl.metrics import Metrics
from fastrl.networks import ActorCritic, NetworkConfig
from fastrl.storage import Storage
from fastrl.types import Env, Key, Observation, ResetFactory
from fastrl.vec import VecEnv, VecState


class Collector(NamedTuple):
    """What a rollout is made of; `fused` allows the kernel."""

    vec_env: VecEnv
    network: ActorCritic
    shape: NetworkConfig
    action_space: Any
    storage: Storage
    num_steps: int
    reset: ResetFactory
    normalized: bool  # whether the network sees `normalize.normalize(statistics, observation)`
    fused: bool

    def __call__(
        self,
        see: Callable[[Observation], Observation],
        key: Key,
        params: Any,
        state: VecState,
        task: Any,
        statistics: Any,
    ) -> tuple[VecState, Sample, Metrics]:
        """A rollout `[T, N]` under `network.policy(params, see(observation))`. Consumes `key`."""
        rollout = self._kernel(key) if self.fused else None
        if rollout is None:
            return on_policy.collect(
                self.vec_env, self.network, see, self.storage.pack, self.action_space, key,
                params, state, task, self.num_steps,
            )  # fmt: skip
        seen = statistics if self.normalized else ()
        state, kept, sums = rollout(params, key, state, task, self.num_steps, seen)
        samples = Sample(
            self.storage.pack(kept.observation), kept.action, kept.log_prob, kept.reward,
            kept.terminated, kept.truncated, kept.final_value,
        )  # fmt: skip
        return state, samples, {name: fm.Mean(*pair) for name, pair in sums.items()}

    def _kernel(self, key: Key) -> Any:
        """The fused rollout, or None; asked while the program is traced."""
        if jax.default_backend() != "gpu":
            return None
        chosen = None
        if self.reset is not resets.fresh:
            reason = "episodes start from another Reset than fastrl.reset.fresh"
        elif jax.random.key_impl(key) != prng.HASH32:
            reason = "keys are not of hash32"
        elif sharding.is_sharded():
            reason = "environments are split over several devices"
        else:  # traces the environment
            chosen, reason = _choose(self.vec_env.env, self.shape, self.normalized)
        if reason is not None:
            logging.getLogger("fastrl").info("the rollout is an XLA scan: %s", reason)
            return None
        return chosen


@functools.lru_cache(maxsize=64)
def _choose(env: Env, shape: NetworkConfig, normalized: bool) -> tuple[Any, str | None]:
    """The kernel for `env`, or the reason why there is none."""
    from fastrl.kernels.fused_rollout import Kept, choose  # Pallas is slow to import

    statistics: Any = ()
    if normalized:
        space = env.observation_space(env.default_params())
        statistics = jax.eval_shape(lambda: normalize.init(space))
    try:
        return choose(
            env, shape, kept=Kept(value=False), statistics=statistics,
            preprocess=normalize.normalize if normalized else None, platform="gpu",
        )  # fmt: skip
    except Exception as error:  # of the translation; what is wrong with `env` the scan will raise
        return None, f"{type(error).__name__}: {error}"
