"""What is shipped: one copy of every class, lean imports, the version, the linked folders."""

import importlib.metadata
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import fastrl

ROOT = Path(__file__).resolve().parents[1]


def python(code, **kwargs):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, **kwargs)


@pytest.mark.parametrize("name", ["envs", "kernels"])
def test_linked_folders_refuse_another_name(name):
    """Imported as top-level `envs`, every class would exist twice and compare unequal."""
    run = python(f"import {name}", cwd=ROOT)
    assert run.returncode == 1
    assert f"import it as 'fastrl.{name}'" in run.stderr


def test_the_installed_package_is_what_is_tested():
    """With FASTRL_TEST_INSTALLED the tests must not find the checkout by accident."""
    where = Path(fastrl.__file__).resolve()
    if os.environ.get("FASTRL_TEST_INSTALLED"):
        assert "site-packages" in where.parts
        assert not Path(fastrl.__file__).parent.joinpath("envs").is_symlink()
    assert (where.parent / "py.typed").exists()
    assert sorted((where.parent / "configs").glob("ppo_*.toml"))


def test_the_version_is_one():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert fastrl.__version__ == project["version"] == importlib.metadata.version("fastrl")


def test_heavy_packages_are_imported_on_first_use():
    """`import fastrl` must stay near the cost of jax, flax and optax."""
    code = "import sys, fastrl; print(*sys.modules)"
    loaded = {m.split(".")[0] for m in python(code).stdout.split()}
    assert "fastrl" in loaded
    assert not loaded & {"brax", "orbax", "matplotlib", "tensorboardX", "numba", "tyro", "mujoco"}


def test_importing_runs_nothing_on_a_device():
    """A computation at import would start the backend before `use_cpu_devices` can be called."""
    code = (
        "import fastrl, jax; from fastrl.meta import evolution, groove, intrinsic_meta;"
        "fastrl.use_cpu_devices(3); print(len(jax.devices('cpu')))"
    )
    env = {k: v for k, v in os.environ.items() if k != "JAX_NUM_CPU_DEVICES"}
    run = python(code, env=env)
    assert run.stdout.strip() == "3", run.stderr


def test_constraints_name_versions_and_nothing_else():
    """A path or an index in the constraints would hold on one machine only."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert len(pins) > 20
    assert all("==" in pin and "/" not in pin for pin in pins)


def test_the_cache_keeps_programs_where_it_was_told(tmp_path):
    """The second process finds the first one's programs; an empty variable turns it off."""
    code = "import fastrl, jax; print(jax.jit(lambda x: x * 3 + 1)(2.0))"
    env = os.environ | {"FASTRL_CACHE_DIR": str(tmp_path / "cache")}
    env.pop("JAX_COMPILATION_CACHE_DIR", None)
    assert python(code, env=env).returncode == 0
    assert list((tmp_path / "cache").iterdir())
    off = "import fastrl, jax; print(jax.config.jax_compilation_cache_dir)"
    assert python(off, env=env | {"FASTRL_CACHE_DIR": ""}).stdout.strip() == "None"


def test_environments_are_in_the_family_that_their_names_begin_with():
    """A name whose family is not found at once costs the import of all families."""
    from fastrl import envs, registry

    for name in registry.names():
        families = [f for start, f in envs._BEGINNINGS.items() if name.startswith(start)]
        factory = registry._target(registry.factory(name))
        assert f".{(families or ['classic'])[0]}" in factory.__module__, name


def test_one_environment_imports_one_family():
    """Else a start pays for a hundred environments that nobody asked for."""
    code = "import sys, fastrl; fastrl.make('CartPole-v1'); print(*sys.modules)"
    loaded = python(code).stdout.split()
    assert "fastrl.envs.classic" in loaded
    assert "fastrl.envs.minigrid" not in loaded
