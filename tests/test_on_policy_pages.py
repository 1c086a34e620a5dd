"""The pages of the on-policy learners say what their modules say."""

import dataclasses
import re

import pytest
from test_docs_facts import names, page, table

from fastrl import algorithms
from fastrl.algorithms import agent, recurrent

MODULES = ("a2c", "impala", "pqn", "reinforce", "ppo_memory")


@pytest.mark.parametrize("name", MODULES)
def test_settings_are_listed_with_their_defaults(name):
    """A field that was added, renamed or given another default."""
    module, text = algorithms.module(name), page(f"algorithms/{name}")
    tables = {"## Config: static choices": dataclasses.asdict(module.Config())}
    if name != "ppo_memory":  # whose HParams are PPO's
        tables["## HParams: traced numbers"] = module.HParams()._asdict()
    for heading, defaults in tables.items():
        rows = table(text, heading)
        listed = {names(row[0])[0]: row[1].strip('"') for row in rows}
        assert listed == {k: str(v) for k, v in defaults.items()}


@pytest.mark.parametrize("name", MODULES)
def test_functions_that_a_page_names_exist(name):
    """A renamed function leaves a reader searching."""
    module, named = algorithms.module(name), names(page(f"algorithms/{name}"))
    own = {n for n in named if re.fullmatch(r"_[a-z_]+", n)}
    assert own
    assert [n for n in own if not hasattr(module, n)] == []
    for shared in (agent, recurrent):
        prefix = shared.__name__.rsplit(".", 1)[-1] + "."
        paths = {n.removeprefix(prefix) for n in named if n.startswith(prefix)}
        assert [p for p in paths if not hasattr(shared, p.partition(".")[0])] == []
