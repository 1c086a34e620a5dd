"""Whole streams against float64 NumPy, step by step: Q, SARSA, AC, TD in their versions."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import oracle_streaming as oracle
import pytest
from oracle_streaming import single
from streaming_script import CUTS, ENDS, LENGTH, OBSERVATIONS, REWARDS, SIZE, Script

from fastrl.streaming import stream_ac, stream_q, stream_sarsa, stream_td

TOLERANCE = 2e-3  # of float32 after 2,000 updates, relative to the largest weight
ALONE = (3,)  # seeds
# Among these are streams in which float32 decides otherwise once: a unit of 2e-4 is on the other
# side of 0, or another of two actions 1e-4 apart is the best.  Which, depends on the compilation.
DECIDED = (1, 3, 4, 6)
SMALL = {"num_steps": 1, "hidden_sizes": (16, 12)}  # of each unit one weight is left
NUMBERS = {
    "learning_rate": 1.0, "eta": 0.25, "step_size": single(3e-4), "clip": 2.0,
    "second_decay": single(0.999), "peak_decay": single(0.99995), "clip_decay": single(0.998),
}  # fmt: skip


class Played(NamedTuple):
    """A stream as fastrl played it. Leaves are `[T + 1, ...]`, of metrics `[T, ...]`."""

    first: Any  # the state before the first step
    last: Any
    times: np.ndarray  # of the environment, before each step
    keys: Any
    actions: np.ndarray  # those that SARSA has drawn for the next step
    seen: tuple[Any, np.ndarray]  # parameters, and what the network sees, before each step
    metrics: dict[str, np.ndarray]

    def decided(self, i: int) -> list[tuple[list[np.ndarray], Any]]:
        """What float32 weights make of step `i`, of every network: outputs and tape."""
        params, x = jax.tree.map(lambda leaf: leaf[i], self.seen)
        networks = [params] if hasattr(params, "hidden") else params
        return [oracle.Network(p).forward(np.asarray(x, np.float64)) for p in networks]


def play(algorithm: Any, hparams: Any, steps: int, seed: int = 3) -> Played:
    """A stream of `steps` transitions."""
    return _played(jax.jit(_program(algorithm, hparams, steps))(jax.random.key(seed)))


def play_all(algorithm: Any, hparams: Any, steps: int, seeds: tuple[int, ...]) -> list[Played]:
    """A stream for each seed, as members of one vmap."""
    program = jax.jit(jax.vmap(_program(algorithm, hparams, steps)))
    found = program(jax.vmap(jax.random.key)(np.array(seeds)))
    return [_played(jax.tree.map(lambda x, i=i: x[i], found)) for i in range(len(seeds))]


def _program(algorithm: Any, hparams: Any, steps: int) -> Any:
    task = algorithm.env.default_params()

    def noted(state: Any) -> Any:
        seen = state.params, state.stream.x
        return state.stream.env.time, state.key, getattr(state, "action", 0), seen

    def body(state: Any, _: None) -> Any:
        after, metrics = algorithm.step(state, hparams, task)
        return after, (noted(after), {k: m.total for k, m in metrics.items()})

    def program(key: Any) -> Any:
        first = algorithm.init(key, hparams, task)
        last, (notes, metrics) = jax.lax.scan(body, first, None, steps)
        return first, last, noted(first), notes, metrics

    return program


def _played(found: Any) -> Played:
    first, last, begin, notes, metrics = found
    times, actions = (np.append(begin[i], notes[i]) for i in (0, 2))
    seen = jax.tree.map(lambda x, more: np.concatenate([x[None], more]), begin[3], notes[3])
    keys = jnp.concatenate([begin[1][None], notes[1]])
    metrics = {k: np.asarray(m, np.float64) for k, m in metrics.items()}
    return Played(first, last, times, keys, actions, seen, metrics)


class Transition(NamedTuple):
    reward: float
    discount: float
    clears: bool
    observation: np.ndarray
    again: np.ndarray | None  # the first observation of the next episode


def transition(config: Any, seen: oracle.Seen, played: Played, i: int, bonus: float) -> Transition:
    at, following = played.times[i] % LENGTH, OBSERVATIONS[(played.times[i] + 1) % LENGTH]
    ended, cut = bool(ENDS[at]), bool(CUTS[at])
    reward = seen.scale(float(REWARDS[at]) + bonus, ended, cut)
    again = OBSERVATIONS[played.times[i + 1] % LENGTH] if ended or cut else None
    return Transition(reward, *seen.ends(ended, cut), following, again)


class Walk:
    """The observations of a stream as they are seen, in turn."""

    def __init__(self, config: Any, played: Played):
        self.seen = oracle.Seen(config, SIZE, single(50.0))
        self.config, self.played, self.steps, self.number = config, played, 0, 0
        self.x = self.seen.observe(OBSERVATIONS[played.times[0] % LENGTH], 0)

    def step(self, bonus: float) -> tuple[Transition, np.ndarray]:
        """What happened, and the successor as it is seen; `x` is then the next observation."""
        t = transition(self.config, self.seen, self.played, self.number, bonus)
        self.number, self.steps = self.number + 1, self.steps + 1
        after = self.x = self.seen.observe(t.observation, self.steps)
        if t.again is not None:
            self.steps, self.x = 0, self.seen.observe(t.again, 0)
        return t, after


def assert_close(name: str, mine: Any, theirs: Any) -> None:
    theirs = np.asarray(theirs, np.float64)
    scale = max(np.abs(theirs).max(), 1e-3)
    np.testing.assert_allclose(
        np.asarray(mine) / scale, theirs / scale, atol=TOLERANCE, err_msg=name
    )


def assert_same(walk: Walk, played: Played, networks: Any, optimizers: Any, deltas: Any) -> None:
    """What fastrl ended with is what the oracle ended with."""
    params, states = played.last.params, getattr(played.last, "optimizers", None)
    pairs = (
        [(params, played.last.optimizer)] if states is None else zip(params, states, strict=True)
    )
    for (mine, state), network, optimizer in zip(pairs, networks, optimizers, strict=True):
        assert_close("parameters", flat(mine), network.flat())
        assert_close("trace", flat(state.trace), optimizer.z)
    seen = played.last.stream
    assert int(seen.observations.count) == walk.seen.observations.n
    assert_close("mean", seen.observations.mean, walk.seen.observations.mean)
    variance = np.asarray(seen.observations.variance) * walk.seen.observations.n
    assert_close("variance", variance, walk.seen.observations.p)
    assert_close("discounted sum", seen.rewards.trace, walk.seen.u)
    assert_close("errors", played.metrics["td_error"], np.abs(deltas))
    assert ENDS[played.times % LENGTH].sum() > 3
    assert CUTS[played.times % LENGTH].sum() > 3


def flat(tree: Any) -> np.ndarray:
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])


def optimizer_of(config: Any, network: Any, **changes: Any) -> oracle.Optimizer:
    numbers: Any = NUMBERS | changes
    return oracle.Optimizer(config.optimizer, network.flat().size, **numbers)


def fields(hparams: Any) -> Any:
    """`hparams` with those of NUMBERS that it has, and a short time limit."""
    mine = {k: v for k, v in (NUMBERS | {"time_limit": 50.0}).items() if k in hparams._fields}
    return hparams._replace(**mine)


def check_q(config: Any, steps: int, seeds: tuple[int, ...] = ALONE) -> None:
    hparams = fields(stream_q.HParams(epsilon=0.4, final_epsilon=0.4))
    for played in play_all(stream_q.make(Script(), config), hparams, steps, seeds):
        _check_q(config, played)


def _check_q(config: Any, played: Played) -> None:
    walk, network = Walk(config, played), oracle.Network(played.first.params)
    optimizer, deltas, explored = optimizer_of(config, network), [], 0
    for i, action in enumerate(played.metrics["action"].astype(int)):
        (theirs, tape), *_ = played.decided(i)
        (q,), saved = network.forward(walk.x, like=tape)
        gradient = network.backward(saved, [np.eye(3)[action]])
        t, after = walk.step(np.sin(action))
        delta = t.reward + t.discount * network.forward(after)[0][0].max() - q[action]
        explores = action != oracle.greedy(q, like=theirs[0])
        if explores and config.cut == "before":
            optimizer.z = np.zeros_like(optimizer.z)
        clears = t.clears or (explores and config.cut == "after")
        network.add(optimizer.step(gradient, delta, clears))
        deltas.append(delta)
        explored += explores
    assert 0.15 < explored / len(deltas) < 0.4  # 0.4 of them by chance, of which a third is greedy
    assert_same(walk, played, [network], [optimizer], deltas)


def check_sarsa(config: Any, steps: int, seeds: tuple[int, ...] = ALONE) -> None:
    hparams = fields(stream_sarsa.HParams(epsilon=0.4, final_epsilon=0.4))
    for played in play_all(stream_sarsa.make(Script(), config), hparams, steps, seeds):
        _check_sarsa(config, played, steps)


def _check_sarsa(config: Any, played: Played, steps: int) -> None:
    walk, network = Walk(config, played), oracle.Network(played.first.params)
    optimizer, deltas, stale = optimizer_of(config, network), [], 0
    for i in range(steps):
        action, following = int(played.metrics["action"][i]), int(played.actions[i + 1])
        (q,), saved = network.forward(walk.x, like=played.decided(i)[0][1])
        gradient = network.backward(saved, [np.eye(3)[action]])
        t, after = walk.step(np.sin(action))
        delta = t.reward + t.discount * network.forward(after)[0][0][following] - q[action]
        network.add(optimizer.step(gradient, delta, t.clears))
        deltas.append(delta)
        stale += bool(i + 1 < steps and following != int(played.metrics["action"][i + 1]))
    assert (stale > 0) == config.resample_on_reset
    assert_same(walk, played, [network], [optimizer], deltas)


def check_ac(config: Any, steps: int, continuous: bool, seeds: tuple[int, ...] = ALONE) -> None:
    hparams = fields(stream_ac.HParams(entropy_coefficient=0.1))
    for played in play_all(stream_ac.make(Script(continuous), config), hparams, steps, seeds):
        _check_ac(config, played, steps, continuous)


def _check_ac(config: Any, played: Played, steps: int, continuous: bool) -> None:
    walk, nets = Walk(config, played), [oracle.Network(p) for p in played.first.params]
    policy, value = nets
    optimizers = [
        optimizer_of(config, policy, kappa=3.0, eta=single(0.05), step_size=single(1e-4)),
        optimizer_of(config, value, kappa=2.0, eta=0.5, step_size=single(2e-4)),
    ]
    optimizers[0].policy, deltas = True, []
    draw = jax.vmap(lambda key: jax.random.normal(jax.random.split(key, 3)[1], (2,)))
    noises = np.asarray(draw(played.keys), np.float64) if continuous else ()
    for i in range(steps):
        (_, tape), (_, value_tape) = played.decided(i)
        outputs, saved = policy.forward(walk.x, like=tape)
        (v,), saved_value = value.forward(walk.x, like=value_tape)
        gradient_value = value.backward(saved_value, [np.ones(1)])
        if continuous:
            taken, log_prob, entropy = normal(outputs, noises[i])
            bonus = np.sin(np.clip(taken, -0.5, 0.5)).sum()
        else:
            action = int(played.metrics["action"][i])
            log_prob, entropy = categorical(outputs[0], action)
            bonus = np.sin(action)
        t, after = walk.step(bonus)
        delta = t.reward + t.discount * value.forward(after)[0][0][0] - v[0]
        weight = single(0.1) * np.sign(delta)
        cotangents = [a + weight * b for a, b in zip(log_prob, entropy, strict=True)]
        policy.add(optimizers[0].step(policy.backward(saved, cotangents), delta, t.clears))
        value.add(optimizers[1].step(gradient_value, delta, t.clears))
        deltas.append(delta)
    assert_same(walk, played, nets, optimizers, deltas)


def categorical(logits: np.ndarray, action: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Gradients of log-probability and entropy in the logits."""
    p = np.exp(logits - logits.max())
    p /= p.sum()
    entropy = -(p * np.log(p)).sum()
    return [np.eye(len(p))[action] - p], [-p * (np.log(p) + entropy)]


def normal(outputs: Any, noise: np.ndarray) -> tuple[Any, list[np.ndarray], list[np.ndarray]]:
    """The action, and gradients of log-probability and entropy in means and raw deviations."""
    mean, raw = outputs
    std, slope = np.log1p(np.exp(raw)), 1 / (1 + np.exp(-raw))
    action = mean + std * noise
    return action, [noise / std, (noise**2 - 1) / std * slope], [np.zeros(2), slope / std]


def check_td(config: Any, steps: int, seeds: tuple[int, ...] = ALONE) -> None:
    hparams = fields(stream_td.HParams())
    for played in play_all(stream_td.make(Script(), config), hparams, steps, seeds):
        _check_td(config, played, steps)


def _check_td(config: Any, played: Played, steps: int) -> None:
    walk, network = Walk(config, played), oracle.Network(played.first.params)
    optimizer, deltas = optimizer_of(config, network), []
    for i in range(steps):
        (v,), saved = network.forward(walk.x, like=played.decided(i)[0][1])
        gradient = network.backward(saved, [np.ones(1)])
        t, after = walk.step(np.sin(played.metrics["action"][i]))
        delta = t.reward + t.discount * network.forward(after)[0][0][0] - v[0]
        network.add(optimizer.step(gradient, delta, t.clears))
        deltas.append(delta)
    assert_same(walk, played, [network], [optimizer], deltas)


def test_stream_q_is_the_oracle():
    """The order of reward scale, normaliser, bootstrap, update and cut, or a gradient."""
    check_q(stream_q.Config(**SMALL), 2000, DECIDED)


def test_stream_sarsa_is_the_oracle():
    """The action of the bootstrap is not the one that is taken next."""
    check_sarsa(stream_sarsa.Config(**SMALL), 2000, (3, 4))


def test_stream_ac_is_the_oracle():
    """The entropy's sign in the trace, one delta for both networks, the unclipped action."""
    check_ac(stream_ac.Config(**SMALL), 2000, True, (3, 4))


def test_stream_td_is_the_oracle():
    """A plain stream: statistics, trace, bound."""
    check_td(stream_td.Config(**SMALL), 2000, (3, 4))


@pytest.mark.slow
def test_the_version_of_2026_is_the_oracle():
    """A cut that does not bootstrap, or a discounted sum that leaks into the next episode."""
    version = {**SMALL, "initializer": "erk"}
    check_q(stream_q.Config.version("2026", **version), 2000)
    check_ac(stream_ac.Config.version("2026", **version), 2000, False)


@pytest.mark.slow
def test_intentional_updates_are_the_oracle():
    """A trace that is cleared at cuts, or a clipped error that is not the one it was."""
    # Rounding grows: of the weights 1e-6 after 100 steps, 4e-5 after 400, and no end.
    check_ac(stream_ac.Config.version("intentional", **SMALL), 400, continuous=True)
    check_td(stream_td.Config.version("intentional", **SMALL), 2000)


@pytest.mark.slow
def test_options_are_the_oracle():
    """Second moments, Watkins's cut, actions that outlive their episodes."""
    options = {**SMALL, "second_moment": True}
    check_q(stream_q.Config(cut="before", optimizer="adaptive_obgd", **options), 2000)
    check_sarsa(stream_sarsa.Config(resample_on_reset=False, **options), 2000)
