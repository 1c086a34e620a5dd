"""The MinAtar games against the package MinAtar, transition by transition.

States of the package are translated into ours and back (`minatar_states.py`); a step of ours from
the same state, with the same action and the same chance events, must give the same state,
observation, reward and end.  `minatar_oracle.py` tells how events are matched and how play
reaches far into the games.
"""

from pathlib import Path
from typing import Any

import jax
import minatar_oracle as oracle
import minatar_states as states
import numpy as np
import pytest

import fastrl
from fastrl.envs import minatar

GAMES = {
    "asterix": minatar.Asterix(),
    "breakout": minatar.Breakout(),
    "freeway": minatar.Freeway(),
    "seaquest": minatar.Seaquest(),
    "space_invaders": minatar.SpaceInvaders(),
}
BY_NAME = pytest.mark.parametrize("name", GAMES)

Arrays = dict[str, np.ndarray]


def golden(kind: str, name: str) -> Arrays:
    """What `golden/make_minatar.py` recorded: `steps` or `starts` of a game."""
    with np.load(Path(__file__).parent / "golden" / "minatar.npz") as file:
        prefix = f"{name}/{kind}/"
        return {k.removeprefix(prefix): file[k] for k in file.files if k.startswith(prefix)}


def part(arrays: Arrays, name: str) -> Arrays:
    return {k.removeprefix(name + "/"): v for k, v in arrays.items() if k.startswith(name + "/")}


def each(arrays: Arrays) -> list[Arrays]:
    count = len(next(iter(arrays.values())))
    return [{k: v[i] for k, v in arrays.items()} for i in range(count)]


def packed(observations: Any) -> np.ndarray:
    observations = np.asarray(observations)
    return np.packbits(observations.reshape(len(observations), -1), axis=1)


def advance(name: str, played: Arrays) -> tuple[Any, Any]:
    """What our game makes of the recorded states, actions and events: state and `Step`."""
    game = GAMES[name]
    params = game.default_params()
    before = [states.encode(name, facts) for facts in each(part(played, "before"))]
    kinds = jax.tree.map(np.asarray, game.events(fastrl.key(0), params))
    events = type(kinds)(
        *(played[f"event/{f}"].astype(k.dtype) for f, k in kinds._asdict().items())
    )
    ramps = "ramping" in params._fields
    if ramps:
        params = params._replace(ramping=played["outcome/ramping"])
    axes = type(params)(*(0 if f == "ramping" else None for f in params._fields))
    step = jax.jit(jax.vmap(game.advance, (0, 0, 0, axes if ramps else None)))
    first = jax.tree.map(lambda *leaves: np.stack(leaves), *before)
    return jax.device_get(step(first, played["outcome/action"], events, params))


def assert_transitions_equal(name: str, played: Arrays) -> None:
    after, step = advance(name, played)
    np.testing.assert_array_equal(packed(step.observation), played["outcome/observation"])
    np.testing.assert_array_equal(step.reward, played["outcome/reward"])
    np.testing.assert_array_equal(step.terminated, played["outcome/terminal"])
    assert not step.truncated.any()
    for t, facts in enumerate(each(part(played, "after"))):
        assert_facts_equal(name, jax.tree.map(lambda leaf, t=t: leaf[t], after), facts)


def assert_facts_equal(name: str, state: Any, facts: Arrays) -> None:
    ours = states.decode(name, state)
    assert ours.keys() == facts.keys()
    for key, value in facts.items():
        labels = oracle.names_of_numbers(name) if key == "numbers" else ""
        np.testing.assert_array_equal(ours[key], value, err_msg=f"{key} {labels}")


def assert_starts_equal(name: str, recorded: Arrays) -> None:
    game = GAMES[name]
    params = game.default_params()
    for i, facts in enumerate(each(part(recorded, "after"))):
        if name == "breakout":
            state, observation = game.started(recorded["event/from_left"][i])
        elif name == "freeway":
            state, observation = game.started(recorded["event/speed"][i], params)
        else:
            state, observation = game.reset(fastrl.key(i), params)
        assert_facts_equal(name, jax.device_get(state), facts)
        np.testing.assert_array_equal(packed([observation])[0], recorded["outcome/observation"][i])


@pytest.mark.parametrize(
    "name",  # a step of Seaquest takes longer to compile than all others together
    [pytest.param(n, marks=pytest.mark.slow) if n == "seaquest" else n for n in GAMES],
)
def test_recorded_transitions_are_ours(name: str) -> None:
    """Fails if a rule differs from the package's, in any of 500 recorded transitions."""
    assert_transitions_equal(name, golden("steps", name))


@BY_NAME
def test_recorded_starts_are_ours(name: str) -> None:
    """Fails if an episode starts from another state than the package's."""
    assert_starts_equal(name, golden("starts", name))


@pytest.mark.slow
@BY_NAME
def test_transitions_are_the_packages(name: str) -> None:
    """Fails if a rule differs from the package's, in any of 12,000 transitions."""
    pytest.importorskip("minatar", reason="pip install --no-deps MinAtar==1.0.15")
    played = oracle.play(name, 12_000, seed=1)
    assert_transitions_equal(name, played)
    assert reached(name, played), "play does not reach far enough to prove anything"


def reached(name: str, played: Arrays) -> bool:
    """Whether play met what is rare: rewards and ends, new walls and waves, the highest level."""
    before, after = (
        dict(zip(oracle.names_of_numbers(name), part(played, p)["numbers"].T, strict=True))
        for p in ("before", "after")
    )
    rare = {
        "asterix": lambda: (played["after/entities"][:, :, 0] != states.MISSING).sum(1) == 8,
        "breakout": lambda: (
            played["after/brick_map"].sum((1, 2)) > played["before/brick_map"].sum((1, 2))
        ),
        "freeway": lambda: played["outcome/terminal"],
        "seaquest": lambda: (played["outcome/reward"] > 2) & (after["diver_count"] == -1),
        "space_invaders": lambda: after["ramp_index"] > before["ramp_index"],
    }[name]()
    scored, ended = played["outcome/reward"] > 0, played["outcome/terminal"]
    return all(int(what.sum()) >= 5 for what in (rare, scored, ended))
