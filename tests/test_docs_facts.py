"""What the pages say in tables and texts is what the code says: fields, defaults, names, errors."""

import dataclasses
import math
import re
from pathlib import Path

import pytest
import test_env_parity

import fastrl
from fastrl import cli, config, inputs, ppo, run_folder
from fastrl.algorithms import minibatches, on_policy, ppo_update
from fastrl.algorithms import ppo as ppo_module
from fastrl.config import TrainOptions
from fastrl.config.read import parse

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def page(name: str) -> str:
    return (ROOT / "docs" / f"{name}.md").read_text()


def table(text: str, heading: str) -> list[list[str]]:
    """The cells of the first table after `heading`, without its head."""
    found = re.search(r"^\|.*?(?=\n\n|\Z)", text.split(heading, 1)[1], re.MULTILINE | re.DOTALL)
    assert found
    rows = found[0].strip().splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]


def names(text: str) -> list[str]:
    """What stands in backticks, outside of blocks of code."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`]+)`", text)


@pytest.mark.parametrize("path", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_names_of_fastrl_exist(path):
    """A name that was moved out of the public face, or a module that was renamed."""
    named = set(re.findall(r"\bfastrl\.([a-zA-Z_]\w*)", path.read_text()))
    package = ROOT / "fastrl"
    modules = {p.stem for p in package.iterdir()}
    assert [n for n in named if not hasattr(fastrl, n) and n not in modules] == []


@pytest.mark.parametrize(
    ("heading", "defaults"),
    [
        ("## Config: static choices", dataclasses.asdict(ppo.Config())),
        ("## HParams: traced numbers", ppo.HParams()._asdict()),
    ],
)
def test_the_settings_of_ppo_are_listed_with_their_defaults(heading, defaults):
    """A field that was added, renamed or given another default."""
    rows = table(page("algorithms/ppo"), heading)
    listed = {names(row[0])[0]: row[1].strip('"') for row in rows}
    assert listed == {name: str(value) for name, value in defaults.items()}


def test_functions_that_the_page_on_ppo_names_exist():
    """A renamed function leaves a reader searching."""
    named = names(page("algorithms/ppo"))
    own = {n for n in named if re.fullmatch(r"_[a-z_]+", n)}
    assert own
    assert [n for n in own if not hasattr(ppo_module, n)] == []
    for module in (on_policy, ppo_update, minibatches):
        name = module.__name__.rpartition(".")[2]
        shared = {n.partition(".")[2] for n in named if re.fullmatch(rf"{name}\.[a-z_]+", n)}
        assert shared
        assert [n for n in shared if not hasattr(module, n)] == []


def test_all_commands_are_listed():
    rows = table(page("concepts/command_line"), "# Configs and the command line")
    assert {names(row[0])[0].split()[1] for row in rows} == set(cli.VERBS)


def test_the_config_shows_all_there_is():
    """A key that was added to configs and not to the page."""
    text = page("concepts/command_line")
    tables = parse(text.split('write_text("""', 1)[1].split('"""', 1)[0])
    fields = {f.name for f in dataclasses.fields(config.RunConfig)}
    assert set(tables) == fields - {"objective", "task", "source"}  # which only scripts can set
    assert set(tables["train"]) == {f.name for f in dataclasses.fields(TrainOptions)}


def test_errors_read_as_the_page_says(tmp_path, monkeypatch, capsys):
    """Messages that have changed since they were copied to the page."""
    text = page("concepts/command_line")
    section = text.split("## Errors", 1)[1]
    commands = [re.findall(r'"([^"]*)"', c) for c in re.findall(r"main\(\[(.*?)\]\)", section)]
    expected = section.split("```text\n", 1)[1].split("```", 1)[0].splitlines()
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text(text.split('write_text("""', 1)[1].split('"""', 1)[0])
    Path("runs/heavy").mkdir(parents=True)
    Path("runs/heavy/config.toml").touch()
    capsys.readouterr()
    assert [cli.main(command) for command in commands] == [2] * len(expected)
    assert capsys.readouterr().err.splitlines() == expected


def test_a_run_folder_has_the_parts_that_the_page_lists():
    text = page("concepts/training").split("```text\nruns/cartpole/\n", 1)[1].split("```", 1)[0]
    listed = {line.split()[0].rstrip("/") for line in text.splitlines()}
    folder = run_folder.at("runs/cartpole")
    own = ("config", "info", "inputs", "metrics", "checkpoints", "pictures")
    assert listed == {getattr(folder, part).name for part in own}
    assert "events/ has the same" in text
    assert folder.events.name == "events"


def test_the_schedule_defaults_are_those_of_the_page():
    rows = {row[0]: row[1] for row in table(page("concepts/training"), "## When\n")}
    assert rows["evaluations"] == f"10, of {inputs.EVAL_EPISODES} episodes"
    assert rows["checkpoints"] == f"10; the newest {inputs.KEEP} and the best stay"


def test_all_probes_are_listed():
    rows = table(page("concepts/environments"), "## Is the learner right?")
    probes = {n for n in fastrl.names() if n.startswith("probe/")}
    assert {names(row[0])[0] for row in rows} == probes


def test_the_params_of_the_classic_tasks_are_listed():
    rows = {row[0]: row[1] for row in table(page("environments/classic"), "## Params")}
    for task in ("CartPole-v1", "Acrobot-v1", "MountainCar-v0", "Pendulum-v1"):
        cell = next(cell for name, cell in rows.items() if task.split("-")[0] in name.split(", "))
        assert names(cell) == list(fastrl.make(task).default_params()._fields)


def test_the_parity_that_the_page_claims_is_what_is_tested():
    """A tolerance that was loosened in the test would leave the page boasting."""
    rows = table(page("environments/classic"), "## Parity with Gymnasium")
    listed = {row[0]: (float(row[1]), int(row[2].split()[0])) for row in rows}
    cases = {c.name.split("-")[0]: (c.tolerance, c.whole_steps) for c in test_env_parity.CASES}
    assert listed == cases
    text = page("environments/classic")
    assert all(hasattr(test_env_parity, n) for n in names(text) if n.startswith("test_"))
    assert math.isclose(test_env_parity.TOLERANCE, 1e-4)
