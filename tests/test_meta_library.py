"""Learned objectives in folders: what is saved is what acts, and nothing else is taken."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_lpo
import test_objectives

from fastrl import meta, ppo
from fastrl.checkpoint import CheckpointError, MismatchError
from fastrl.files import RunFolderError
from fastrl.meta import library, lpo, picture

RULE = lpo.LPO(hidden_size=8, temporal=True, ppo_init=False)
HPARAMS = ppo.HParams()


@functools.cache
def eta() -> lpo.Parameters:
    return test_lpo.wild(RULE, 5)


def test_what_was_saved_is_what_acts(tmp_path):
    """Settings that are lost, leaves in another order, parameters that are not used."""
    meta.save(tmp_path / "run", RULE, eta())
    loaded = meta.load(tmp_path / "run")
    assert loaded.rule == RULE
    samples = test_objectives.random_samples(100)._replace(progress=jnp.float32(0.3))
    wanted, _ = RULE(eta(), samples, HPARAMS)
    for given in ((), eta()):
        np.testing.assert_array_equal(loaded(given, samples, HPARAMS)[0], wanted)
    other = test_lpo.wild(RULE, 6)
    assert bool((loaded(other, samples, HPARAMS)[0] != wanted).any())
    np.testing.assert_array_equal(loaded.init(jax.random.key(0)).hidden, eta().hidden)
    np.testing.assert_array_equal(
        loaded.drift((), test_lpo.somewhere(0.5), HPARAMS),
        RULE.drift(eta(), test_lpo.somewhere(0.5), HPARAMS),
    )


def test_a_loaded_objective_is_equal_by_value(tmp_path):
    """By identity every load would compile again; by the rule alone two rules would be one."""
    meta.save(tmp_path, RULE, eta())
    first, second = meta.load(tmp_path), meta.load(tmp_path / "objective")
    assert first == second
    assert hash(first) == hash(second)
    meta.save(tmp_path, RULE, test_lpo.wild(RULE, 6))
    assert meta.load(tmp_path) != first


def test_ppo_is_trained_by_it(tmp_path):
    """It goes where an objective goes, by name of its folder; nothing is compiled here."""
    import fastrl

    meta.save(tmp_path, RULE, eta())
    config = ppo.Config(num_envs=8, num_steps=8, num_minibatches=2, hidden_sizes=(4,))
    env = fastrl.make("CartPole-v1")
    algorithm = ppo.make(env, config, objective=meta.load(tmp_path))
    assert algorithm is ppo.make(env, config, objective=meta.load(tmp_path))
    metrics = jax.eval_shape(
        fastrl.run(algorithm, 128), fastrl.key(0), ppo.HParams(), env.default_params()
    )[1]
    assert metrics["drift"].total.shape == (2,)


def test_rules_that_make_targets_keep_their_interface():
    """LPG asks a rule for more than a loss; what has eta in front gets the loaded one."""

    class Targets:
        heads = ("y",)

        def targets(self, eta, memory, inputs):
            return eta, memory, inputs

    loaded = library.Loaded(Targets(), np.arange(3))
    assert loaded.heads == ("y",)
    np.testing.assert_array_equal(loaded.targets((), 1, 2)[0], np.arange(3))
    assert loaded.targets(np.ones(2), 1, 2)[0].sum() == 2
    with pytest.raises(AttributeError):
        _ = loaded.nothing


def test_what_is_wrong_is_named(tmp_path):
    """A folder without an objective, other parameters, an unknown rule, a damaged file."""
    with pytest.raises(RunFolderError, match="holds no learned objective"):
        meta.load(tmp_path)
    with pytest.raises(ValueError, match="parameters of LPO"):
        meta.save(tmp_path, lpo.LPO(), eta())
    with pytest.raises(ValueError, match="none of the rules"):
        meta.save(tmp_path, max, eta())
    path = meta.save(tmp_path, RULE, eta())
    library.checkpoint.rewrite_facts(path, {"rule": "lpq", "settings": {}})
    with pytest.raises(ValueError, match="did you mean"):
        meta.load(tmp_path)
    library.checkpoint.rewrite_facts(path, {"rule": "lpo", "settings": {"hiden_size": 3}})
    with pytest.raises(ValueError, match="hidden_size"):
        meta.load(tmp_path)
    library.checkpoint.rewrite_facts(path, {"rule": "lpo", "settings": {"hidden_size": 3}})
    with pytest.raises(MismatchError):
        meta.load(tmp_path)
    (path / "arrays.npz").write_bytes(b"nothing")
    library.checkpoint.rewrite_facts(path, {"rule": "lpo", "settings": vars(RULE)})
    with pytest.raises(CheckpointError, match="damaged"):
        meta.load(tmp_path)


def test_the_package_names_what_it_lacks():
    with pytest.raises(AttributeError, match="no attribute 'lpq'"):
        _ = meta.lpq


def test_the_slope_in_the_picture_is_the_objectives(tmp_path):
    """The picture shows d(r A - D)/dr: finite differences of the objective over the ratio."""
    ratio, advantage, drift, slope = picture.surface(RULE, eta(), 0.5, points=401)
    value = ratio[None] * advantage[:, None] - drift
    numeric = np.gradient(value, ratio, axis=1)
    inside = np.abs(np.diff(slope, axis=1)[:, 1:]) < 0.05  # away from the corners of the relu
    close = np.abs(numeric - slope)[:, 1:-1][inside[:, : slope.shape[1] - 2]] < 0.1
    assert close.mean() > 0.97
    assert inside.mean() > 0.5


@pytest.mark.slow
def test_pictures_of_drifts(tmp_path):
    """One panel, or three over the lifetime; a rule without a drift has none."""
    wide = picture.draw(RULE, eta(), tmp_path / "ta.png")
    plain = lpo.LPO(hidden_size=4)
    narrow = picture.draw(plain, test_lpo.wild(plain, 0), tmp_path / "lpo.png")
    assert wide.stat().st_size > narrow.stat().st_size > 5_000
    with pytest.raises(ValueError, match="no drift"):
        picture.draw(max, (), tmp_path / "x.png")
    with pytest.raises(ValueError, match="must end in"):
        picture.draw(RULE, eta(), tmp_path / "x.gif")
