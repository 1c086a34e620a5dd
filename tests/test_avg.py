"""AVG: a whole stream against float64 NumPy, its scale of errors, its door, learning."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle_streaming import single
from streaming_script import CUTS, ENDS, LENGTH, Script
from test_streaming_oracle import Walk, assert_close, flat, play

import fastrl
from fastrl.streaming import avg, networks, statistics, stream
from fastrl.streaming.networks import Shape

STEPS = 600
SMALL = avg.Config(num_steps=1, hidden_sizes=(7, 5))
NUMBERS = {
    "learning_rate": single(1e-3), "critic_learning_rate": single(2e-3), "gamma": single(0.99),
    "temperature": single(0.1), "first_decay": single(0.3), "second_decay": single(0.99),
}  # fmt: skip


class Network:
    """Dense layers with LeakyReLU, the last of length 1; parameters flat as those of fastrl."""

    def __init__(self, params: Any, unit: bool):
        self.layers = [
            [np.asarray(x, np.float64) for x in layer] for layer in params.hidden + params.heads
        ]
        self.heads, self.unit = len(params.heads), unit
        self.m, self.v, self.updates = np.zeros(self.flat().size), np.zeros(self.flat().size), 0

    def flat(self) -> np.ndarray:
        return np.concatenate([x.ravel() for layer in self.layers for x in layer])

    def forward(self, x: np.ndarray) -> tuple[list[np.ndarray], Any]:
        """The heads' outputs, and what `backward` needs."""
        tape = []
        for kernel, bias in self.layers[: -self.heads]:
            pre = x @ kernel + bias
            tape.append((x, pre))
            x = np.where(pre > 0, pre, 0.01 * pre)
        length = np.linalg.norm(x) if self.unit else 1.0
        x = x / length if length else x  # the first observation is 0, and so are all biases
        return [x @ k + b for k, b in self.layers[-self.heads :]], (tape, x, length)

    def backward(self, saved: Any, cotangents: list[Any]) -> Any:
        """The gradient of the sum of outputs times cotangents: of the parameters, of the input."""
        tape, x, length = saved
        grads = [[np.outer(x, c), np.asarray(c)] for c in cotangents]
        back = sum(k @ c for (k, _), c in zip(self.layers[-self.heads :], cotangents, strict=True))
        if self.unit:
            back = (back - x * (x @ back)) / length if length else 0.0 * back
        for (kernel, _), (x, pre) in zip(self.layers[: -self.heads][::-1], tape[::-1], strict=True):
            d = np.where(pre > 0, 1.0, 0.01) * back
            grads.insert(0, [np.outer(x, d), d])
            back = kernel @ d
        return np.concatenate([g.ravel() for layer in grads for g in layer]), back

    def descend(self, gradient: np.ndarray, rate: float) -> None:
        """A step of Adam."""
        b1, b2 = NUMBERS["first_decay"], NUMBERS["second_decay"]
        self.updates += 1
        self.m = b1 * self.m + (1 - b1) * gradient
        self.v = b2 * self.v + (1 - b2) * gradient**2
        m, v = self.m / (1 - b1**self.updates), self.v / (1 - b2**self.updates)
        step, at = rate * m / (np.sqrt(v) + 1e-8), 0
        for layer in self.layers:
            for i, x in enumerate(layer):
                layer[i] = x - step[at : at + x.size].reshape(x.shape)
                at += x.size


class Scale:
    """The deviation of errors from all values so far, each time anew."""

    def __init__(self) -> None:
        self.rewards, self.discounts, self.squares, self.total = [], [], [], 0.0

    def sigma(self, reward: float, ended: bool) -> float:
        self.total += reward
        self.rewards.append(reward)
        self.discounts.append(NUMBERS["gamma"] * (not ended))
        if ended:
            self.squares.append(self.total**2)
            self.total = 0.0
        square = np.mean(self.squares) if self.squares else 0.0
        variance = max(np.var(self.rewards) + np.var(self.discounts) * square, 1e-4)
        return 1.0 if variance <= 0.01 and not self.squares else float(np.sqrt(variance))


def drawn(network: Network, x: np.ndarray, key: Any) -> tuple[np.ndarray, float, Any]:
    """An action in [-1, 1], its log-probability, and what the gradient of both needs."""
    noise = np.asarray(jax.random.normal(key, (2,)), np.float64)
    (mean, raw), saved = network.forward(x)
    log_std = np.clip(raw, -20.0, 2.0)
    u = mean + np.exp(log_std) * noise
    density = -0.5 * noise**2 - log_std - 0.5 * np.log(2 * np.pi) - np.log(1 - np.tanh(u) ** 2)
    inside = (raw > -20.0) & (raw < 2.0)
    return np.tanh(u), float(density.sum()), (saved, u, np.exp(log_std) * noise * inside, inside)


def down(network: Network, back: Any, of_action: np.ndarray) -> np.ndarray:
    """The gradient of alpha log pi(a|s) - Q(s, a), by `dQ/da`."""
    saved, u, of_raw, inside = back
    # d log pi / du: the noise is given, so the density of the normal moves with log std only.
    of_u = NUMBERS["temperature"] * 2 * np.tanh(u) - of_action * (1 - np.tanh(u) ** 2)
    heads = [of_u, of_u * of_raw - NUMBERS["temperature"] * inside]
    return network.backward(saved, heads)[0]


@pytest.mark.parametrize("plain", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_avg_is_the_oracle(plain):
    """Gradients through the action, the order of scale, bootstrap and updates, the cuts."""
    config = SMALL
    if plain:
        config = avg.Config(1, (7, 5), normalize_features=False, scale_error=False)
    hparams = avg.HParams(**NUMBERS)
    played = play(avg.make(Script(True), config), hparams, STEPS)
    walk = Walk(config.stream, played)
    policy, critic = (Network(p, not plain) for p in played.first.params)
    scale, deltas = Scale(), []
    gamma, alpha = NUMBERS["gamma"], NUMBERS["temperature"]
    for i in range(STEPS):
        x, at = walk.x, played.times[i] % LENGTH
        _, action_key, next_key, _ = jax.random.split(played.keys[i], 4)
        action, log_prob, back = drawn(policy, x, action_key)
        (q,), saved = critic.forward(np.append(x, action))
        t, after = walk.step(float(np.sin(0.5 * action).sum()))  # the Box is [-0.5, 0.5]
        sigma = scale.sigma(t.reward - alpha * log_prob, bool(ENDS[at]))
        sigma = 1.0 if plain else sigma
        following, log_prob_after, _ = drawn(policy, after, next_key)
        v = critic.forward(np.append(after, following))[0][0][0] - alpha * log_prob_after
        delta = (t.reward + gamma * (not ENDS[at]) * v - q[0]) / sigma
        of_weights, of_input = critic.backward(saved, [np.ones(1)])
        policy.descend(down(policy, back, of_input[-2:]), NUMBERS["learning_rate"])
        critic.descend(-2 * delta / sigma * of_weights, NUMBERS["critic_learning_rate"])
        deltas.append(delta)
        if not plain:
            np.testing.assert_allclose(played.metrics["error_scale"][i], sigma, rtol=2e-3)
    for mine, network in zip(played.last.params, (policy, critic), strict=True):
        assert_close("parameters", flat(mine), network.flat())
    assert_close("errors", played.metrics["td_error"], np.abs(deltas))
    np.testing.assert_allclose(played.last.scale.total, scale.total, rtol=2e-3)
    assert int(played.last.scale.squares.count) == len(scale.squares) > 10
    assert CUTS[played.times % LENGTH].sum() > 10


def test_the_scale_of_errors_before_anything_is_known():
    """A division by 0.01 while all rewards are alike, or by 1 ever after."""
    nothing = statistics.init()
    none = avg.ErrorScale(nothing, nothing, nothing, jnp.float32(0.0))
    x, no = jnp.float32(0.9), jnp.bool_(False)
    outcome = stream.Outcome(x, x, x, x, no, no, no)
    alike = none.updated(jnp.float32(2.0), outcome).updated(jnp.float32(2.0), outcome)
    assert float(alike.sigma()) == 1.0
    ended = alike.updated(jnp.float32(2.0), outcome._replace(terminated=jnp.bool_(True)))
    assert float(ended.total) == 0.0
    assert float(ended.squares.mean) == 36.0
    np.testing.assert_allclose(float(ended.sigma()), 0.01, rtol=1e-6)  # gamma' did not vary here
    differ = alike.updated(jnp.float32(5.0), outcome)
    np.testing.assert_allclose(float(differ.sigma()), np.sqrt(2.0), rtol=1e-6)


def test_features_of_length_one():
    """Weights that are not orthogonal, a length that is not 1, a gradient of NaN at 0."""
    network = networks.networks([Shape((4,), (8, 8), (3,))], "orthogonal", 0.0, False, True)[0]
    params = jax.jit(network.init)(jax.random.key(0))
    kernel = np.asarray(params.hidden[1].kernel)
    np.testing.assert_allclose(kernel @ kernel.T, np.eye(8), atol=1e-5)
    zeros = jnp.zeros(4)
    gradient = jax.grad(lambda x: network.apply(params, x)[0].sum())(zeros)
    np.testing.assert_array_equal(gradient, zeros)
    for size in (1.0, 100.0):  # without biases a network of the direction alone
        x = size * jnp.array([1.0, -2.0, 0.5, 3.0])
        got = network.apply(params, x)[0]
        np.testing.assert_allclose(jnp.linalg.norm(networks.unit(x)), 1.0, rtol=1e-6)
        np.testing.assert_allclose(got, network.apply(params, x / size)[0], rtol=1e-4)


def test_bad_arguments_say_the_way_out():
    """A program that compiles, or fails within JAX."""
    pendulum = fastrl.make("Pendulum-v1")
    wrong: Any
    for wrong, message in (
        ({"num_steps": 0}, "num_steps=0"), ({"hidden_sizes": 3}, "hidden_sizes=3"),
        ({"scale_error": 1}, "scale_error=1"), ({"normalize_features": "no"}, "normalize_features"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            avg.Config(**wrong)
    with pytest.raises(ValueError, match="needs a Box"):
        avg.make(fastrl.make("CartPole-v1"))
    with pytest.raises(TypeError, match="config is a dict"):
        avg.make(pendulum, {"num_steps": 3})  # type: ignore[arg-type]
    algorithm = avg.make(pendulum)
    assert avg.make(pendulum, avg.Config()) is algorithm
    with pytest.raises(ValueError, match="temperature"):
        algorithm.check(avg.HParams(temperature=-1.0))
