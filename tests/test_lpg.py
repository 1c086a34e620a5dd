"""LPG's rule and the agent that learns by it, against loops, autodiff and arithmetic by hand."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toys import Walk

import fastrl
from fastrl import distributions
from fastrl.meta import lpg, lpg_agent, lpg_gru, lpg_network, lpg_optimizer
from fastrl.meta.lpg_a2c import A2C, Numbers
from fastrl.meta.lpg_types import Inputs, Outputs
from fastrl.spaces import Box, Discrete
from fastrl.types import Transition

T, N, A, M = 5, 3, 2, 4


@dataclasses.dataclass(frozen=True)
class Hand(lpg.LPG):
    """LPG with targets set by hand: eta holds them."""

    def targets(self, eta: Any, memory: Any, inputs: Inputs) -> Any:
        return eta, memory


def recorded(seed=0):
    """A rollout on the four places of Walk."""
    draw = np.random.RandomState(seed)
    place = jnp.asarray(draw.randint(4, size=(T, N)), jnp.int32)
    action = jnp.asarray(draw.randint(A, size=(T, N)), jnp.int32)
    reward = jnp.asarray(draw.randn(T, N), jnp.float32)
    none = jnp.zeros((T, N), bool)
    return Transition(place, action, reward, none, none, place)


@functools.cache
def updater(rule: Any, hidden_sizes: tuple[int, ...] = ()):
    """The jitted update of an agent on Walk, and its state at the start."""
    config = lpg_agent.Config(N, T, hidden_sizes)
    agent = lpg_agent.agent(Walk(), config, objective=rule)
    init = jax.jit(lambda key: agent.algorithm.init(key, lpg_agent.HParams(), fastrl_params()))
    return jax.jit(agent.update), init(jax.random.key(1))


def fastrl_params():
    return jax.tree.map(jnp.asarray, Walk().default_params())


def targets_by_hand(policy, bins=None):
    if bins is None:
        bins = jnp.full(M, 1 / M)
    return lpg.Targets(policy, jnp.broadcast_to(jnp.log(bins), (T, N, M)))


@pytest.mark.parametrize("hidden_sizes", [(), pytest.param((8,), marks=pytest.mark.slow)])
def test_with_advantages_for_targets_it_is_an_actor_critic(hidden_sizes):
    """The sign, the mean over the rollout, the clip, or parameters that the loss does not reach."""
    rule = Hand(hidden_size=2, num_bins=M)
    update, state = updater(rule, hidden_sizes)
    t = recorded()
    advantage = jnp.asarray(np.random.RandomState(1).randn(T, N), jnp.float32)
    numbers = lpg_agent.HParams(
        learning_rate=0.7, prediction_weight=0.0, objective=targets_by_hand(advantage)
    )
    after, _, _ = update(state, t, numbers)
    network = lpg_network.network(Discrete(4), Discrete(A), rule.heads, hidden_sizes, "relu")

    def loss(policy: Any) -> Any:  # of an actor, without entropy
        log_p = network.policy(state.params | {"policy": policy}, t.observation).log_prob(t.action)
        return -(log_p * advantage).mean()

    optimizer = optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(0.7))
    before = state.params["policy"]
    updates, _ = optimizer.update(jax.grad(loss)(before), optimizer.init(before))
    for got, wanted in zip(
        jax.tree.leaves(after.params["policy"]),
        jax.tree.leaves(optax.apply_updates(before, updates)), strict=True,
    ):  # fmt: skip
        np.testing.assert_allclose(got, wanted, atol=1e-6)
    for got, wanted in zip(
        jax.tree.leaves(after.params["prediction"]), jax.tree.leaves(state.params["prediction"]),
        strict=True,
    ):  # fmt: skip
        np.testing.assert_array_equal(got, wanted)


def test_a_step_of_the_table_by_hand():
    """The same in float64 without autodiff: (1[a] - pi) A / (T N), added to the rows visited."""
    update, state = updater(Hand(hidden_size=2, num_bins=M))
    t, advantage = recorded(), np.random.RandomState(1).randn(T, N)
    numbers = lpg_agent.HParams(
        learning_rate=0.7, max_grad_norm=1e9, prediction_weight=0.0,
        objective=targets_by_hand(jnp.asarray(advantage, jnp.float32)),
    )  # fmt: skip
    after, _, _ = update(state, t, numbers)
    table = np.asarray(state.params["policy"][0], np.float64)
    moved = table.copy()
    for place, action, a in zip(*(np.ravel(x) for x in (t.observation, t.action, advantage)),
                                strict=True):  # fmt: skip
        p = np.exp(table[place]) / np.exp(table[place]).sum()
        moved[place] += 0.7 * (np.eye(A)[action] - p) * a / (T * N)
    np.testing.assert_allclose(after.params["policy"][0], moved, atol=1e-6)


def test_predictions_go_to_their_targets():
    """A divergence in the other direction, or one that moves the policy."""
    update, start = updater(Hand(hidden_size=2, num_bins=M))
    t, zero = recorded(), jnp.zeros((T, N))
    bins = jnp.array([0.7, 0.1, 0.15, 0.05])
    numbers = lpg_agent.HParams(head_learning_rate=12.0, objective=targets_by_hand(zero, bins))
    state, divergences = start, []
    for _ in range(400):
        state, _, metrics = update(state, t, numbers)
        divergences.append(float(metrics["divergence"].total / metrics["divergence"].weight))
    assert np.all(np.diff(divergences) <= 1e-7)
    assert divergences[-1] < 1e-3
    np.testing.assert_array_equal(state.params["policy"][0], start.params["policy"][0])
    visited = np.unique(t.observation)
    y = jax.nn.softmax(state.params["prediction"][0])[visited]
    np.testing.assert_allclose(y, np.broadcast_to(bins, y.shape), atol=0.05)


def test_gradient_of_the_divergence():
    """d/dlogits KL(y || q) = y (log y - log q - KL)."""
    logits = jax.random.normal(jax.random.key(0), (7, M))
    target = jax.nn.log_softmax(jax.random.normal(jax.random.key(1), (7, M)))
    got = jax.grad(lambda x: lpg.kl(x, target).sum())(logits)
    log_y = jax.nn.log_softmax(logits)
    gap = log_y - target
    divergence = (jnp.exp(log_y) * gap).sum(-1, keepdims=True)
    np.testing.assert_allclose(got, jnp.exp(log_y) * (gap - divergence), atol=1e-6)


def inputs(seed=0, terminated=None, truncated=None, progress=0.5, lifetime=10.0):
    draw = jax.random.normal(jax.random.key(seed), (T, N, A + 2 * M + 1))
    none = jnp.zeros((T, N), bool)
    policy = distributions.categorical(draw[..., :A])
    now, following = draw[..., A : A + M], draw[..., A + M : A + 2 * M]
    return Inputs(
        jnp.zeros((T, N), jnp.int32), draw[..., -1],
        none if terminated is None else terminated, none if truncated is None else truncated,
        Outputs(policy, {lpg.PREDICTION: now}), Outputs(policy, {lpg.PREDICTION: following}),
        jnp.float32(progress), jnp.float32(lifetime),
    )  # fmt: skip


@functools.cache
def rule_targets(temporal: bool):
    rule = lpg.LPG(hidden_size=16, num_bins=M, temporal=temporal)
    eta = rule.init(jax.random.key(3))
    return rule, eta, jax.jit(lambda eta, i: rule.targets(eta, (), i)[0])


@pytest.mark.parametrize("cut", ["terminated", "truncated"])
def test_nothing_comes_from_beyond_an_end(cut):
    """A recurrence that runs over the end of an episode; a successor that counts after a death."""
    _, eta, targets = rule_targets(False)
    at = 2
    end = jnp.zeros((T, N), bool).at[at].set(True)
    here = inputs(terminated=end if cut == "terminated" else None,
                  truncated=end if cut == "truncated" else None)  # fmt: skip
    other = inputs(seed=9)
    later = lambda a, b: jnp.concatenate([a[: at + 1], b[at + 1 :]])  # noqa: E731
    changed = here._replace(
        reward=later(here.reward, other.reward),
        outputs=jax.tree.map(later, here.outputs, other.outputs),
        next_outputs=jax.tree.map(later, here.next_outputs, other.next_outputs),
    )
    old, new = targets(eta, here), targets(eta, changed)
    for a, b in zip(old, new, strict=True):
        np.testing.assert_array_equal(a[: at + 1], b[: at + 1])
        assert (np.asarray(a[at + 1 :]) != np.asarray(b[at + 1 :])).any()
    moved = targets(eta, here._replace(reward=here.reward.at[at].add(1.0)))
    for a, b in zip(old, moved, strict=True):
        assert (np.asarray(a[: at + 1]) != np.asarray(b[: at + 1])).all()
    successor = here.next_outputs.heads[lpg.PREDICTION].at[at].add(1.0)
    seen = here._replace(next_outputs=here.next_outputs._replace(heads={lpg.PREDICTION: successor}))
    same = np.array_equal(targets(eta, seen).policy, old.policy)
    assert same == (cut == "terminated")  # a successor that was cut off still counts


def test_age_and_lifetime():
    """n and N as they are: inputs beyond those of training; log N missing."""
    rule, eta, targets = rule_targets(True)
    x = rule.features(eta, inputs(progress=0.25, lifetime=40.0))
    np.testing.assert_allclose(x[..., 5], 0.25)
    np.testing.assert_allclose(x[..., 6], np.log(40.0), rtol=1e-6)
    assert rule.features(eta, inputs(progress=1.5))[..., 5].max() == 1.0
    blind = eta._replace(
        recurrence=eta.recurrence._replace(inputs=eta.recurrence.inputs.at[6].set(0.0))
    )
    once, twice = (targets(blind, inputs(lifetime=n)) for n in (10.0, 20.0))
    np.testing.assert_array_equal(once.policy, twice.policy)
    assert (targets(eta, inputs(lifetime=20.0)).policy != twice.policy).any()


def test_sizes_of_the_published_rule():
    """A layer without a bias, or another width: published weights would not fit."""
    for temporal, size in ((False, 203_946), (True, 205_482)):
        shapes = jax.eval_shape(lpg.LPG(temporal=temporal).init, jax.random.key(0))
        assert sum(x.size for x in jax.tree.leaves(shapes)) == size


def plain(p, x, done):
    """The recurrence as a loop that JAX differentiates."""
    size, h, outputs = p.reset_bias.shape[0], jnp.zeros((*x.shape[1:-1], p.reset_bias.shape[0])), []
    for t in reversed(range(x.shape[0])):
        h = jnp.where(done[t][..., None], 0.0, h)
        own, past = x[t] @ p.inputs + p.bias[None], h @ p.recurrent
        r, z = (jax.nn.sigmoid(own[..., i : i + size] + past[..., i : i + size])
                for i in (0, size))  # fmt: skip
        n = jnp.tanh(own[..., 2 * size :] + r * (past[..., 2 * size :] + p.reset_bias[None]))
        h = (1 - z) * n + z * h
        outputs.append(h)
    return jnp.stack(outputs[::-1])


@pytest.mark.slow
def test_the_recurrence_and_its_gradient():
    """A hand-written backward pass that misses a path, in float64."""
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(0, impl="threefry2x32"), 4)
        p = lpg_gru.init(keys[0], 3, 4)
        p = jax.tree.map(lambda a: a.astype(jnp.float64) + 0.1, p)
        x = jax.random.normal(keys[1], (T, N, 3), jnp.float64)
        done = jax.random.bernoulli(keys[2], 0.3, (T, N))
        weights = jax.random.normal(keys[3], (T, N, 4), jnp.float64)
        loss = lambda f: lambda p, x: (f(p, x, done) * weights).sum()  # noqa: E731
        np.testing.assert_allclose(lpg_gru.backwards(p, x, done), plain(p, x, done), atol=1e-12)
        got, wanted = (jax.jit(jax.grad(loss(f), (0, 1)))(p, x) for f in (lpg_gru.backwards, plain))
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-12)


def test_rows_are_the_linear_layer_on_one_hot():
    """An offset between the parts of an observation, or a row of another head."""
    space = {"a": Discrete(3), "b": Box(-1.0, 1.0, (2,))}
    rows = lpg_network.function(space, 4, ())
    params = rows.init(jax.random.key(0))
    a = jnp.array([[0, 2], [1, 1]], jnp.int32)
    b = jax.random.normal(jax.random.key(1), (2, 2, 2))
    wanted = jax.nn.one_hot(a, 3) @ params[0] + b @ params[1]
    np.testing.assert_allclose(rows.apply(params, {"a": a, "b": b}), wanted, atol=1e-6)


def test_optimizers():
    """A NaN where the gradient is 0, or steps that are not those of optax."""
    params, gradient = {"w": jnp.array([1.0, -2.0])}, {"w": jnp.array([3.0, 4.0])}
    zero = jax.tree.map(jnp.zeros_like, gradient)
    norm = lambda g: lpg_optimizer.clipped(g, 0.5)["w"].sum()  # noqa: E731
    assert np.isfinite(jax.grad(norm)(zero)["w"]).all()
    np.testing.assert_allclose(lpg_optimizer.clipped(gradient, 0.5)["w"], [0.3, 0.4], rtol=1e-6)
    ours, theirs = lpg_optimizer.optimizer("adam"), optax.adam(0.1)
    state, known = ours.init(params), theirs.init(params)
    a: Any = params
    b: Any = params
    for i in range(3):
        g = jax.tree.map(lambda x: x * (i - 1), gradient)  # noqa: B023
        state, a = ours.apply(state, a, g, 0.1)
        updates, known = theirs.update(g, known)
        b = optax.apply_updates(b, updates)
    np.testing.assert_allclose(a["w"], b["w"], rtol=1e-5)


def test_what_does_not_fit_is_refused():
    """A failure inside of JAX that names nothing."""
    rule = lpg.LPG(hidden_size=4)
    algorithm = lpg_agent.make(Walk(), lpg_agent.Config(2, 2), objective=rule)
    with pytest.raises(ValueError, match=r"needs lpg\.Parameters"):
        jax.eval_shape(fastrl.run(algorithm, 4), jax.random.key(0), None, fastrl_params())
    with pytest.raises(ValueError, match="discrete actions"):
        lpg_agent.make(fastrl.make("Pendulum-v1"), objective=rule)
    with pytest.raises(TypeError, match=r"objective\.init"):
        lpg_agent.make(Walk(), objective=lambda *_: 0)  # type: ignore[arg-type]


@pytest.mark.slow
def test_the_actor_critic_walks_to_the_prize():
    """An antagonist that does not learn makes every regret 0."""
    algorithm = lpg_agent.make(Walk(), lpg_agent.Config(16, 8))
    hparams = lpg_agent.HParams(learning_rate=4.0, objective=Numbers())
    _, metrics = jax.jit(fastrl.run(algorithm, 60 * 128))(
        jax.random.key(0), hparams, fastrl_params()
    )
    returns = metrics["episode_return"].total / metrics["episode_return"].weight
    assert returns[-1] > 0.97
    assert A2C().heads[0].size == 1
