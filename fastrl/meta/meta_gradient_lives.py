"""Lifetimes under a meta-gradient: how they begin, one window of one, and what follows them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fastrl import metrics as fm
from fastrl.meta import lpg_gru
from fastrl.meta.lpg_a2c import standardised
from fastrl.meta.lpg_agent import ROLLOUT
from fastrl.meta.lpg_types import Regularisers
from fastrl.meta.meta_gradient_critic import Critic, Numbers
from fastrl.meta.meta_gradient_inner import View
from fastrl.metrics import Metrics
from fastrl.types import Algorithm, Array, Key, PyTree

# (inner hparams, eta, environment steps of the lifetime) -> inner hparams
Install = Callable[[Any, PyTree, Array], Any]


class Lives(NamedTuple):
    """Inner agents under way. Leaves are `[L, ...]`."""

    key: Key
    state: Any  # of the inner algorithm
    critic: Any
    task: Any
    lifetime: Array  # int32: N, in updates
    age: Array  # int32: updates so far
    end: Array  # int32: the age at which it ends; below N where starts are staggered


class Curriculum(NamedTuple):
    """Which task a new lifetime gets; may learn from the lifetimes that ended."""

    init: Callable[[Key, int, Any], tuple[Any, Any]]  # (key, L, outer task) -> (memory, tasks)
    # (key, memory, lives, ended [L], inner hparams, outer task) -> (memory, tasks [L], metrics)
    draw: Callable[..., tuple[Any, Any, Metrics]]


class Life(NamedTuple):
    """How lives are led: what stays while eta, keys and tasks change."""

    inner: Algorithm
    view: View
    critic: Critic
    install: Install
    lifetime: Callable[[Key], Array]  # key -> N
    window: int
    keep: tuple[str, ...]  # names of what is kept for the gradient; the rest is computed again

    def begin(self, key: Key, eta: PyTree, hparams: Any, task: Any) -> Lives:
        """A new agent on `task`. Consumes `key`."""
        life_key, inner_key, critic_key, lifetime_key = jax.random.split(key, 4)
        lifetime = jnp.asarray(self.lifetime(lifetime_key), jnp.int32)
        state = self.inner.init(inner_key, self._installed(hparams, eta, lifetime), task)
        critic = self.critic.init(critic_key)
        return Lives(life_key, state, critic, task, lifetime, jnp.int32(0), lifetime)

    def advance(
        self, eta: PyTree, life: Lives, hparams: Any
    ) -> tuple[Lives, Regularisers, Array, Metrics]:
        """`window` updates of one life under the rule `eta`; none once it has its `N`.

        Also returns the mean regularisers over the updates that it made, and its critic's error.
        """
        inner_hparams = self._installed(hparams.inner, eta, life.lifetime)
        policy = jax.checkpoint_policies.save_only_these_names(*self.keep)
        advance = jax.checkpoint(
            lambda state: self.view.advance(state, inner_hparams, life.task),
            policy=policy, prevent_cse=False,
        )  # fmt: skip

        def update(carry: Any, number: Array) -> tuple[Any, Any]:
            state, critic = carry
            done = advance(state)
            alive = life.age + number < life.lifetime
            error = jnp.float32(0)
            learned = critic
            if done.transitions != ():
                learned, _, error = self.critic.learn(critic, done.transitions, numbers(hparams))
            carry = pick(alive, (done.state, learned), (state, critic))
            weights = alive.astype(jnp.float32)
            terms = jax.tree.map(lambda x: x * weights, (done.regularisers, error))
            counted = jax.tree.map(lambda x: jnp.where(alive, x, 0), done.metrics)
            return carry, (terms, weights, counted)

        start = life.state, life.critic
        (state, critic), (terms, weights, metrics) = jax.lax.scan(
            update, start, jnp.arange(self.window, dtype=jnp.int32)
        )
        share = 1 / jnp.maximum(weights.sum(), 1)
        terms, error = jax.tree.map(lambda x: x.sum() * share, terms)
        age = jnp.minimum(life.age + self.window, life.lifetime)
        return life._replace(state=state, critic=critic, age=age), terms, error, fm.fold(metrics)

    def loss(self, eta: PyTree, life: Lives, hparams: Any) -> tuple[Array, tuple[Lives, Metrics]]:
        """The outer loss of one window of one life, and the life after it.

            L = - mean log pi(a | s) A - b0 H(pi) - b1 H(y) + b2 mean p^2 + b3 mean |q|^2

        over a rollout of the policy after the window, with standardised advantages of the
        critic as constants; the regularisers are those of the updates.  Gradients end where the
        window begins.
        """
        life = jax.lax.stop_gradient(life)
        life, terms, inner_error, metrics = self.advance(eta, life, hparams)
        key, rollout_key = jax.random.split(life.key)
        state, transitions, _ = self.view.collect(rollout_key, life.state, life.task)
        critic, advantage, error = self.critic.learn(life.critic, transitions, numbers(hparams))
        policy = self.view.policy(life.state, transitions.observation)
        weighted = policy.log_prob(transitions.action) * standardised(advantage)
        policy_loss = -weighted.mean()
        loss = policy_loss + regularisation(terms, hparams)
        reported = {
            "loss": loss, "policy_loss": policy_loss, "value_loss": error,
            "inner_value_loss": inner_error, **terms._asdict(),
        }  # fmt: skip
        metrics = {f"inner_{name}": m for name, m in metrics.items()}
        metrics |= {name: fm.mean(x) for name, x in reported.items()}
        life = life._replace(key=key, state=state, critic=critic)
        return loss, jax.lax.stop_gradient((life, metrics))

    def _installed(self, hparams: Any, eta: PyTree, lifetime: Array) -> Any:
        steps = lifetime.astype(jnp.float32) * self.inner.steps_per_iteration
        return self.install(hparams, eta, steps)


CurriculumFactory = Callable[[Life], Curriculum]


def independent(sampler: Callable[[Key, Any], Any], life: Life) -> Curriculum:
    """Every lifetime's task is drawn by `sampler(key, outer task)`."""

    def several(key: Key, num: int, task: Any) -> Any:
        return jax.vmap(lambda k: sampler(k, task))(jax.random.split(key, num))

    def init(key: Key, num: int, task: Any) -> tuple[Any, Any]:
        return (), several(key, num, task)

    def draw(
        key: Key, memory: Any, lives: Lives, ended: Array, hparams: Any, task: Any
    ) -> tuple[Any, Any, Metrics]:
        return memory, several(key, ended.shape[0], task), {}

    return Curriculum(init, draw)


KEPT = {
    "nothing": (),
    "rollouts": (ROLLOUT,),
    "activations": (ROLLOUT, lpg_gru.ACTIVATIONS),
}


def regularisation(terms: Regularisers, hparams: Any) -> Array:
    """The regularisers' share of the loss."""
    return (
        -hparams.policy_entropy * terms.policy_entropy
        - hparams.prediction_entropy * terms.prediction_entropy
        + hparams.policy_target * terms.policy_target
        + hparams.prediction_target * terms.prediction_target
    )


def numbers(hparams: Any) -> Numbers:
    """What the critic learns with."""
    return Numbers(
        hparams.gamma, hparams.gae_lambda, hparams.critic_learning_rate,
        hparams.critic_max_grad_norm,
    )  # fmt: skip


def pick(where: Array, a: PyTree, b: PyTree) -> PyTree:
    """One of two trees; `where` is `[]`, or `[L]` for leaves `[L, ...]`."""

    def one(x: Array, y: Array) -> Array:
        return jnp.where(where.reshape(where.shape + (1,) * (x.ndim - where.ndim)), x, y)

    return jax.tree.map(one, a, b)
