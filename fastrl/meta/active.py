"""Learning to actively learn: a policy of queries that is good in the worst case of each class.

After Zhang, Jain and Jamieson 2020, "Learning to Actively Learn: A Robust Approach"
(arXiv:2010.15382).  A policy pi pulls arms of a bandit (`active_bandit`) until a budget is spent.
Instances of one complexity H are a class, and pi is to be close to the best policy of every class:

    min over pi  max over classes k  [ max over mu in class k of loss(pi, mu)  -  V_k ]

with V_k the worst-case loss of the best policy for class k alone: that of a training on this class
only, `hparams.floors`; all 0 gives the plain minimax.  It is a game of two players, by gradients:

* the policy descends the loss by REINFORCE; the baseline of an episode is the mean of the others
  on its instance;
* the adversary has `num_particles` instances in every class, kept inside by `of_class`.  Each
  ascends the loss by the score of the payoffs, sum over t of (y_t - mu_a) d mu_a; and a softmax
  over all of them, the weights of the policy's loss, is moved by exponentiated gradients, with
  a little forgetting.

The policy sees counts and averages of every arm and what is left of the budget, through layers
that are the same for all arms and a mean over arms: what it does goes with the arms when these
are exchanged, and averages enter as gaps to the best one, so nothing depends on where 0 is.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from fastrl import door, optim
from fastrl import metrics as fm
from fastrl.meta.active_bandit import BestArm, Instance, Statistics, of_class
from fastrl.meta.active_policies import Episode, Policy, play
from fastrl.metrics import Metrics
from fastrl.networks import NetworkConfig
from fastrl.types import Algorithm, Array, Key, PyTree, Scalar


@dataclasses.dataclass(frozen=True)
class Config:
    """What shapes the program. An iteration plays `num_episodes` times on each of all particles."""

    complexities: tuple[float, ...] = (4.0, 8.0, 16.0, 32.0)  # H of the classes
    num_particles: int = 8  # instances of each class that the adversary has
    num_episodes: int = 32  # on each of them
    hidden_sizes: tuple[int, ...] = (32, 32)

    def __post_init__(self) -> None:
        door.integer("num_particles", self.num_particles, 1)
        door.integer("num_episodes", self.num_episodes, 2)
        shape = NetworkConfig(self.hidden_sizes)
        object.__setattr__(self, "hidden_sizes", shape.hidden_sizes)
        classes = self.complexities
        if not isinstance(classes, (tuple, list)) or not classes:
            raise ValueError(f"complexities={classes!r}: needs a tuple of positive numbers")
        if not all(isinstance(h, (int, float)) and h > 0 for h in classes):
            raise ValueError(f"complexities={classes!r}: all must be above 0")
        object.__setattr__(self, "complexities", tuple(map(float, classes)))


class HParams(NamedTuple):
    """Traced numbers: another value compiles nothing."""

    learning_rate: Scalar = 2e-3  # of the policy, Adam
    max_grad_norm: Scalar = 1.0
    entropy_coefficient: Scalar = 1e-3
    adversary_rate: Scalar = 3e-2  # of the instances, Adam
    weight_rate: Scalar = 1.0  # of their weights
    forgetting: Scalar = 0.02  # the share of the weights' logits that goes in an iteration
    floors: Any = ()  # V of every class; () for 0


RANGES = {
    "learning_rate": door.Range(0.0), "max_grad_norm": door.Range(0.0, open=True),
    "entropy_coefficient": door.Range(0.0), "adversary_rate": door.Range(0.0),
    "weight_rate": door.Range(0.0), "forgetting": door.Range(0.0, 1.0),
}  # fmt: skip


def _optimizer(hparams: HParams) -> optax.GradientTransformation:
    return optim.adam(hparams.learning_rate, hparams.max_grad_norm)


class State(NamedTuple):
    """All there is to go on with."""

    key: Key
    params: PyTree
    optimizer: Any
    particles: Array  # [K, M, A - 1]: numbers that stand for instances
    adversary: Any  # its optimiser
    logits: Array  # [K, M]: of the weights


class Network(nn.Module):
    """Logits `[..., A]` of the arms, from statistics."""

    hidden_sizes: tuple[int, ...]
    budget: int

    @nn.compact
    def __call__(self, seen: Statistics) -> Array:
        x = features(seen, self.budget)
        for size in self.hidden_sizes:
            mean = jnp.broadcast_to(x.mean(-2, keepdims=True), x.shape)
            x = nn.relu(nn.Dense(size)(jnp.concatenate([x, mean], -1)))
        return nn.Dense(1, kernel_init=nn.initializers.normal(1e-2))(x)[..., 0]


def features(seen: Statistics, budget: int) -> Array:
    """What is known of each arm, `[..., A, 6]`; nothing of it depends on where 0 is."""
    pulled = seen.counts > 0
    averages = jnp.where(pulled, seen.averages(), -jnp.inf)
    best = averages.max(-1, keepdims=True)
    gap = jnp.where(pulled, averages - jnp.where(jnp.isfinite(best), best, 0.0), 0.0)
    width = jax.lax.rsqrt(jnp.maximum(seen.counts, 1.0))
    left = jnp.broadcast_to(seen.left[..., None], gap.shape)
    columns = [
        gap, gap / width, width, seen.counts * (gap.shape[-1] / budget),
        pulled.astype(gap.dtype), left,
    ]  # fmt: skip
    return jnp.stack(columns, -1)


def make(env: BestArm | None = None, config: Config | None = None) -> Algorithm[HParams, State]:
    """A policy for `env` that is robust over the classes of `config`.

        env = active_bandit.BestArm(arms=5, budget=20)
        algorithm = active.make(env, active.Config(complexities=(4.0, 16.0)))
        state = fastrl.train(algorithm, steps=1e7)

    Steps are pulls.  Raises TypeError for what does not fit.
    """
    env, config = env or BestArm(), config or Config()
    door.record("env", env, BestArm)
    door.record("config", config, Config)
    return _make(env, config)


def learned(algorithm: Algorithm, state: State) -> Policy:
    """The policy of `state`, to compare with those of `active_policies`."""
    return Policy((), lambda memory, seen, key: algorithm.act(state, memory, seen, key))


@functools.lru_cache(maxsize=64)
def _make(env: BestArm, config: Config) -> Algorithm:
    network = Network(config.hidden_sizes, env.budget)

    def init(key: Key, hparams: HParams, task: Any) -> State:
        key, network_key, particle_key = jax.random.split(key, 3)
        params = network.init(network_key, env.reset(key, env.default_params())[1])
        shape = len(config.complexities), config.num_particles, env.arms - 1
        particles = jax.random.normal(particle_key, shape)
        return State(
            key, params, _optimizer(hparams).init(params), particles,
            optax.adam(hparams.adversary_rate).init(particles), jnp.zeros(shape[:2]),
        )  # fmt: skip

    def act(state: State, carry: Any, observation: Any, key: Key | None) -> tuple[Array, Any]:
        logits: Any = network.apply(state.params, observation)
        drawn = jnp.argmax(logits, -1) if key is None else jax.random.categorical(key, logits)
        return drawn.astype(jnp.int32), carry

    def check(hparams: HParams) -> None:
        door.ranges(hparams, RANGES)
        shape = jnp.shape(_floors(hparams, len(config.complexities)))
        if shape != (len(config.complexities),):
            raise ValueError(f"hparams.floors has shape {shape}: needs a number for every class")

    plays = len(config.complexities) * config.num_particles * config.num_episodes
    return Algorithm(
        init, functools.partial(_iterate, env, config, network), act, plays * env.budget,
        HParams(), env, parameters=lambda state: state.params, check=check,
    )  # fmt: skip


def _iterate(
    env: BestArm, config: Config, network: Network, state: State, hparams: HParams, task: Any
) -> tuple[State, Metrics]:
    """Episodes on all particles, a step of the policy and one of the adversary."""
    key, play_key = jax.random.split(state.key)
    plays = _played(env, config, network, state, play_key)
    mean = plays.loss.mean(-1)
    weights = jax.nn.softmax(state.logits.ravel()).reshape(mean.shape)
    size = config.num_episodes
    centred = (plays.loss - mean[..., None]) * (size / (size - 1))  # the others' mean is taken off

    def objective(params: PyTree) -> tuple[Array, Array]:
        logits: Any = network.apply(params, plays.seen)
        log_p = jax.nn.log_softmax(logits)
        chosen = jnp.take_along_axis(log_p, plays.arms[..., None], -1)[..., 0]
        entropy = -(jnp.exp(log_p) * log_p).sum(-1)
        surrogate = ((chosen.sum(-1) * centred).mean(-1) * weights).sum()
        return surrogate - hparams.entropy_coefficient * entropy.mean(), entropy.mean()

    gradient, entropy = jax.grad(objective, has_aux=True)(state.params)
    updates, optimizer = _optimizer(hparams).update(gradient, state.optimizer, state.params)
    params: Any = optax.apply_updates(state.params, updates)
    descent = jax.grad(functools.partial(_adversarial, env, config, plays, centred))
    climb = optax.adam(hparams.adversary_rate)
    moves, adversary = climb.update(descent(state.particles), state.adversary, state.particles)
    particles: Any = optax.apply_updates(state.particles, moves)
    excess = mean - _floors(hparams, mean.shape[0])[:, None]
    logits = (1.0 - hparams.forgetting) * state.logits + hparams.weight_rate * excess
    metrics = {
        "loss": fm.mean((weights * mean).sum()), "worst_excess": fm.mean(excess.max()),
        "worst_loss": fm.mean(mean.max()), "entropy": fm.mean(entropy),
        "largest_weight": fm.mean(weights.max()),
    }  # fmt: skip
    after = State(key, params, optimizer, particles, adversary, logits - logits.mean())
    return after, metrics


def _floors(hparams: HParams, classes: int) -> Array:
    return jnp.asarray(hparams.floors) if jax.tree.leaves(hparams.floors) else jnp.zeros(classes)


def _played(env: BestArm, config: Config, network: Network, state: State, key: Key) -> Episode:
    """Episodes `[K, M, E, ...]`, of every particle."""

    def query(memory: Any, seen: Statistics, key: Key) -> tuple[Array, Any]:
        logits: Any = network.apply(state.params, seen)
        return jax.random.categorical(key, logits).astype(jnp.int32), memory

    one = functools.partial(play, env, Policy((), query))
    keys = jax.random.split(key, (*state.particles.shape[:2], config.num_episodes))
    several = jax.vmap(jax.vmap(jax.vmap(one, (0, None))))
    return several(keys, _instances(config, state.particles))


def _instances(config: Config, particles: Array) -> Instance:
    """`[K, M, A]`."""
    of_classes = jax.vmap(jax.vmap(of_class, (0, None)))
    return of_classes(particles, jnp.asarray(config.complexities))


def _adversarial(
    env: BestArm, config: Config, plays: Episode, centred: Array, particles: Array
) -> Array:
    """Minus the loss, up to what has no gradient in `particles`; each particle has its own.

    The gradient of a mean over payoffs is that of the loss by itself, and the loss times the
    score, which for normal payoffs is what an arm paid more than its mean.
    """
    instances = _instances(config, particles)
    means = jnp.broadcast_to(instances.means[:, :, None], plays.end.sums.shape)
    score = plays.end.sums - plays.end.counts * means
    by_chance = (jax.lax.stop_gradient(score) * means).sum(-1) * centred
    several = jax.vmap(jax.vmap(jax.vmap(env.loss, (0, None))))
    return -(by_chance + several(plays.end, instances)[0]).mean(-1).sum()
