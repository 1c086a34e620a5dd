"""The results table: what is run, what is not run again, what fails, and what the page says."""

# The benchmarks are scripts, found by `sys.path`.
# pyright: reportMissingImports=false

import json
import sys
from pathlib import Path

import numpy as np
import pytest

BENCH = Path(__file__).resolve().parents[1] / "bench"
sys.path.insert(0, str(BENCH))

import anchors  # noqa: E402
import contest  # noqa: E402
import own_results  # noqa: E402
import results  # noqa: E402
import results_page  # noqa: E402

TINY = """\
algorithm = "ppo"
env = "CartPole-v1"
steps = 256
[config]
num_envs = 4
num_steps = 16
num_minibatches = 2
hidden_sizes = [8]
"""
# A worker that needs nothing: a return for each seed, and what the case's name asks for.
PROGRAM = """
import worker

def main(settings):
    for seed in settings["seeds"]:
        if settings["case"].startswith("fails") and seed == 2:
            raise ValueError("seed %d is too much" % seed)
        value = None if settings["case"].startswith("diverges") and seed == 1 else 400.0 + seed
        curve = {"steps": [128, 256], "return": [20.0, None]}
        worker.say(seed=seed, seconds=0.5, curve=curve, **{"return": value})
"""


@pytest.fixture
def files(tmp_path):
    """The options that put everything into a folder of the test's."""
    return [
        "--json", str(tmp_path / "r.jsonl"), "--markdown", str(tmp_path / "r.md"),
        "--plot", "", "--devices", "1",
    ]  # fmt: skip


@pytest.fixture
def program(tmp_path, monkeypatch):
    """The worker above, beside copies of the two files that it runs on."""
    folder = tmp_path / "bench"
    folder.mkdir()
    for name in ("worker.py", "launch.py"):
        (folder / name).write_text((BENCH / name).read_text())
    (folder / "own_results.py").write_text(PROGRAM)
    monkeypatch.setattr(contest, "HERE", folder)


def config(folder, name, text=TINY):
    path = folder / f"{name}.toml"
    path.write_text(text)
    return str(path)


def lines(tmp_path):
    return results.read(tmp_path / "r.jsonl")


def line(seed, value, **changes):
    """A line as `results.py` writes it."""
    machine = {
        "processor": "P",
        "cores": 2,
        "device": "cpu",
        "python": "3",
        "versions": {"jax": "1"},
    }
    return {
        "case": "ppo_cartpole", "algorithm": "ppo", "env": "CartPole-v1", "steps": 500_000,
        "seeds": 10, "episodes": 100, "command": "python bench/results.py ppo_cartpole",
        "hash": "a", "seed": seed, "status": "ok", "return": value, "seconds": 6.0,
        "curve": {"steps": [1, 2], "return": [10.0, 20.0]}, "machine": machine,
    } | changes  # fmt: skip


def nearest(algorithm: str, env: str, steps: int) -> anchors.Anchor:
    """The anchor of a pair that has one."""
    found = anchors.nearest(algorithm, env, steps)
    assert found is not None
    return found


class TestAnchors:
    def test_what_is_compared_with(self):
        """Several seeds go before one agent, a budget that we had before one that we had not."""
        assert nearest("ppo", "CartPole-v1", 500_000).value == 490.0
        assert nearest("ppo", "CartPole-v1", 250_000).source == "SLM-Lab"
        assert nearest("dqn", "CartPole-v1", 500_000).value == 498.4  # not torch's 488.7
        assert nearest("td3", "Pendulum-v1", 20_000).value == -151.9
        assert nearest("ppo", "MinAtar/Breakout-v0", 10**7).value == 22.9
        assert anchors.nearest("ppo", "CartPole-v7", 1) is None
        assert anchors.bound("a2c", "CartPole-v1") == 480.0

    def test_variants_have_names_of_their_own(self):
        """C51 is a DQN here, and must not be held against DQN's number."""
        assert anchors.known_as("c51_cartpole", "dqn") == "c51"
        assert anchors.known_as("qr_dqn_acrobot", "dqn") == "qr_dqn"
        assert anchors.known_as("dqn_cartpole", "dqn") == "dqn"
        assert anchors.known_as("mine", "ppo") == "ppo"

    def test_verdicts(self):
        """An interval that ends below the published number must not read as one that holds it."""
        assert anchors.verdict(491.0, 500.0, 490.0) == "above"
        assert anchors.verdict(480.0, 490.0, 490.0) == "at"
        assert anchors.verdict(500.0, 500.0, 500.0) == "at"
        assert anchors.verdict(480.0, 489.0, 490.0) == "below"


class TestPage:
    def test_a_row(self):
        """Mean, IQM, intervals, worst seed, time and verdict of seeds with known numbers."""
        values = [500.0] * 8 + [480.0, 400.0]
        (row,) = results_page.rows_of([line(i, v) for i, v in enumerate(values)])
        cells = dict(zip(results_page.HEAD, results_page._cells(row), strict=True))
        assert cells["mean"].startswith("488 [")
        assert cells["IQM"].startswith("500 [")
        assert (cells["worst"], cells["wall time"], cells["seeds"]) == ("400", "60 s", "10")
        assert cells["published"] == "490 ± 6.1 (CleanRL, 500k)"
        assert cells[""] == "at"
        text = results_page.page([row])
        assert "| 475 | not passed |" in text
        assert "| 500k | 498.9 | 200k | 4 | SLM-Lab | at |" in text
        assert "python bench/results.py ppo_cartpole" in text
        assert "P, 2 cores, cpu; Python 3, jax 1." in text

    def test_the_newest_settings_count(self):
        """Seeds of an older config must not be mixed in; a seed that was run again counts once."""
        old = [line(i, 1.0, hash="old") for i in range(10)]
        new = [line(0, 7.0), line(1, 5.0), line(0, 9.0)]
        (row,) = results_page.rows_of([*old, *new])
        assert row.returns.tolist() == [9.0, 5.0]
        assert results_page._cells(row)[3] == "2 of 10"
        assert len(results_page.rows_of([*old, line(0, 1.0, steps=99)])) == 2

    def test_seeds_that_diverged_are_not_passed_over(self):
        """Without them the mean is that of the lucky ones, so there is no verdict."""
        given = [line(0, 500.0), line(1, 500.0), line(2, None, status="diverged")]
        (row,) = results_page.rows_of(given)
        cells = results_page._cells(row)
        assert "1 diverged" in cells[3]
        assert cells[-2] == "diverged"
        assert "not passed" in results_page.page([row])
        (lost,) = results_page.rows_of(given[2:])
        assert "| ppo_cartpole | all seeds diverged |" in results_page.page([lost])

    def test_a_failure_is_told_until_it_works(self):
        """With its reason; a later success takes its place."""
        failed = line(None, None, status="failed", note="no | memory")
        assert "| ppo_cartpole | no \\| memory |" in results_page.page(
            results_page.rows_of([failed])
        )
        text = results_page.page(results_page.rows_of([failed, line(0, 1.0)]))
        assert "## Failed" not in text

    def test_the_picture(self, tmp_path):
        """A panel for each environment, and points without an episode left out."""
        given = [line(i, 1.0) for i in range(3)]
        curve = {"steps": [1, 2], "return": [None, 3.0]}
        given += [line(i, 1.0, case="x", env="Acrobot-v1", curve=curve) for i in range(2)]
        results_page.draw(results_page.rows_of(given), tmp_path / "new" / "p.png")
        assert (tmp_path / "new" / "p.png").stat().st_size > 5000

    def test_curves_are_thinned_out(self):
        """A hundred points a seed would make the file of results megabytes."""
        rows = [{"steps": i, "episode_return": 1.23456789 * i} for i in range(1, 101)]
        rows[99]["episode_return"] = float("nan")
        made = own_results.curve(rows)
        assert made["steps"] == list(range(2, 101, 2))
        assert made["return"][0] == 2.4691
        assert made["return"][-1] is None


class TestCases:
    def case(self, *arguments):
        parsed = results.parser().parse_args([*arguments])
        (case,) = results.cases(parsed, results.options.options(parsed))
        assert isinstance(case, results.Case)
        return case

    def test_the_command_repeats_the_row(self, tmp_path):
        """Options that change numbers are part of it; paths of the machine are not."""
        path = config(tmp_path, "mine")
        case = self.case(path, "--steps", "512", "--set", "num_envs=8", "--seeds", "3")
        assert case.command == (
            "python bench/results.py mine.toml --steps 512 --set num_envs=8 --seeds 3 "
            "--episodes 100"
        )
        assert case.run_config.config.num_envs == 8
        assert self.case("ppo_cartpole").command.split()[2] == "ppo_cartpole"

    def test_the_hash_is_that_of_the_numbers(self, tmp_path):
        """Other hparams, steps or episodes are another sample; a comment or a seed is not."""
        usual = self.case(config(tmp_path, "a"))
        assert self.case(config(tmp_path, "b", "# a comment\n" + TINY)).hash == usual.hash
        seeded = self.case(config(tmp_path, "c", "seed = 5\n" + TINY))
        assert seeded.hash == usual.hash
        assert seeded.all_seeds == list(range(5, 15))
        other = TINY + "[hparams]\ngamma = 0.5\n"
        changed = [
            self.case(config(tmp_path, "d", other)),
            self.case(config(tmp_path, "a"), "--steps", "512"),
            self.case(config(tmp_path, "a"), "--episodes", "5"),
        ]
        assert usual.hash not in {c.hash for c in changed}

    def test_pairs_by_name(self):
        """A pair without a config has the algorithm's defaults."""
        assert self.case("--algorithm", "ppo", "--env", "Acrobot-v1").name == "ppo_acrobot"
        plain = self.case("--algorithm", "ppo", "--env", "probe/Value")
        assert plain.command.split()[2:6] == ["--algorithm", "ppo", "--env", "probe/Value"]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["ppo_cartpol"], "ppo_cartpole"),
            (["--algorithm", "poo"], "no config is left"),
            (["--algorithm", "poo", "--env", "CartPole-v1"], "ppo"),
            (["ppo_cartpole", "--seeds", "0"], "at least 1"),
        ],
    )
    def test_mistakes_stop_before_anything_runs(self, files, arguments, message, capsys, tmp_path):
        assert results.main([*arguments, *files]) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "r.jsonl").exists()


class TestRuns:
    def test_what_is_there_is_not_run_again(self, program, tmp_path, files):
        """And more seeds add to it; --again runs all."""
        mine = config(tmp_path, "mine")
        assert results.main([mine, "--seeds", "2", *files]) == 0
        assert results.main([mine, "--seeds", "3", *files]) == 0
        assert [x["seed"] for x in lines(tmp_path)] == [0, 1, 2]
        assert results.main([mine, "--seeds", "1", "--again", *files]) == 0
        assert [x["seed"] for x in lines(tmp_path)] == [0, 1, 2, 0]
        assert "| ppo | CartPole-v1 | 256 | 3 | 401 [" in (tmp_path / "r.md").read_text()

    def test_one_that_fails_does_not_stop_the_others(self, program, tmp_path, files, capsys):
        """What it had is kept, and it is tried again the next time."""
        names = [config(tmp_path, n) for n in ("fails", "diverges")]
        assert results.main([*names, "--seeds", "4", *files]) == 1
        told = {(x["case"], x["seed"]): x["status"] for x in lines(tmp_path)}
        assert told["fails", None] == "failed"
        assert told["diverges", 1] == "diverged"
        assert len(told) == 2 + 1 + 4
        assert "seed 2 is too much" in (tmp_path / "r.md").read_text()
        capsys.readouterr()
        assert results.main([names[0], "--seeds", "4", *files]) == 1
        assert "fails: 2 of 4 seeds to run" in capsys.readouterr().out

    def test_a_broken_config_among_all(self, program, tmp_path, files, monkeypatch):
        """Without names all of configs/ is run: one that can't be read is a row of its own."""
        (tmp_path / "configs").mkdir()
        config(tmp_path / "configs", "good")
        config(tmp_path / "configs", "bad", 'env = "CartPole-v1"\nalgoritm = "ppo"\n')
        monkeypatch.setattr(results, "ROOT", tmp_path)
        assert results.main(["--seeds", "2", *files]) == 1
        told = [(x["case"], x["status"]) for x in lines(tmp_path)]
        assert told == [("bad", "failed"), ("good", "ok"), ("good", "ok")]
        assert "unknown key 'algoritm'" in (tmp_path / "r.md").read_text()

    def test_an_interrupt_keeps_what_is_there(self, program, tmp_path, files, monkeypatch):
        """The page is written, and the same command goes on."""
        mine = config(tmp_path, "mine")
        listen, heard = results.Worker.listen, []

        def interrupted(worker, timeout):
            heard.append(1)
            if len(heard) == 3:
                raise KeyboardInterrupt
            return listen(worker, timeout)

        monkeypatch.setattr(results.Worker, "listen", interrupted)
        assert results.main([mine, "--seeds", "4", *files]) == 130
        assert [x["seed"] for x in lines(tmp_path)] == [0, 1]
        assert "2 of 4" in (tmp_path / "r.md").read_text()
        assert results.main([mine, "--seeds", "4", *files]) == 0
        assert [x["seed"] for x in lines(tmp_path)] == [0, 1, 2, 3]

    def test_a_line_cut_short_is_left_out(self, tmp_path):
        """A kill in the middle of writing must not lose the rest."""
        (tmp_path / "r.jsonl").write_text(json.dumps(line(0, 1.0)) + '\n{"case": "x", "se')
        assert len(lines(tmp_path)) == 1

    @pytest.mark.slow
    def test_the_real_program_equals_a_run_of_its_own(self, tmp_path, files, capfd):
        """All seeds by one program, each with the numbers that `fastrl.train` has."""
        import fastrl
        from fastrl import config as configs

        mine = config(tmp_path, "mine")
        assert results.main([mine, "--seeds", "2", "--episodes", "5", *files]) == 0
        got = [x["return"] for x in lines(tmp_path)]
        built = configs.build(configs.load(mine))
        state = fastrl.train(*built, steps=256, seed=1, progress=False, eval_every=0)
        expected = fastrl.evaluate(built.algorithm, state, episodes=5).mean_return
        assert got[1] == pytest.approx(expected, rel=1e-5)
        assert lines(tmp_path)[0]["deterministic"] is True
        assert lines(tmp_path)[0]["seconds"] > lines(tmp_path)[1]["seconds"]
        assert np.isfinite(got).all()
        assert str(tmp_path) not in (tmp_path / "r.md").read_text()
