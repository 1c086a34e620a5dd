"""Transforms on an environment that counts, against sequences worked out by hand."""

import copy
import dataclasses
import pickle
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import MaskedChoice

from fastrl import registry, reset, spaces
from fastrl.check_env import check_env
from fastrl.kernels import prng
from fastrl.spaces import Box, Discrete, MultiDiscrete
from fastrl.transforms import (
    TRANSFORMS,
    ActionRepeat,
    ClipAction,
    FlattenObservation,
    FrameStack,
    OneHotObservation,
    RescaleAction,
    ScaleObservation,
    ScaleReward,
    StickyActions,
    TimeLimit,
    Transform,
)
from fastrl.types import Array, Env, Key, Renderable, Step
from fastrl.vec import VecEnv, rollout

KEY = prng.key(0)
BOX = Box((-1.0, 0.0), (1.0, 10.0), (2,))


class Params(NamedTuple):
    ends_at: int = 1000


class State(NamedTuple):
    number: Array


@dataclasses.dataclass(frozen=True)
class Counter:
    """Counts steps from 0; shows (count, action), rewards the count, terminates at `ends_at`."""

    version: ClassVar[int] = 7
    actions: Any = BOX

    def default_params(self) -> Params:
        return Params()

    def reset(self, key: Key, params: Params) -> tuple[State, Array]:
        width = 1 + int(np.prod(self.actions.shape))
        return State(jnp.int32(0)), jnp.zeros(width)

    def step(self, key: Key, state: State, action: Array, params: Params) -> tuple[State, Step]:
        count = state.number + 1
        seen = jnp.concatenate([count[None], jnp.ravel(action)]).astype(jnp.float32)
        metrics = {"even": (count % 2 == 0).astype(jnp.float32)}
        ended = count == params.ends_at
        return State(count), Step(seen, count.astype(jnp.float32), ended, jnp.bool_(False), metrics)

    def observation_space(self, params: Params) -> Box:
        return Box(-np.inf, np.inf, (1 + int(np.prod(self.actions.shape)),))

    def action_space(self, params: Params) -> Any:
        return self.actions


@dataclasses.dataclass(frozen=True)
class Drawn(Counter):
    """With a picture of the count, and a reset that is dear."""

    dear_reset: ClassVar[bool] = True

    def render(self, state: State, params: Params) -> np.ndarray:
        return np.full((4, 5, 3), int(state.number), np.uint8)

    def render_html(self, states: list[State], params: Params) -> str:
        return " ".join(str(int(s.number)) for s in states)


class Shown(NamedTuple):
    """A space or an observation of several parts."""

    image: Any
    kind: Any
    pair: Any


@dataclasses.dataclass(frozen=True)
class Mixed(Counter):
    """Counter that shows a byte image, an integer and two integers."""

    def reset(self, key: Key, params: Params) -> tuple[State, Any]:
        return State(jnp.int32(0)), self._show(jnp.int32(0))

    def step(self, key: Key, state: State, action: Array, params: Params) -> tuple[State, Step]:
        state, step = super().step(key, state, action, params)
        return state, step._replace(observation=self._show(state.number))

    def observation_space(self, params: Params) -> Any:
        return Shown(Box(0, 255, (2, 1), np.dtype(np.uint8)), Discrete(3), MultiDiscrete((2, 4)))

    def _show(self, count: Array) -> Shown:
        image = jnp.full((2, 1), count * 51, jnp.uint8)
        return Shown(image, count % 3, jnp.stack([count % 2, count % 4]))


def _play(env: Any, actions: Any, params: Any = None) -> tuple[Any, list[Step]]:
    """The first observation and the steps, on to the first end."""
    params = env.default_params() if params is None else params
    state, first = env.reset(KEY, params)
    steps = []
    for key, action in zip(jax.random.split(KEY, len(actions)), actions, strict=True):
        state, step = env.step(key, state, action, params)
        steps.append(step)
        if step.terminated or step.truncated:
            break
    return first, steps


STILL = [jnp.zeros(2)] * 9


def test_time_limit_truncates_and_termination_wins() -> None:
    """Both flags at once, or a limit that reads as a terminal state, would bias every critic."""
    _, steps = _play(TimeLimit(Counter(), 3), STILL)
    assert [(bool(s.terminated), bool(s.truncated)) for s in steps] == [
        (False, False), (False, False), (False, True),
    ]  # fmt: skip
    env = TimeLimit(Counter(), 3)
    _, steps = _play(env, STILL, env.default_params()._replace(env=Params(ends_at=3)))
    assert (bool(steps[-1].terminated), bool(steps[-1].truncated)) == (True, False)


def test_time_limits_nest() -> None:
    """The tighter one holds, wherever it stands."""
    for outer, inner in ((2, 5), (5, 2)):
        _, steps = _play(TimeLimit(TimeLimit(Counter(), inner), outer), STILL)
        assert len(steps) == 2
        assert steps[-1].truncated


def test_time_limit_is_traced_and_may_differ_by_environment() -> None:
    """A limit baked into the program would compile anew and be the same for all."""
    env = TimeLimit(Counter(), 3)
    limits = jnp.array([1, 2, 4])
    params = env.default_params()._replace(max_steps=limits)

    def length(params: Any) -> Array:
        state, _ = env.reset(KEY, params)

        def body(state: Any, _: None) -> tuple[Any, Array]:
            state, step = env.step(KEY, state, jnp.zeros(2), params)
            return state, step.truncated

        return jnp.argmax(jax.lax.scan(body, state, None, length=6)[1]) + 1

    axes = env.default_params()._replace(env=None, max_steps=0)
    np.testing.assert_array_equal(jax.vmap(length, (axes,))(params), limits)


def test_action_repeat_sums_rewards_and_stops_at_the_end() -> None:
    """Steps after an end would add reward from beyond it and hide the final observation."""
    env = ActionRepeat(Counter(), 3)
    params = Params(ends_at=5)
    _, (one, two) = _play(env, STILL, params)
    assert (float(one.reward), bool(one.terminated)) == (1 + 2 + 3, False)
    assert (float(two.reward), bool(two.terminated)) == (4 + 5, True)
    assert float(two.observation[0]) == 5.0
    np.testing.assert_allclose(one.metrics["even"], 1 / 3, rtol=1e-6)
    np.testing.assert_allclose(two.metrics["even"], 1 / 2, rtol=1e-6)


def test_action_repeat_counts_time_by_where_the_limit_stands() -> None:
    inside = ActionRepeat(TimeLimit(Counter(), 4), 3)
    outside = TimeLimit(ActionRepeat(Counter(), 3), 4)
    _, steps = _play(inside, STILL)
    assert [float(s.reward) for s in steps] == [6.0, 4.0]  # 1 + 2 + 3, then 4 alone
    assert len(_play(outside, STILL)[1]) == 4


def test_frame_stack_is_filled_with_the_first_frame_and_pushes_at_the_end() -> None:
    """Zeros instead of the first frame, or the oldest frame in the last place."""
    first, steps = _play(FrameStack(Mixed(), 3), STILL)
    assert first.image.shape == (2, 3)
    assert first.kind.tolist() == [0, 0, 0]
    assert steps[0].observation.kind.tolist() == [0, 0, 1]
    assert steps[2].observation.kind.tolist() == [1, 2, 0]
    assert steps[2].observation.image[0].tolist() == [51, 102, 153]
    assert steps[2].observation.pair.tolist() == [1, 1, 0, 2, 1, 3]
    assert steps[2].observation.image.dtype == jnp.uint8


def test_frame_stack_spaces() -> None:
    space = FrameStack(Mixed(), 3).observation_space(Params())
    assert space.image == Box(0, 255, (2, 3), np.dtype(np.uint8))
    assert space.kind == MultiDiscrete((3, 3, 3))
    assert space.pair == MultiDiscrete((2, 4) * 3)
    bounded = ScaleObservation(RescaleAction(Counter()), scale=(1.0, 2.0, 4.0))
    assert FrameStack(bounded, 2).observation_space(Params()).shape == (6,)


def test_action_masks_are_not_transformed() -> None:
    """A stacked or scaled mask would forbid the wrong actions."""
    env = FrameStack(ScaleObservation(MaskedChoice(), scale=2.0), 2)
    params = env.default_params()
    space = env.observation_space(params)
    assert space.action_mask == MaskedChoice().observation_space(params).action_mask
    assert space.view.shape == (12,)
    _, step = env.step(KEY, env.reset(KEY, params)[0], jnp.int32(0), params)
    assert step.observation.action_mask.shape == (6,)
    assert step.observation.action_mask.dtype == bool
    with pytest.raises(ValueError, match="action_mask"):
        FlattenObservation(MaskedChoice())


def test_sticky_actions_repeat_what_was_executed() -> None:
    """Not what the agent chose last; and the first action is always the agent's."""
    env = StickyActions(Counter(Discrete(100)), 0.5)
    _, steps = _play(env, [jnp.int32(i) for i in range(1, 60)])
    executed = [int(s.observation[1]) for s in steps]
    assert executed[0] == 1
    stuck = 0
    for i in range(1, len(executed)):
        assert executed[i] in (i + 1, executed[i - 1])
        stuck += executed[i] == executed[i - 1]
    assert 15 < stuck < 45


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_sticky_probability_is_traced(probability: float) -> None:
    env = StickyActions(Counter(Discrete(100)))
    params = env.default_params()._replace(probability=probability)
    _, steps = _play(env, [jnp.int32(i) for i in range(1, 6)], params)
    expected = [1] * 5 if probability else [1, 2, 3, 4, 5]
    assert [int(s.observation[1]) for s in steps] == expected


def test_sticky_share_over_many_environments() -> None:
    """A key used by both the environment and the coin would show here as another share."""
    env = StickyActions(Counter(Discrete(1000)), 0.25)
    params = env.default_params()
    state = jax.vmap(env.reset, (0, None))(jax.random.split(KEY, 4000), params)[0]
    step = jax.jit(jax.vmap(env.step, (0, 0, 0, None)))
    first_keys, second_keys = jax.random.split(KEY, (2, 4000))
    state, _ = step(first_keys, state, jnp.full(4000, 1), params)
    _, step = step(second_keys, state, jnp.full(4000, 2), params)
    share = (step.observation[:, 1] == 1).mean()
    assert abs(float(share) - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 4000)


def test_clip_and_rescale_reach_each_bound() -> None:
    """Bounds differ by entry and are not symmetric: [-1, 1] and [0, 10]."""

    def executed(env: Any, action: list[float]) -> list[float]:
        return _play(env, [jnp.array(action)])[1][0].observation[1:].tolist()

    clip, rescale = ClipAction(Counter()), RescaleAction(Counter())
    assert executed(clip, [-3.0, 20.0]) == [-1.0, 10.0]
    assert executed(clip, [0.5, 3.0]) == [0.5, 3.0]
    assert clip.action_space(Params()) == Box(-np.inf, np.inf, (2,))
    assert executed(rescale, [-1.0, -1.0]) == [-1.0, 0.0]
    assert executed(rescale, [1.0, 1.0]) == [1.0, 10.0]
    assert executed(rescale, [0.0, 0.5]) == [0.0, 7.5]
    assert executed(rescale, [-9.0, 9.0]) == [-1.0, 10.0]
    assert rescale.action_space(Params()) == Box(-1.0, 1.0, (2,))
    assert executed(RescaleAction(Counter(), 0.0, 4.0), [1.0, 1.0]) == [-0.5, 2.5]


def test_scale_reward_is_traced() -> None:
    env = ScaleReward(Counter(), 0.5)
    assert [float(s.reward) for s in _play(env, STILL[:3])[1]] == [0.5, 1.0, 1.5]
    params = env.default_params()._replace(scale=jnp.float32(-2.0))
    assert [float(s.reward) for s in _play(env, STILL[:3], params)[1]] == [-2.0, -4.0, -6.0]


def test_scale_observation() -> None:
    env = ScaleObservation(Mixed(), scale=1 / 255)
    _, steps = _play(env, STILL[:2])
    assert steps[1].observation.image.dtype == jnp.float32
    np.testing.assert_allclose(steps[1].observation.image, 0.4, rtol=1e-6)
    assert steps[1].observation.kind.dtype == jnp.int32
    assert env.observation_space(Params()).image == Box(0.0, 1.0, (2, 1))
    turned = ScaleObservation(Counter(), scale=(-1.0, 1.0, 2.0), shift=3.0)
    _, steps = _play(turned, [jnp.array([0.5, 0.25])])
    assert steps[0].observation.tolist() == [2.0, 3.5, 3.5]


def test_one_hot_and_flat_observations() -> None:
    _, steps = _play(OneHotObservation(Mixed()), STILL[:2])
    shown = steps[1].observation
    assert shown.kind.tolist() == [0, 0, 1]
    assert shown.pair.tolist() == [1, 0, 0, 0, 1, 0]
    assert shown.image.dtype == jnp.uint8
    assert OneHotObservation(Mixed()).observation_space(Params()).pair == Box(0.0, 1.0, (6,))
    flat = FlattenObservation(Mixed())
    _, steps = _play(flat, STILL[:2])
    assert steps[1].observation.tolist() == [102, 102, 0, 0, 1, 1, 0, 0, 0, 1, 0]
    space = flat.observation_space(Params())
    assert (space.shape, space.high[:3]) == ((11,), (255.0, 255.0, 1.0))


def test_order_of_composition_is_the_order_of_action() -> None:
    """The outermost transform sees the observation last: stacked frames of scaled pixels."""
    scaled_first = FrameStack(ScaleObservation(Mixed(), scale=1 / 255), 2)
    stacked_first = ScaleObservation(FrameStack(Mixed(), 2), scale=1 / 255)
    for a, b in zip(_play(scaled_first, STILL)[1], _play(stacked_first, STILL)[1], strict=True):
        jax.tree.map(np.testing.assert_array_equal, a.observation, b.observation)
    # RescaleAction outside ClipAction would read bounds that are no longer there.
    with pytest.raises(ValueError, match="finite bounds"):
        RescaleAction(ClipAction(Counter()))


def _everything() -> Any:
    env = RescaleAction(StickyActions(Drawn(), 0.1))
    env = ScaleReward(TimeLimit(ActionRepeat(env, 2), 20), 0.1)
    return FrameStack(ScaleObservation(env, scale=0.1), 3)


def test_true_successor_survives_in_batches() -> None:
    """The stack of a new episode must not leak into the last observation of the old one."""
    env = FrameStack(TimeLimit(Counter(), 3), 2)
    vec_env = VecEnv(env, 2, reset.fresh(env))
    params = env.default_params()

    def run(key: Key) -> Any:
        def policy(key: Key, observation: Array) -> tuple[Array, Any]:
            return jnp.zeros((2, 2)), ()

        return rollout(vec_env, policy, key, vec_env.init(key, params), params, 7)

    _, (transition, _), metrics = jax.jit(run)(KEY)
    counts = transition.next_observation[:, 0, [0, 3]].tolist()
    assert counts == [[0, 1], [1, 2], [2, 3], [0, 1], [1, 2], [2, 3], [0, 1]]
    assert transition.truncated[:, 0].tolist() == [False, False, True] * 2 + [False]
    assert float(metrics["episode_return"].total) == 4 * (1 + 2 + 3)


@pytest.mark.parametrize(
    "env",
    [
        ActionRepeat(Counter(), 2),
        ClipAction(Counter()),
        FlattenObservation(Mixed()),
        FrameStack(Mixed(), 2),
        OneHotObservation(Mixed()),
        RescaleAction(Counter()),
        ScaleObservation(Mixed(), 0.5),
        ScaleReward(Counter(), 2.0),
        StickyActions(Counter()),
        TimeLimit(Counter(), 9),
        _everything(),
    ],
    ids=lambda env: type(env).__name__,
)
def test_every_transform_keeps_the_contract(env: Any) -> None:
    report = check_env(TimeLimit(env, 10), num_envs=8, num_steps=40)
    assert report.ok, str(report)
    assert isinstance(env, Env)
    assert env.version == 7
    assert type(env) in TRANSFORMS.values()


def test_table_names_every_transform() -> None:
    """A transform that is not in the table can't be named in a config."""

    def subclasses(cls: type) -> set[type]:
        direct = set(cls.__subclasses__())
        return direct.union(*(subclasses(c) for c in direct))

    own = [c for c in subclasses(Transform) if c.__module__.startswith("fastrl.transforms")]
    public = {c for c in own if not c.__name__.startswith("_")}
    assert set(TRANSFORMS.values()) == public


def test_forwarded_attributes_are_there_only_if_the_environment_has_them() -> None:
    """`Renderable` and `reset.default` ask whether a method is there."""
    plain: Any = FrameStack(Counter(), 2)
    drawn: Any = _everything()
    assert not isinstance(plain, Renderable)
    assert not hasattr(plain, "render_html")
    assert reset.default(plain) is reset.fresh
    assert reset.default(drawn) is reset.pool
    assert isinstance(_everything(), Renderable)
    params = drawn.default_params()
    state, _ = drawn.reset(KEY, params)
    state, _ = drawn.step(KEY, state, jnp.zeros(2), params)
    assert drawn.render(state, params)[0, 0, 0] == 2
    assert drawn.render_html([state, state], params) == "2 2"


def test_equal_by_value_and_copied_like_values() -> None:
    """Transforms are static arguments: an unequal twin would compile everything anew."""
    env = _everything()
    assert env == _everything()
    assert hash(env) == hash(_everything())
    for twin in (copy.copy(env), copy.deepcopy(env), pickle.loads(pickle.dumps(env))):
        assert twin == env
        assert isinstance(twin, Renderable)
    assert dataclasses.replace(env, size=5) != env


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TimeLimit(Counter(), 0), r"TimeLimit\(max_steps=0\).*at least 1"),
        (lambda: TimeLimit(Counter(), 2.5), r"max_steps=2\.5.*integer"),  # type: ignore[arg-type]
        (lambda: FrameStack(Counter(), 0), r"FrameStack\(size=0\)"),
        (lambda: FrameStack(Counter(), True), r"size=True"),
        (lambda: ActionRepeat(Counter(), -1), r"ActionRepeat\(repeats=-1\)"),
        (lambda: StickyActions(Counter(), 1.5), r"probability=1\.5.*\[0, 1\]"),
        (lambda: RescaleAction(Counter(Discrete(2))), r"RescaleAction needs.*Discrete\(n=2\)"),
        (lambda: ClipAction(Counter(Discrete(2))), r"ClipAction needs.*Discrete\(n=2\)"),
        (lambda: RescaleAction(Counter(), 1.0, 1.0), r"low=1\.0, high=1\.0"),
        (lambda: RescaleAction(Counter(Box(0, np.inf, (1,)))), r"finite bounds"),
        (lambda: OneHotObservation(Counter()), r"discrete observations, not Box"),
        (lambda: ScaleObservation(OneHotObservation(Mixed()), 0.0), r"no scale of 0"),
        (lambda: ScaleObservation(Counter(), (1.0, 2.0)), r"does not fit"),
        (lambda: ScaleReward(Counter(), float("nan")), r"scale=nan.*finite"),
        (lambda: TimeLimit(Counter, 3), r"TimeLimit\(env=<class.*needs an environment"),
        (lambda: TimeLimit("CartPole-v1", 3), r"env='CartPole-v1'.*needs an environment"),
    ],
)
def test_mistakes_are_named_at_construction(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_changed_params_do_not_compile_anew() -> None:
    env = _everything()
    traces = []

    @jax.jit
    def step(key: Key, params: Any) -> Any:
        traces.append(())
        action = spaces.zeros(env.action_space(params))
        return env.step(key, env.reset(key, params)[0], action, params)

    params = env.default_params()
    step(KEY, jax.tree.map(jnp.asarray, params))
    step(KEY, jax.tree.map(lambda x: jnp.asarray(x) + 1, params))
    assert len(traces) == 1


def test_transforms_of_a_registered_environment() -> None:
    env = TimeLimit(registry.make("CartPole-v1"), 7)
    vec_env = VecEnv(env, 4, reset.default(env)(env))
    state = vec_env.init(KEY, env.default_params())
    assert state.observation.shape == (4, 4)
