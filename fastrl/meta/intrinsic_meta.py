"""Learning a reward over lifetimes, by the gradient through an agent's updates (Zheng et al. 2020).

"What Can Learned Intrinsic Rewards Capture?", arXiv:1912.05500.  Many agents live side by side,
each on a task of its own, which they learn from the rewards of `fastrl.meta.intrinsic`.  What is
maximised is what the *task* pays in the whole of a life, whatever episodes it consists of:

    J(eta) = E [ sum over the life of gamma^t r_t ]
    g = mean over lives of  sum_k sum_t A_t d/d eta log pi_{theta_k(eta)}(a_t | s_t)
    theta_{k+1} = theta_k + a policy gradient on rollout k with the rewards of eta

An iteration lets every agent make `window` updates; theta_k depends on eta by the updates of the
window, and the gradient ends where the window begins.  A_t are generalised advantages of the life:
no end of an episode cuts them, and what follows the window is estimated by a value function of the
agent's history, recurrent like the reward and learned together with it.  It is shared by all lives,
as it must know what agents do later.  So a reward that makes agents look for something now is
credited with what they gain from it episodes later.

The machinery is that of `fastrl.meta.meta_gradient`: lives in chunks and on devices, those that
diverge left out and replaced, the curriculum that says who gets which task.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fastrl import door, returns
from fastrl import metrics as fm
from fastrl.meta import intrinsic
from fastrl.meta import meta_gradient_outer as outer
from fastrl.meta.intrinsic import Learner
from fastrl.meta.intrinsic_value import Value, value
from fastrl.meta.meta_gradient_config import side_by_side, whole_chunks
from fastrl.meta.meta_gradient_lives import CurriculumFactory
from fastrl.meta.meta_gradient_outer import Sampler, State
from fastrl.meta.meta_gradient_windows import Windows
from fastrl.metrics import Metrics
from fastrl.types import Algorithm, Array, Key, PyTree, Scalar, Transition


@dataclasses.dataclass(frozen=True)
class Config:
    """What shapes the program."""

    num_lives: int = 64
    chunk: int = 0  # lives side by side; 0: one on a CPU, elsewhere all of a device
    devices: int = 1  # over which the lives are spread
    window: int = 5  # K: updates that a gradient goes through
    lifetime: int = 50  # updates of an agent
    stagger: bool = True  # the first lives end one after the other
    value_size: int = 32  # of the memory of the value function

    def __post_init__(self) -> None:
        for name in ("num_lives", "window", "devices", "lifetime", "value_size"):
            door.integer(name, getattr(self, name), 1)
        door.integer("chunk", self.chunk, 0)
        door.flag("stagger", self.stagger)
        if self.lifetime % self.window:
            raise ValueError(
                f"lifetime={self.lifetime} is not divisible by window={self.window}: "
                "a life consists of whole windows"
            )
        whole_chunks(self.num_lives, self.chunk, self.devices)

    @property
    def side_by_side(self) -> int:
        """`chunk`, or what it stands for if it is 0."""
        return side_by_side(self.num_lives, self.chunk, self.devices)


class HParams(NamedTuple):
    """Traced numbers: another value compiles nothing."""

    learning_rate: Scalar = 1e-3  # of Adam, for reward and value
    max_grad_norm: Scalar = float("inf")
    gamma: Scalar = 0.99  # of the lifetime's return
    gae_lambda: Scalar = 0.95
    value_coefficient: Scalar = 0.5
    policy_entropy: Scalar = 0.01  # of the agents' policies: what is added to J for it
    inner: Any = intrinsic.HParams()  # hparams of the agents; `objective` is replaced


_SHARE = door.Range(0.0, 1.0)
RANGES = {
    "learning_rate": door.Range(0.0), "max_grad_norm": door.Range(0.0, open=True),
    "gamma": _SHARE, "gae_lambda": _SHARE, "value_coefficient": door.Range(0.0),
}  # fmt: skip


class Eta(NamedTuple):
    """What is learned."""

    reward: PyTree  # the `objective` of agents
    value: PyTree


class Lives(NamedTuple):
    """Agents under way. Leaves are `[L, ...]`."""

    state: intrinsic.State
    history: PyTree  # memory of the value function
    task: Any
    lifetime: Array  # int32, in updates
    age: Array  # int32: updates so far
    end: Array  # int32: the age at which it ends; below `lifetime` where starts are staggered


def make(
    inner: Algorithm, start: Callable[[Key], PyTree], config: Config = Config(), *,
    sampler: Sampler | None = None, curriculum: CurriculumFactory | None = None,
) -> Algorithm[HParams, State]:  # fmt: skip
    """Learns the reward of `inner`, an `intrinsic.make(env, ...)`, from `start(key)` on.

        reward = intrinsic.Reward().on(env)
        inner = intrinsic.make(env, intrinsic.Config(num_envs=1, num_steps=16), objective=reward)
        outer = intrinsic_meta.make(inner, reward.init, sampler=sampler)
        state = fastrl.train(outer, steps=1e7)
        hparams = intrinsic.HParams(objective=outer.parameters(state))  # for inner

    `sampler(key, task)` draws the task of a life, by default with `env.sample_level(key)` where
    there is one, else the outer task; a `curriculum` goes before it.
    Raises ValueError or TypeError for what does not fit, before anything is compiled.
    """
    door.algorithm(inner)
    door.record("config", config, Config)
    door.function("start", start, "intrinsic.Reward().on(env).init")
    recipe = inner.recipe
    if recipe is None or not isinstance(recipe.config, intrinsic.Config):
        what = "an Algorithm without a recipe" if recipe is None else recipe.algorithm
        raise ValueError(f"inner is {what}, without a learned reward: pass intrinsic.make(env)")
    learner = intrinsic.learner(
        recipe.env, recipe.config, objective=recipe.objective, reset=recipe.reset
    )
    teacher = curriculum or outer.independent(inner, sampler)
    return _make(learner, start, config, teacher)


@functools.lru_cache(maxsize=64)
def _make(
    learner: Learner, first: Callable[[Key], PyTree], config: Config, teacher: CurriculumFactory
) -> Algorithm:
    life = Life(learner, value(learner, config.value_size), config.window, config.lifetime)
    teaching: Any = life  # what a curriculum asks of a life is its inner algorithm
    curriculum = teacher(teaching)
    windows: Any = Windows(teaching, config.side_by_side, config.devices)

    def start(key: Key) -> Eta:
        reward_key, value_key = jax.random.split(key)
        return Eta(first(reward_key), life.value.init(value_key))

    steps = config.window * learner.algorithm.steps_per_iteration
    algorithm = outer.learner(config, windows, curriculum, start, HParams(), RANGES, steps)
    return algorithm._replace(parameters=lambda state: state.eta.reward)


class Life(NamedTuple):
    """How lives are led: what stays while eta, keys and tasks change."""

    learner: Learner
    value: Value
    window: int
    lifetime: int

    @property
    def inner(self) -> Algorithm:
        """The agent."""
        return self.learner.algorithm

    def begin(self, key: Key, eta: Eta, hparams: intrinsic.HParams, task: Any) -> Lives:
        """A new agent on `task`. Consumes `key`."""
        state = self.inner.init(key, _installed(hparams, eta), task)
        num_envs = jax.tree.leaves(state.memory)[0].shape[0]
        lifetime = jnp.int32(self.lifetime)
        history = self.value.initial_history(num_envs)
        return Lives(state, history, task, lifetime, jnp.int32(0), lifetime)

    def loss(self, eta: Eta, life: Lives, hparams: HParams) -> tuple[Array, tuple[Lives, Metrics]]:
        """The loss of one window of one life, and the life after it.

            L = - mean log pi_{theta_k}(a | s) A + c 1/2 mean (V - G)^2 - b mean H(pi_{theta_k})

        with advantages A and their targets G as constants.
        """
        life = jax.lax.stop_gradient(life)
        state, (t, log_prob, entropy), metrics = self._window(eta, life, hparams)
        over = life.age + self.window >= life.lifetime
        history, values = self._values(eta, life, t, state)
        known = jax.lax.stop_gradient(values)
        steps, never = len(t.reward), jnp.zeros(t.reward.shape, bool)
        ends = never | (over & (jnp.arange(steps) == steps - 1))[:, None]
        advantage = returns.gae(
            t.reward, known[:-1], known[1:], ends, never,
            hparams.gamma, hparams.gae_lambda,
        )  # fmt: skip
        policy_loss = -(log_prob * advantage).mean()
        value_loss = 0.5 * ((values[:-1] - known[:-1] - advantage) ** 2).mean()
        loss = policy_loss + hparams.value_coefficient * value_loss
        loss = loss - hparams.policy_entropy * entropy.mean()
        told = {"loss": loss, "policy_loss": policy_loss, "value_loss": value_loss}
        metrics = {f"inner_{name}": m for name, m in fm.fold(metrics).items()}
        metrics |= {name: fm.mean(x) for name, x in told.items()}
        life = life._replace(state=state, history=history, age=life.age + self.window)
        return loss, jax.lax.stop_gradient((life, metrics))

    def _window(self, eta: Eta, life: Lives, hparams: HParams) -> Any:
        """K updates: the state after them, and of all K T steps `[K T, N]` what happened, the
        log-probability of what was done and the entropy under the policy of the time."""
        own = _installed(hparams.inner, eta)

        # Not under `jax.checkpoint`: XLA's CPU compiler (jaxlib 0.10.2) fails on the program.
        def update(state: intrinsic.State, _: None) -> tuple[intrinsic.State, Any]:
            after, t, metrics = self.learner.collect(state, life.task)
            policy = self.learner.policy(state, t.observation)
            after, update_metrics = self.learner.learn(after, t, own)
            steps = t, policy.log_prob(t.action), policy.entropy()
            return after, (steps, metrics | update_metrics)

        state, (steps, metrics) = jax.lax.scan(update, life.state, length=self.window)
        return state, jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), steps), metrics

    def _values(
        self, eta: Eta, life: Lives, t: Transition, after: intrinsic.State
    ) -> tuple[PyTree, Array]:
        """The value function's memory after the window; values `[S + 1, N]` in it and after it."""
        encode, steps = self.learner.sight.encode, len(t.reward)
        seen = jnp.concatenate([encode(t.observation), encode(after.agent.env.observation)[None]])
        age = (life.age + self.window * jnp.arange(steps + 1) / steps) / life.lifetime
        x = self.learner.sight.inputs(t)
        return self.value.unroll(eta.value, life.history, x, seen, age.astype(seen.dtype))


def _installed(hparams: intrinsic.HParams, eta: Eta) -> intrinsic.HParams:
    return hparams._replace(objective=eta.reward)
