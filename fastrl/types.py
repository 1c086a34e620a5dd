"""The records and callable types that every part of fastrl speaks.

Shapes are written in code spans with the same letters everywhere: `[T, N]` is
time by environment, `B` a batch, `A` a number of actions, `...` any leading axes.
"""

from collections.abc import Callable, Hashable
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

import jax
import numpy as np

from fastrl.metrics import Metrics
from fastrl.spaces import Space

Array = jax.Array
Key = jax.Array  # a typed key: `jax.random.key`
PyTree = Any
Observation = Any  # an array or a pytree of arrays
Action = Any  # an array or a pytree of arrays
Scalar = float | Array  # a number that may be traced

StateT = TypeVar("StateT")
ParamsT = TypeVar("ParamsT")
HParamsT = TypeVar("HParamsT")


class Step(NamedTuple):
    """What happened in one environment step, before any reset.

    `terminated` and `truncated` are never true together: a time limit that falls on
    a terminal state is a termination.  `metrics` holds scalars for logs, which no
    algorithm reads.
    """

    observation: Observation
    reward: Array  # float32 []
    terminated: Array  # bool []: the task itself ended, the value of what follows is 0
    truncated: Array  # bool []: cut off from outside, what follows still has a value
    metrics: dict[str, Array] = {}  # noqa: RUF012 - an empty record, never written to


class Transition(NamedTuple):
    """One step of a batch of environments: what learners learn from. Leaves are `[N, ...]`.

    `next_observation` is the true successor, also at the end of an episode, where the
    environment already stands at the first observation of the next one.
    """

    observation: Observation
    action: Action
    reward: Array
    terminated: Array
    truncated: Array
    next_observation: Observation


@runtime_checkable
class Env(Protocol[StateT, ParamsT]):
    """An environment: a frozen dataclass with pure functions of one episode, unbatched.

    Numbers that shape arrays are fields of the environment, numbers of the task are in
    `Params`, numbers of the episode are in `State`; both are pytrees.  Nothing here
    resets by itself: see `fastrl.vec.VecEnv` for batches and episode ends.

    An environment that can be drawn also has `render(state, params) -> uint8 [H, W, 3]`
    (see `Renderable`).
    """

    version: ClassVar[int]  # raised whenever the dynamics change

    def default_params(self) -> ParamsT:
        """The numbers of the standard task."""
        ...

    def reset(self, key: Key, params: ParamsT) -> tuple[StateT, Observation]:
        """A start state and its observation. Consumes `key`."""
        ...

    def step(self, key: Key, state: StateT, action: Action, params: ParamsT) -> tuple[StateT, Step]:
        """The successor state and what happened. Consumes `key`."""
        ...

    def observation_space(self, params: ParamsT) -> Space:
        """What `reset` and `step` return as observation."""
        ...

    def action_space(self, params: ParamsT) -> Space:
        """What `step` accepts as action."""
        ...


@runtime_checkable
class Renderable(Protocol):
    """An environment that can draw a state, on the host."""

    def render(self, state: Any, params: Any) -> np.ndarray:
        """A picture of `state`: uint8 `[H, W, 3]`."""
        ...


class Pool(NamedTuple):
    """What a `Reset` hands out at the end of an episode. Leaves are `[N, ...]`."""

    memory: PyTree  # the reset's own state, carried along
    params: PyTree  # params of the next episodes, `[N, ...]`; () where all share the task's
    state: PyTree
    observation: Observation


class Reset(NamedTuple):
    """Where episodes start and what task comes next; see `fastrl.reset`.

    `init` consumes a key; `draw` consumes a key and offers a fresh start to all `N`
    environments, of which those with `done` take theirs.
    """

    init: Callable[[Key, Any, int], PyTree]  # (key, params, num_envs) -> memory
    draw: Callable[[Key, PyTree, Any, Array], Pool]  # (key, memory, params, done [N]) -> Pool
    per_env_params: bool = False  # whether `draw` hands out params of its own


ResetFactory = Callable[[Any], Reset]  # env -> Reset


class Recipe(NamedTuple):
    """From what an Algorithm was built: what a run folder needs to build it again."""

    algorithm: str
    env: Any
    config: Any
    reset: ResetFactory | None = None
    objective: Hashable = None


def _everything(state: Any) -> Any:
    return state


def _anything(hparams: Any) -> None:
    """No check at all."""


class Algorithm(NamedTuple, Generic[HParamsT, StateT]):
    """Whatever learns. All functions are pure; `hparams` and `task` hold traced numbers.

    A state is a pytree that holds all there is to go on with: keys, parameters,
    optimiser, environment states, buffers, statistics.
    """

    init: Callable[[Key, HParamsT, Any], StateT]  # (key, hparams, task) -> state
    step: Callable[[StateT, HParamsT, Any], tuple[StateT, Metrics]]  # one iteration
    # (state, carry, observation [..., *], key | None) -> (action [..., *], carry): the policy
    # for use after training; no key asks for the mode, carry is () without memory
    act: Callable[[Any, Any, Observation, Key | None], tuple[Action, Any]]
    steps_per_iteration: int  # environment steps that one `step` takes
    default_hparams: HParamsT  # the type and defaults of `hparams`
    env: Any = None  # what `act` plays; None for learners without an environment
    # (state, observation [..., *]) -> [...]: what the critic expects; None for learners without
    value: Callable[[Any, Observation], Array] | None = None
    parameters: Callable[[Any], PyTree] = _everything  # state -> what is learned
    check: Callable[[HParamsT], None] = _anything  # raises ValueError for hparams out of range
    initial_carry: Callable[[tuple[int, ...]], Any] = lambda batch_shape: ()
    recipe: Recipe | None = None
    side_by_side: int = 1  # members that go best in one batch on a CPU: see `fastrl.members`
