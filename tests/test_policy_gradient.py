"""Policy gradients of trajectories: exact derivatives, steps by hand, probes."""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastrl
from fastrl import policy_gradient
from fastrl.algorithms import trajectories, trajectory_gradients
from fastrl.algorithms.trajectory_gradients import Trajectories, hessian_vector
from fastrl.envs.tabular import RandomMDP
from fastrl.kernels import prng

ENV = RandomMDP(states=3, actions=2, horizon=3, sparsity=0.0, seed=1)


def config(method: Any = "n_harpg", **options: Any) -> policy_gradient.Config:
    return policy_gradient.Config(
        method=method, **{"num_trajectories": 4, "horizon": 3, "hidden_sizes": (), **options}
    )


def exact(env, gamma):
    """The discounted return of a linear softmax policy with weights `[F, A]`, in closed form."""
    transitions, rewards = env.tables()
    start, states, horizon = np.eye(env.states)[0], env.states, env.horizon

    def value(weights, bias):
        total, where = 0.0, jnp.asarray(start)
        for t in range(horizon):
            x = jnp.concatenate(
                [jnp.eye(states), jnp.tile(jnp.eye(horizon + 1)[t][None], (states, 1))], axis=1
            )
            pi = jax.nn.softmax(x @ weights + bias[None])
            both = where[:, None] * pi
            total = total + gamma**t * (both * jnp.asarray(rewards)).sum()
            where = jnp.einsum("sa,sat->t", both, jnp.asarray(transitions))
        return total

    return value


def flat(params):
    head = params["params"]["actor_head"]
    return np.concatenate([np.ravel(head["kernel"]), np.ravel(head["bias"])]).astype(np.float64)


def every_trajectory(env, params, network):
    """All trajectories of `env` with their probabilities: an expectation becomes a sum."""
    transitions, rewards = env.tables()
    start, found = np.eye(env.states)[0], []
    ranges = [range(env.states), range(env.actions)] * env.horizon
    for path in itertools.product(*ranges):
        states, actions = path[::2], path[1::2]
        p = start[states[0]]
        for t in range(env.horizon - 1):
            p *= transitions[states[t], actions[t], states[t + 1]]
        if p > 0:
            found.append(
                (states, actions, p, [rewards[s, a] for s, a in zip(states, actions, strict=True)])
            )
    observation = jnp.array([[[s, t] for s, _, _, _ in found for s in (s[t],)] for t in range(3)])
    action = jnp.array([a for _, a, _, _ in found]).T
    reward = np.array([r for *_, r in found]).T
    log_p = np.asarray(network.policy(params, observation).log_prob(action), np.float64).sum(0)
    return observation, action, reward, np.array([p for _, _, p, _ in found]) * np.exp(log_p)


def test_gradient_and_hessian_vector_product_equal_those_of_the_return():
    """Over all trajectories with their probabilities, against the return in closed form.

    A missing term of B, a return that counts what came before, or a discount from the action on
    instead of from the start, would all show.
    """
    gamma, space = 0.9, ENV.observation_space(ENV.default_params())
    network = fastrl.networks.actor_critic(
        space, ENV.action_space(ENV.default_params()), config().network
    )
    params = trajectories.policy_parameters(network.init(prng.key(0)))
    params = jax.tree.map(lambda x: x + 0.5 * jax.random.normal(prng.key(1), x.shape), params)
    vector = jax.tree.map(lambda x: jax.random.normal(prng.key(2), x.shape), params)
    observation, action, reward, p = every_trajectory(ENV, params, network)
    np.testing.assert_allclose(p.sum(), 1.0, rtol=1e-5)
    discounted = reward * gamma ** np.arange(3)[:, None]
    to_go = np.cumsum(discounted[::-1], 0)[::-1]
    weight = jnp.asarray(to_go * (p * len(p)), jnp.float32)  # so that a mean is the expectation
    seen = Trajectories(observation, action, weight, jnp.ones(weight.shape))
    parts = trajectory_gradients.Parts(config(), network, None, None)  # type: ignore[arg-type]
    phi = functools.partial(trajectory_gradients.phi, parts, seen)
    log_p = functools.partial(trajectory_gradients.log_p, parts, seen)

    with jax.enable_x64(True):
        value = exact(ENV, gamma)
        at = [jnp.asarray(np.asarray(params["params"]["actor_head"][n], np.float64))
              for n in ("kernel", "bias")]  # fmt: skip
        along = [jnp.asarray(np.asarray(vector["params"]["actor_head"][n], np.float64))
                 for n in ("kernel", "bias")]  # fmt: skip
        gradient = jax.jit(jax.grad(value, (0, 1)))
        step = 1e-5
        ahead, behind = (gradient(*(x + s * v for x, v in zip(at, along, strict=True)))
                         for s in (step, -step))  # fmt: skip
        wanted = np.concatenate([np.ravel(g) for g in gradient(*at)])
        differences = np.concatenate(
            [np.ravel((a - b) / (2 * step)) for a, b in zip(ahead, behind, strict=True)]
        )
    np.testing.assert_allclose(flat(jax.jit(jax.grad(phi))(params)), wanted, atol=1e-5)
    product = jax.jit(functools.partial(hessian_vector, phi, log_p))
    np.testing.assert_allclose(flat(product(params, vector)), differences, atol=1e-5)
    assert np.abs(differences).max() > 0.01


def steps(method, count, **numbers):
    """The states after 0 .. count iterations, and the trajectories' own gradients."""
    algorithm = policy_gradient.make(ENV, config(method))
    hparams, task = policy_gradient.HParams(**numbers), ENV.default_params()
    state = jax.jit(algorithm.init)(prng.key(3), hparams, task)
    states, step = [state], jax.jit(algorithm.step)
    for _ in range(count):
        states.append(step(states[-1], hparams, task)[0])
    return states


@jax.jit
def played_gradient(state, params):
    """g of the trajectories that an iteration from `state` plays with `params`."""
    parts = policy_gradient.make(ENV, config("reinforce")).step.args[0]  # type: ignore[attr-defined]
    key, hparams = jax.random.split(state.key, 4)[1], policy_gradient.HParams(gamma=0.9)
    seen, _, _ = trajectory_gradients.play(parts, key, params, state, hparams, ENV.default_params())
    return jax.grad(functools.partial(trajectory_gradients.phi, parts, seen))(params)


def gradient_at(state, params):
    return flat(played_gradient(state, params))


def test_transport_weights_by_hand():
    """Three steps of N-PG-IGT in NumPy: where it plays, what it mixes, how far it goes."""
    states = steps("n_pg_igt", 3, gamma=0.9, learning_rate=0.1, step_power=0.5)
    direction = np.zeros(len(flat(states[0].params)))
    for t, (state, after) in enumerate(itertools.pairwise(states)):
        eta = (2 / (t + 2)) ** 0.8
        x, before = flat(state.params), flat(state.previous)
        ahead = x + (1 - eta) / eta * (x - before)
        kernel, bias = (jnp.asarray(x, jnp.float32) for x in (ahead[:-2], ahead[-2:]))
        played = {"params": {"actor_head": {"kernel": kernel.reshape(-1, 2), "bias": bias}}}
        g = gradient_at(state, played)
        direction = (1 - eta) * direction + eta * g
        np.testing.assert_allclose(flat(after.direction), direction, atol=1e-5)
        rate = 0.1 * (2 / (t + 2)) ** 0.5
        expected = x + rate * direction / np.linalg.norm(direction)
        np.testing.assert_allclose(flat(after.params), expected, atol=1e-5)


def test_the_first_step_is_the_plain_gradient():
    """eta_0 = 1: whatever stands in d before, or is carried over from nothing, must not count."""
    before, after = steps("n_pg_igt", 1, gamma=0.9, learning_rate=0.5)
    g = gradient_at(before, before.params)
    moved = flat(after.params) - flat(before.params)
    np.testing.assert_allclose(moved, 0.5 * g / np.linalg.norm(g), atol=1e-5)


@pytest.mark.slow
def test_recursive_momentum_carries_the_last_gradient_to_where_it_is_now():
    """With a rate near 0 the product vanishes and HARPG is plain momentum; with one it is not."""
    for rate, same in ((1e-6, True), (2.0, False)):
        states = steps("harpg", 2, gamma=0.9, learning_rate=rate, momentum_power=1.0)
        first = flat(states[1].direction)
        np.testing.assert_allclose(first, gradient_at(states[0], states[0].params), atol=1e-5)
        g = gradient_at(states[1], states[1].params)
        eta = 2 / 3
        plain = (1 - eta) * first + eta * g
        assert np.allclose(flat(states[2].direction), plain, atol=1e-4) == same


def test_a_cut_trajectory_counts_up_to_the_cut():
    """The time limit's rewards are summed to the end of the trajectory, and no further."""
    env = fastrl.make("probe/TimeLimit")
    algorithm = policy_gradient.make(env, config("reinforce", horizon=14))
    hparams, task = policy_gradient.HParams(gamma=0.5), env.default_params()
    state = jax.jit(algorithm.init)(prng.key(0), hparams, task)
    parts = algorithm.step.args[0]  # type: ignore[attr-defined]
    play = jax.jit(functools.partial(trajectory_gradients.play, parts))
    seen, _, metrics = play(state.key, state.params, state, hparams, task)
    expected = [sum(0.5**h for h in range(t, 10)) for t in range(10)] + [0.0] * 4
    np.testing.assert_allclose(seen.weight, np.tile(np.array(expected)[:, None], 4), atol=1e-6)
    assert float(metrics["episode_return"].total) == 40.0


@pytest.mark.parametrize("method", ["n_pg_igt", "n_harpg"])
def test_policy_from_observation(method):
    """A gradient of the wrong sign, or observations that do not go with their actions."""
    algorithm = policy_gradient.make(
        fastrl.make("probe/PolicyFromObservation"),
        config(method, num_trajectories=8, horizon=1, baseline=True),
    )
    rate = 1.0 if method == "reinforce" else 0.1
    program = jax.jit(fastrl.run(algorithm, 100 * algorithm.steps_per_iteration))
    hparams = policy_gradient.HParams(learning_rate=rate)
    state, _ = program(jax.random.key(0), hparams, algorithm.env.default_params())
    assert fastrl.evaluate(algorithm, state, episodes=50).mean_return == 1.0


def test_a_baseline_is_the_running_mean_of_what_follows():
    """In a probe that always pays 1 the baseline must reach 1, and the gradient vanish."""
    env = fastrl.make("probe/Value")
    algorithm = policy_gradient.make(env, config("reinforce", horizon=1, baseline=True))
    state, metrics = jax.jit(fastrl.run(algorithm, 4 * 60))(
        jax.random.key(0), policy_gradient.HParams(baseline_rate=0.2), env.default_params()
    )
    np.testing.assert_allclose(state.baseline, [1.0], atol=1e-4)
    norms = metrics["gradient_norm"].total
    assert norms[:5].max() > 0.1
    assert norms[-1] < 1e-4


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"method": "harp"}, "'harp'.*'harpg'"),
        ({"num_trajectories": 0}, "num_trajectories=0"),
        ({"horizon": 0}, "horizon=0"),
    ],
)
def test_bad_configs_name_the_value(kwargs, words):
    with pytest.raises(ValueError, match=words):
        policy_gradient.Config(**kwargs)


def test_a_fixed_deviation_is_the_one_that_acts_and_is_not_learned():
    """A gradient that reaches it would let the noise go, which the theory's policies must keep."""
    env = fastrl.make("probe/ContinuousPolicy")
    algorithm = policy_gradient.make(
        env, config("n_harpg", num_trajectories=2000, horizon=1, std=0.25)
    )
    hparams, task = policy_gradient.HParams(learning_rate=0.1), env.default_params()
    state = jax.jit(algorithm.init)(prng.key(0), hparams, task)
    after, _ = jax.jit(algorithm.step)(state, hparams, task)
    for name in ("params", "direction"):
        assert not np.asarray(getattr(after, name)["params"]["log_std"]).any()
    drawn, _ = algorithm.act(state, (), jnp.ones((4000, 1)), prng.key(1))
    assert abs(float(drawn.std()) - 0.25) < 0.02


def test_scheduled_has_the_powers_of_each_method():
    """A schedule under which a method can't converge, or the one of another method."""
    powers = {
        method: tuple(policy_gradient.scheduled(method, 0.5, gamma=0.9)[2:4])
        for method in ("reinforce", "n_pg_igt", "harpg", "n_harpg")
    }
    assert powers.pop("reinforce")[1] == pytest.approx(2 / 3)
    assert powers == {"n_pg_igt": (0.8, 1.0), "harpg": (1.0, 0.5), "n_harpg": (1.0, 1.0)}
    assert policy_gradient.scheduled("harpg", 0.5, gamma=0.9)[:2] == (0.5, 0.9)
    with pytest.raises(ValueError, match=r"'storm'.*'harpg'"):
        policy_gradient.scheduled("storm", 0.5)  # type: ignore[arg-type]
