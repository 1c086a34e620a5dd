"""The probes have the values that their docstrings promise."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastrl.registry
from fastrl.kernels import prng

Policy = Callable[[list[np.ndarray]], Any]  # all observations of an episode so far -> action


def episode(name: str, policy: Policy, seed: int) -> tuple[list[np.ndarray], list[Any]]:
    """The observations and the Steps of one episode under `policy`."""
    env: Any = fastrl.registry.make(name)
    params = env.default_params()
    reset_key, step_key = jax.random.split(prng.key(seed))
    state, observation = env.reset(reset_key, params)
    seen, steps = [np.asarray(observation)], []
    while not (steps and (steps[-1].terminated or steps[-1].truncated)):
        state, step = env.step(step_key, state, jnp.asarray(policy(seen)), params)
        steps.append(step)
        seen.append(np.asarray(step.observation))
    return seen, steps


def mean_return(name: str, policy: Policy, episodes: int = 30) -> float:
    return float(
        np.mean([sum(s.reward for s in episode(name, policy, i)[1]) for i in range(episodes)])
    )


def recall(seen: list[np.ndarray]) -> int:
    return int(seen[0] @ [1, 2])


@pytest.mark.parametrize(
    ("name", "right", "best", "wrong", "less"),
    [
        ("probe/Policy", lambda seen: 1, 1.0, lambda seen: 0, 0.0),
        ("probe/PolicyFromObservation", lambda seen: int(seen[-1][0] > 0), 1.0, lambda s: 1, 0.5),
        ("probe/ContinuousPolicy", lambda seen: seen[-1] / 2, 0.0, lambda s: [0.0], -0.25),
        ("probe/Memory", recall, 1.0, lambda s: int(s[-1] @ [1, 2]), 1 / 3),
    ],
)
def test_only_the_right_policy_gets_the_best_return(
    name: str, right: Policy, best: float, wrong: Policy, less: float
) -> None:
    """Fails if a learner with the broken link could pass, or a sound one could not."""
    assert mean_return(name, right) == pytest.approx(best)
    assert mean_return(name, wrong) == pytest.approx(less, abs=0.25)


def test_rewards_that_do_not_depend_on_actions() -> None:
    """Fails if the values that critics are tested for are not those of the environment."""
    for action in (0, 1):
        _, steps = episode("probe/Value", lambda seen, a=action: a, 0)
        assert [float(s.reward) for s in steps] == [1.0]
        seen, steps = episode("probe/ValueFromObservation", lambda seen, a=action: a, 0)
        assert float(steps[0].reward) == seen[0][0]
        seen, steps = episode("probe/Discount", lambda seen, a=action: a, 0)
        assert [float(s.reward) for s in steps] == [0.0, 1.0]
        assert [float(o[0]) for o in seen[:2]] == [0.0, 1.0]
        _, steps = episode("probe/TimeLimit", lambda seen, a=action: a, 0)
        assert [float(s.reward) for s in steps] == [1.0] * 10
        assert bool(steps[-1].truncated)
        assert not bool(steps[-1].terminated)


def test_memory_hides_the_cue_and_the_end() -> None:
    """Fails if the answer can be had without memory, or episodes end in one way or time only."""
    lengths, cues, cuts = set(), set(), set()
    for seed in range(40):
        seen, steps = episode("probe/Memory", recall, seed)
        assert not np.any(seen[1:])
        assert not any(s.reward for s in steps[:-1])
        lengths.add(len(steps))
        cues.add(recall(seen))
        cuts.add(bool(steps[-1].truncated))
    assert lengths == {2, 3, 4}
    assert cues == {0, 1, 2}
    assert cuts == {False, True}
