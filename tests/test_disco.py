"""DiscoRL's rule against the released code's numbers, and the agent that learns by it."""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import Walk

import fastrl
from fastrl import distributions, meta
from fastrl.leaves import named
from fastrl.meta import (
    disco,
    disco_agent,
    disco_cmpo,
    disco_values,
    disco_weights,
    evolution,
    lpg_agent,
    meta_gradient,
    meta_gradient_inner,
)
from fastrl.meta.disco import Disco, Inputs, Weights
from fastrl.meta.lpg_types import Outputs

GOLDEN = np.load(Path(__file__).parent / "golden" / "disco.npz", allow_pickle=False)
RULE = Disco(6, 11, 3.0, 7, 8, 5)
WEIGHTS = Weights(1.0, 0.7, 0.6, 0.9, 0.2)
TINY = Disco(4, 11, 3.0, 6, 5, 3)
CONFIG = disco_agent.Config(4, 5, 0, 64, (8,), 6, (7,))


def published_arrays() -> dict[str, np.ndarray]:
    return {k.removeprefix("eta/"): GOLDEN[k] for k in GOLDEN.files if k.startswith("eta/")}


def written(folder: Path, arrays: dict[str, Any]) -> Path:
    np.savez(folder / "weights.npz", **arrays)
    return folder / "weights.npz"


@functools.cache
def eta() -> Any:
    """The golden file's parameters, through the loader."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return disco_weights.published(written(Path(folder), published_arrays()), RULE).eta


def outputs(update: int, who: str, rows: slice) -> Outputs:
    names = {"y": disco.Y, "z": disco.Z, "q": disco.Q, "aux_pi": disco.NEXT_POLICY}
    heads = {ours: jnp.asarray(GOLDEN[f"{update}/{who}/{k}"][rows]) for k, ours in names.items()}
    return Outputs(distributions.categorical(jnp.asarray(GOLDEN[f"{update}/{who}/logits"][rows])),
                   heads)  # fmt: skip


def recorded(update: int = 0, **changes: Any) -> Inputs:
    """The rollout that the released code saw."""
    now, following = slice(0, -1), slice(1, None)
    at = lambda name: jnp.asarray(GOLDEN[f"{update}/{name}"])  # noqa: E731
    ends = at("is_terminal")
    behaviour: Any = outputs(update, "behaviour", now).policy
    return Inputs(
        at("actions")[:-1].astype(jnp.int32), at("rewards"), ends, jnp.zeros_like(ends),
        outputs(update, "online", now), outputs(update, "online", following),
        outputs(update, "target", now), outputs(update, "target", following),
        behaviour.log_p, 0.97, 0.95,
    )._replace(**changes)  # fmt: skip


targets_of, loss_of = jax.jit(RULE.targets), jax.jit(RULE.loss)
estimates_of = jax.jit(functools.partial(disco.action_values, bound=RULE.max_value))


def test_two_updates_are_those_of_the_released_code():
    """Inputs in another order, a gate or a mean over the wrong axis, a divergence the other way,
    moments or a recurrence over updates that are not carried on, names of layers mixed up."""
    memory = RULE.memory(eta(), ())
    for update in range(2):
        inputs = recorded(update)
        targets, memory = targets_of(eta(), memory, inputs)
        loss, _ = loss_of(eta(), inputs.outputs, inputs, targets, WEIGHTS)
        wanted = {
            name: jax.nn.log_softmax(jnp.asarray(GOLDEN[f"{update}/{k}"]))
            for name, k in (("policy", "pi"), ("y", "y"), ("z", "z"))
        } | {"value": GOLDEN[f"{update}/q_target"]}
        for name, x in wanted.items():
            np.testing.assert_allclose(getattr(targets, name), x, 1e-4, 2e-4, err_msg=name)
        np.testing.assert_allclose(loss, GOLDEN[f"{update}/loss"], 1e-4, 1e-3)
        for got, name in zip(memory.lifetime, ("memory0", "memory1"), strict=True):
            np.testing.assert_allclose(got, GOLDEN[f"{update}/{name}"], 1e-4, 1e-4)


def broken(change: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    name = "lstm/linear_2/w"
    match change:
        case "missing":
            return {k: x for k, x in arrays.items() if k != name}
        case "shape":
            return arrays | {name: arrays[name].T}
        case "type":
            return arrays | {name: arrays[name].astype(np.float64)}
        case "nan":
            return arrays | {name: arrays[name] * np.nan}
        case "pickle":
            return arrays | {name: np.array([{}], dtype=object)}
        case _:
            return arrays | {"lstm/linear_2/extra": arrays[name]}


@pytest.mark.parametrize("change", ["missing", "shape", "type", "nan", "extra", "pickle"])
def test_other_files_of_weights_are_refused(change, tmp_path):
    """Parameters of another network that are taken, or code of a file that runs."""
    path = written(tmp_path, broken(change, published_arrays()))
    pattern = "plain arrays" if change == "pickle" else r"lstm/linear_2/"
    with pytest.raises(ValueError, match=pattern):
        disco_weights.published(path, RULE)


def test_no_file_of_weights_and_one_that_is_none(tmp_path):
    """An error of NumPy's instead of one that says where the file comes from."""
    with pytest.raises(FileNotFoundError, match=r"github\.com/google-deepmind/disco_rl"):
        disco_weights.published(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("no zip")
    with pytest.raises(ValueError, match="plain arrays"):
        disco_weights.published(tmp_path / "text.npz")


def test_the_published_shapes_are_the_defaults():
    """42 arrays, 754,778 numbers: a size by default that is not that of Disco103."""
    leaves = jax.tree.leaves(jax.eval_shape(Disco().init, jax.random.key(0)))
    assert len(leaves) == 42
    assert sum(x.size for x in leaves) == 754_778


def test_nothing_crosses_an_end():
    """Steps of the next episode in the targets of the last one, through the recurrence or Retrace.

    What an end lets through is the true successor where it cut the episode off, not where it
    ended it.
    """
    done = jnp.zeros((5, 3), bool).at[2].set(True)
    for cut in (False, True):
        flags = {"terminated": done & (not cut), "truncated": done & cut}
        inputs = recorded(0, **flags)
        moved = jax.tree.map(
            lambda x: x.at[3:].set(jnp.zeros((), x.dtype)) if jnp.ndim(x) else x, inputs
        )
        inputs, moved = (x._replace(behaviour=disco.log_p(inputs.outputs)) for x in (inputs, moved))
        a, b = estimates_of(inputs), estimates_of(moved)
        np.testing.assert_array_equal(a.target[:3], b.target[:3])
        after = jnp.where(cut, 0.97 * (_policy(inputs.next_outputs) * of_next(inputs)).sum(-1), 0.0)
        np.testing.assert_allclose(a.target[2], (inputs.reward + after)[2], rtol=1e-4, atol=1e-5)
    x = jax.random.normal(jax.random.key(0), (5, 3, 27))
    h = jax.jit(lambda x: disco.network.backwards(eta().trajectory, (x,), done))
    np.testing.assert_array_equal(h(x)[:3], h(x.at[3:].set(0.0))[:3])


def _policy(outputs: Outputs) -> Any:
    policy: Any = outputs.policy
    return jnp.exp(policy.log_p)


def of_next(inputs: Inputs) -> Any:
    return disco_values.scalar(inputs.next_target_outputs.heads[disco.Q], 3.0)


def test_which_outputs_a_meta_gradient_reaches():
    """Predictions that are stopped can't be discovered; values that are not would be bent."""

    def size(outputs: Outputs) -> Any:
        targets, _ = RULE.targets(eta(), RULE.memory(eta(), ()), recorded(0, outputs=outputs))
        return (targets.policy**2).sum() + (targets.y**2).sum() + (targets.value**2).sum()

    gradient = jax.jit(jax.grad(size))(recorded().outputs)
    for name in (disco.Y, disco.Z):
        assert bool((gradient.heads[name] != 0).any())
    for x in (gradient.policy.log_p, gradient.heads[disco.Q]):
        assert not bool(x.any())


def test_values_as_two_bins():
    """A scale whose inverse is another's, mass in the wrong bins, or lost beyond the bounds."""
    x = np.array([-50.0, -3.7, -0.2, 0.0, 0.4, 6.0, 12.0, 900.0], np.float64)
    h = np.sign(x) * (np.sqrt(np.abs(x) + 1) - 1) + 1e-3 * x
    np.testing.assert_allclose(disco_values.squashed(jnp.asarray(x)), h, rtol=1e-5)
    np.testing.assert_allclose(disco_values.unsquashed(jnp.asarray(h)), x, rtol=2e-3, atol=1e-3)
    logits = np.random.RandomState(0).randn(len(x), 11)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    bins = np.linspace(-5, 5, 11)
    wanted = np.zeros_like(logits)
    for row, value in enumerate(np.clip(h, -5, 5)):
        low = min(int(np.searchsorted(bins, value, "right")) - 1, 9)
        wanted[row, low : low + 2] = [bins[low + 1] - value, value - bins[low]]
    np.testing.assert_allclose(
        disco_values.cross_entropy(jnp.asarray(logits), jnp.asarray(x), 5.0),
        -(wanted * log_p).sum(-1), rtol=1e-4, atol=1e-5,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("buffer_size", [pytest.param(0, marks=pytest.mark.full), 64])
def test_the_agent_follows_its_targets(buffer_size):
    """Values from the wrong rollout, a behaviour policy that is not the one that acted, steps in
    the wrong direction: on Walk, where the way to the prize is 3 steps and loitering pays 0."""
    rule = disco_cmpo.CMPO(num_bins=21, max_value=3.0)
    config = disco_agent.Config(16, 8, buffer_size, 16, (16,), 8, (16,))
    algorithm = disco_agent.make(Walk(), config, objective=rule)
    hparams = disco_agent.HParams(learning_rate=1e-2)
    task = Walk().default_params()._replace(prize=1.0)
    state, metrics = jax.jit(fastrl.run(algorithm, 150 * 128))(fastrl.key(0), hparams, task)
    wanted = jnp.arange(4)
    action, _ = algorithm.act(state, (), wanted, None)
    np.testing.assert_array_equal(action, 1)
    assert float(metrics["value_loss"].total[-1] / metrics["value_loss"].weight[-1]) < 1.0


@functools.cache
def tiny() -> Any:
    return disco_agent.make(Walk(), CONFIG, objective=TINY)


@pytest.mark.slow
def test_one_update_by_hand():
    """A target network that runs ahead, a step that is not clipped, a memory that stands still."""
    algorithm = tiny()
    hparams = disco_agent.HParams(
        learning_rate=0.1, max_update=0.5, target_decay=0.75,
        objective=TINY.init(jax.random.key(0)),
    )  # fmt: skip
    task = jax.tree.map(jnp.asarray, Walk().default_params())
    start = jax.jit(algorithm.init)(fastrl.key(0), hparams, task)
    step = jax.jit(algorithm.step)
    first, _ = step(start, hparams, task)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), first.params, start.params)
    assert max(jax.tree.leaves(moved)) == pytest.approx(0.05, rel=1e-3)  # of 0.1 before the clip
    second, _ = step(first, hparams, task)
    for target, old, new in zip(*map(jax.tree.leaves, (second.target, start.params, first.params)),
                                strict=True):  # fmt: skip
        np.testing.assert_allclose(target, 0.75 * old + 0.25 * new, atol=1e-6)
    assert bool((second.memory.lifetime.hidden != first.memory.lifetime.hidden).all())


@pytest.mark.full
@pytest.mark.slow
def test_it_is_meta_trained_by_gradients():
    """A leaf that the meta-gradient does not reach, or a window that resets the memory."""
    config = meta_gradient.Config(2, window=3, lifetime=6, critic_hidden_sizes=())
    outer = meta_gradient.make(tiny(), TINY.init, config)
    hparams = meta_gradient.HParams(learning_rate=1e-2)._replace(
        inner=disco_agent.HParams(learning_rate=1e-2)
    )
    task = jax.tree.map(jnp.asarray, Walk().default_params())
    start = jax.jit(outer.init)(fastrl.key(0), hparams, task)
    state, metrics = jax.jit(outer.step)(start, hparams, task)
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(state.eta))
    before, after = named(start.eta), named(state.eta)
    still = {name for name, x in before.items() if not bool((x != after[name]).any())}
    assert still <= {"policy.bias"}  # which is added to the logits of all actions alike
    assert float(metrics["diverged"].total) == 0
    assert float(jnp.abs(state.lives.state.memory.lifetime.hidden).min()) > 0


@pytest.mark.full
@pytest.mark.slow
def test_it_is_meta_trained_by_evolution():
    """A rule whose parameters do not reach the agent, or that an outer learner can't call."""
    outer = evolution.make(
        tiny(), TINY.init, evolution.Config(pairs=2, lifetimes=(3,)),
        fitness=functools.partial(evolution.evolution_fitness.evaluation, episodes=2),
    )  # fmt: skip
    hparams = evolution.HParams(sigma=1.0, inner=disco_agent.HParams(learning_rate=1e-1))
    task = jax.tree.map(jnp.asarray, Walk().default_params())
    state, metrics = jax.jit(fastrl.run(outer, 2 * outer.steps_per_iteration))(
        fastrl.key(0), hparams, task
    )
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(state.eta))
    assert float(metrics["fitness_gap"].total.sum()) > 0  # the members of a pair differ


def test_saved_and_loaded_it_is_the_same(tmp_path):
    """Settings or leaves that are lost on the way through a folder."""
    meta.save(tmp_path, RULE, eta())
    loaded = meta.load(tmp_path)
    assert loaded.rule == RULE
    for got, wanted in zip(jax.tree.leaves(loaded.eta), jax.tree.leaves(eta()), strict=True):
        np.testing.assert_array_equal(got, wanted)
    assert loaded.heads == RULE.heads
    assert disco_agent.make(Walk(), CONFIG, objective=loaded) is disco_agent.make(
        Walk(), CONFIG, objective=meta.load(tmp_path)
    )


def test_forbidden_actions_have_no_target():
    """Mass of the policy's target on actions that are masked: an infinite loss."""
    inputs = recorded()
    mask = jnp.ones((5, 3, 4), bool).at[:, :, 3].set(False)
    action = jnp.minimum(inputs.action, 2)
    masked = lambda o: o._replace(policy=distributions.categorical(disco.log_p(o), mask))  # noqa: E731
    inputs = inputs._replace(
        action=action, outputs=masked(inputs.outputs), next_outputs=masked(inputs.next_outputs),
        target_outputs=masked(inputs.target_outputs),
    )  # fmt: skip
    targets, _ = targets_of(eta(), RULE.memory(eta(), ()), inputs)
    np.testing.assert_array_equal(jnp.exp(targets.policy)[..., 3], 0.0)
    loss, _ = loss_of(eta(), inputs.outputs, inputs, targets, WEIGHTS)
    assert bool(jnp.isfinite(loss).all())
    assert float(loss.max()) < 1e4


def test_what_does_not_fit_is_told_apart():
    """An error deep in a trace instead of one that names the value and the way out."""
    with pytest.raises(TypeError, match=r"disco\.Disco\(\)"):
        disco_agent.make(Walk(), objective=disco_values)
    with pytest.raises(ValueError, match="buffer_size=8"):
        disco_agent.Config(buffer_size=8)
    with pytest.raises(ValueError, match="hidden_sizes"):
        disco_agent.Config(hidden_sizes=())
    with pytest.raises(ValueError, match="max_value"):
        Disco(max_value=0.0)
    with pytest.raises(ValueError, match="discrete"):
        disco_agent.make(fastrl.make("Pendulum-v1"), CONFIG)
    with pytest.raises(ValueError, match="inner is lpg_agent, not what"):
        meta_gradient_inner.of_disco(lpg_agent.make(Walk()))
    with pytest.raises(ValueError, match=r"reader\.y\.0\.weights"):
        targets_of(TINY.init(jax.random.key(0)), RULE.memory(eta(), ()), recorded())
    with pytest.raises(ValueError, match=r"weights|z="):
        tiny().check(disco_agent.HParams(weights=Weights(z=-1.0)))
