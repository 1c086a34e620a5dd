"""`evaluate`: exact counts, no bias, no recompilation, clear errors."""

import dataclasses
import math
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fastrl.envs.classic.cartpole import CartPole
from fastrl.episodes import Player, play
from fastrl.evaluate import Evaluation, evaluate
from fastrl.spaces import Box, Discrete
from fastrl.types import Algorithm, Step

SHORT, LONG = 2, 40


class Params(NamedTuple):
    long_share: float = 0.5


@dataclasses.dataclass(frozen=True)
class Coin:
    """Episodes of SHORT (terminated) or LONG (truncated) steps; the reward is the action.

    The observation is the number of steps so far. `endless` never ends.
    """

    version: ClassVar[int] = 1
    endless: bool = False

    def default_params(self) -> Params:
        return Params()

    def reset(self, key: Any, params: Params) -> Any:
        length = jnp.where(jax.random.bernoulli(key, params.long_share), LONG, SHORT)
        return (jnp.int32(0), length), jnp.zeros(1)

    def step(self, key: Any, state: Any, action: Any, params: Params) -> Any:
        time, length = state[0] + 1, state[1]
        end = (time >= length) & (not self.endless)
        noise = jax.random.normal(key)
        step = Step(
            time.astype(jnp.float32)[None],
            action.astype(jnp.float32),
            end & (length == SHORT),
            end & (length == LONG),
            {"time": time.astype(jnp.float32), "noise": noise},
        )
        return (time, length), step

    def observation_space(self, params: Params) -> Box:
        return Box(0.0, jnp.inf, (1,))

    def action_space(self, params: Params) -> Discrete:
        return Discrete(2)


def biased_coin(state: Any, carry: Any, observation: Any, key: Any) -> Any:
    """Action 1, or with a key action 1 with probability `state`."""
    shape = observation.shape[:-1]
    if key is None:
        return jnp.ones(shape, jnp.int32), carry
    return jax.random.bernoulli(key, state, shape).astype(jnp.int32), carry


def counting(state: Any, carry: Any, observation: Any, key: Any) -> Any:
    """A policy with memory: acts 1 while its step count equals the one that it observes."""
    return (carry == observation[..., 0].astype(jnp.int32)).astype(jnp.int32), carry + 1


def counting_carry(batch_shape: Any) -> Any:
    return jnp.zeros(batch_shape, jnp.int32)


def algorithm(env: Any, act: Any = biased_coin, **kwargs: Any) -> Algorithm:
    return Algorithm(init=act, step=act, act=act, steps_per_iteration=1, default_hparams=(),
                     env=env, **kwargs)  # fmt: skip


HALF = jnp.float32(0.5)


@pytest.mark.parametrize("episodes", [1, 7, 300])
def test_exactly_that_many_complete_episodes(episodes: int):
    """A lost, doubled or unfinished episode would show in the lengths or returns."""
    e = evaluate(algorithm(Coin()), HALF, episodes=episodes)
    assert e.returns.shape == e.lengths.shape == e.terminated.shape == (episodes,)
    assert set(e.lengths.tolist()) <= {SHORT, LONG}
    np.testing.assert_array_equal(e.returns, e.lengths)
    np.testing.assert_array_equal(e.terminated, e.lengths == SHORT)


def test_long_episodes_are_not_missed():
    """Quotas: the share of long episodes is that of the environment, to 4 standard errors.

    "The first N episodes that end" fails: copies that drew a short one play up to 20 of them
    while the others play a long one, so that hardly any long ones are among the first.
    """
    n = 4000  # 16 rounds of 250 copies
    e = evaluate(algorithm(Coin()), HALF, episodes=n, seed=3)
    error = 4 * math.sqrt(0.25 / n)
    assert abs((e.lengths == LONG).mean() - 0.5) < error
    assert abs(e.mean_length - 21) < 38 * error
    rare = evaluate(algorithm(Coin()), HALF, params=Params(0.1), episodes=n, seed=4)
    assert abs((rare.lengths == LONG).mean() - 0.1) < 4 * math.sqrt(0.09 / n)


def test_every_copy_plays_its_quota_in_order():
    """The episodes of one copy alternate with no regard to length: rounds look alike."""
    e = evaluate(algorithm(Coin()), HALF, episodes=4000, seed=5)
    rounds = (e.lengths == LONG).reshape(16, 250).mean(1)
    assert np.abs(rounds - 0.5).max() < 5 * math.sqrt(0.25 / 250)


def test_first_episodes_do_not_depend_on_the_number():
    """Episode e has a key of its own: 7 episodes are the first 7 of 300, also when sampled."""
    for deterministic in (True, False):
        few = evaluate(algorithm(Coin()), HALF, episodes=7, deterministic=deterministic)
        many = evaluate(algorithm(Coin()), HALF, episodes=300, deterministic=deterministic)
        np.testing.assert_array_equal(few.returns, many.returns[:7])


def test_seed_and_key_decide():
    a = evaluate(algorithm(Coin()), HALF, episodes=300, seed=1, deterministic=False)
    b = evaluate(algorithm(Coin()), HALF, episodes=300, seed=1, deterministic=False)
    c = evaluate(algorithm(Coin()), HALF, episodes=300, seed=2, deterministic=False)
    d = evaluate(algorithm(Coin()), HALF, episodes=300, key=jax.random.key(1), deterministic=False)
    np.testing.assert_array_equal(a.returns, b.returns)
    np.testing.assert_array_equal(a.returns, d.returns)
    assert (a.returns != c.returns).any()


def test_deterministic_or_sampled():
    """Sampled actions follow the policy's distribution; the mode is always 1 here."""
    mode = evaluate(algorithm(Coin()), jnp.float32(0.25), episodes=300)
    drawn = evaluate(algorithm(Coin()), jnp.float32(0.25), episodes=300, deterministic=False)
    assert (mode.returns == mode.lengths).all()
    share = drawn.returns.sum() / drawn.lengths.sum()
    assert abs(share - 0.25) < 4 * math.sqrt(0.25 * 0.75 / drawn.lengths.sum())
    assert (mode.deterministic, drawn.deterministic) == (True, False)


def test_metrics_are_means_over_steps():
    e = evaluate(algorithm(Coin()), HALF, episodes=300)
    steps = e.lengths.sum()
    assert e.metrics["time"] == pytest.approx((e.lengths * (e.lengths + 1) / 2).sum() / steps)
    assert abs(e.metrics["noise"]) < 5 / math.sqrt(steps)


def test_memory_is_cleared_at_both_ends():
    """A carry kept over a termination or a truncation would cost the reward of later steps."""
    with_memory = algorithm(Coin(), counting, initial_carry=counting_carry)
    e = evaluate(with_memory, HALF, episodes=600)
    np.testing.assert_array_equal(e.returns, e.lengths)


def test_second_call_compiles_nothing():
    """Neither another state, task, key, seed nor limit may trace the policy again."""
    traces = []

    def act(state: Any, carry: Any, observation: Any, key: Any) -> Any:
        traces.append(1)
        return biased_coin(state, carry, observation, key)

    tracked = algorithm(Coin(), act)
    evaluate(tracked, HALF, episodes=20)
    first = len(traces)
    evaluate(tracked, jnp.float32(0.1), episodes=20, seed=9, max_steps=77)
    evaluate(tracked, HALF, Coin(), Params(0.3), episodes=20, key=jax.random.key(3))
    evaluate(tracked, HALF, params=Params(jnp.float32(0.2)), episodes=20)  # type: ignore[arg-type]
    assert len(traces) == first > 0


def test_state_on_several_devices():
    """A state that training left spread over a mesh evaluates as it would on one device."""
    mesh = jax.make_mesh((jax.device_count(),), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    everywhere = jax.device_put(HALF, jax.NamedSharding(mesh, jax.P()))
    one = evaluate(algorithm(Coin()), HALF, episodes=20, deterministic=False)
    many = evaluate(algorithm(Coin()), everywhere, episodes=20, deterministic=False)
    np.testing.assert_array_equal(one.returns, many.returns)


def test_several_states_in_one_program():
    """`play` is a pure function: vmapped over states it gives what each gives alone."""
    coin = algorithm(Coin())
    program = play(Player(coin.act, coin.initial_carry, Coin(), False), 300)
    key, params, states = jax.random.key(0), Params(), jnp.asarray([0.2, 0.9])
    both = jax.vmap(program, (None, 0, None, None))(key, states, params, 1000)
    for i in range(2):
        one = program(key, states[i], params, 1000)
        np.testing.assert_array_equal(both.returns[i], one.returns)
        np.testing.assert_array_equal(both.lengths[i], one.lengths)


def test_endless_episodes_are_an_error():
    with pytest.raises(RuntimeError, match=r"Coin.*max_steps=50.*0 of 3 episodes were complete"):
        evaluate(algorithm(Coin(endless=True)), HALF, episodes=3, max_steps=50)


def test_limit_counts_steps_of_one_episode():
    """LONG steps are allowed by max_steps=LONG, over any number of episodes; one less is not."""
    e = evaluate(algorithm(Coin()), HALF, episodes=600, max_steps=LONG)
    assert e.lengths.max() == LONG
    with pytest.raises(RuntimeError, match="of 600 episodes were complete"):
        evaluate(algorithm(Coin()), HALF, episodes=600, max_steps=LONG - 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"episodes": 0}, r"episodes=0: needs an integer of at least 1"),
        ({"episodes": -3}, r"episodes=-3"),
        ({"episodes": 2.5}, r"episodes=2.5: needs an integer"),
        ({"episodes": True}, r"episodes=True: needs an integer"),
        ({"episodes": "ten"}, r"episodes='ten': needs an integer"),
        ({"max_steps": 0}, r"max_steps=0: needs an integer of at least 1"),
        ({"max_steps": None}, r"max_steps=None: needs an integer"),
        ({"seed": 1.5}, r"seed=1.5: needs an integer"),
        ({"seed": -1}, r"seed=-1: needs an integer of at least 0"),
        ({"seed": 2**70}, r"seed=.*at most 4,294,967,295"),
        ({"env": CartPole()}, r"observations of CartPole are .*built for those of Coin"),
        ({"params": (1.0, 2.0)}, r"params of Coin must look like its default_params"),
        ({"params": Params(jnp.ones(3))}, r"params of Coin must look like"),  # type: ignore[arg-type]
        ({"key": jnp.zeros(2, jnp.uint32)}, r"expected a typed key"),
        ({"key": 3}, r"expected a typed key"),
        ({"key": jax.random.split(jax.random.key(0))}, r"key has shape \(2,\): needs a single"),
        ({"env": "CartPole-v1"}, r"env='CartPole-v1' is no environment.*fastrl.make"),
        ({"env": CartPole}, r"env=.*CartPole.* is no environment"),
    ],
)
def test_bad_arguments(change: dict[str, Any], message: str):
    with pytest.raises((ValueError, TypeError), match=message):
        evaluate(algorithm(Coin()), HALF, **change)


def test_no_environment():
    with pytest.raises(ValueError, match="built without an environment: pass env="):
        evaluate(algorithm(None), HALF)


def test_unhashable_environment():
    @dataclasses.dataclass(frozen=True)
    class Listed(Coin):
        sizes: Any = dataclasses.field(default_factory=list)

    with pytest.raises(ValueError, match="Listed cannot be hashed"):
        evaluate(algorithm(Listed()), HALF)


def test_other_actions():
    class Other(Coin):
        def action_space(self, params: Params) -> Discrete:
            return Discrete(3)

    with pytest.raises(ValueError, match=r"actions of Other are .*n=3.* those of Coin"):
        evaluate(algorithm(Coin()), HALF, Other())


def test_wrong_state():
    """A batch of states, or another algorithm's, must not be broadcast into nonsense."""

    def act(state: Any, carry: Any, observation: Any, key: Any) -> Any:
        return (observation @ state["weights"] > 0).astype(jnp.int32), carry

    linear = algorithm(Coin(), act)
    assert evaluate(linear, {"weights": jnp.ones(1)}, episodes=2).episodes == 2
    with pytest.raises(ValueError, match=r"acted with shapes \(5,\).*one \(unbatched\) state"):
        evaluate(linear, {"weights": jnp.ones((1, 5))}, episodes=2)
    with pytest.raises(ValueError, match=r"could not act on an observation of shapes \(1,\)"):
        evaluate(linear, ({"weights": jnp.ones(1)}, {}), episodes=2)


def make(returns: Any, lengths: Any = None) -> Evaluation:
    lengths = np.ones(len(returns), np.int32) if lengths is None else np.asarray(lengths)
    return Evaluation(np.asarray(returns, np.float32), lengths, lengths < 3, {}, True)


def test_summary_numbers():
    e = make([1.0, 2.0, 6.0], [1, 2, 3])
    assert e.mean_return == pytest.approx(3.0)
    assert e.std_return == pytest.approx(np.std([1, 2, 6], ddof=1))
    assert e.mean_length == 2.0
    assert e.terminated_share == pytest.approx(2 / 3)
    assert str(e) == (
        "return 3 ± 6.57 (95 % interval) over 3 episodes, mean length 2, deterministic actions"
    )
    assert str(make([500.0], [500])) == (
        "return 500 over 1 episode, mean length 500, deterministic actions"
    )
    assert math.isnan(make([1.0]).std_return)


def test_interval_is_students():
    stats = pytest.importorskip("scipy.stats")
    for n in [2, 3, 5, 11, 12, 20, 100, 10_000]:
        e = make(np.arange(n))
        expected = stats.t.ppf(0.975, n - 1) * np.std(np.arange(n), ddof=1) / math.sqrt(n)
        assert e.half_width == pytest.approx(expected, rel=1e-3)
