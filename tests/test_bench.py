"""The benchmarks: what they compute from times, what they do without peers, and that they run."""

# The benchmarks are scripts, found by `sys.path`.
# pyright: reportMissingImports=false

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[1] / "bench"
sys.path.insert(0, str(BENCH))

import arena  # noqa: E402
import contest  # noqa: E402
import guard  # noqa: E402
import options  # noqa: E402
import peers  # noqa: E402
import report  # noqa: E402
import roofline  # noqa: E402
import training  # noqa: E402
from contest import Contestant, Result  # noqa: E402

PEERS = ("gymnax", "purejaxrl")
# A worker that needs nothing: it counts rounds, and fails or hangs where it is told to.
PROGRAM = """
import time
import worker

def main(settings):
    now = {"round": 0}
    if settings.get("missing_module"):
        import no_such_module
    def round_():
        now["round"] += 1
        if now["round"] == settings.get("hangs_at"):
            time.sleep(60)
        if now["round"] == settings.get("fails_at"):
            raise ValueError("round %d is too much" % now["round"])
        return {"steps": settings["steps"], "seconds": 0.5, "return": float(now["round"])}
    print("a library greets")
    worker.serve(round_, lambda: {"return": settings.get("end")}, compile_seconds=0.25)
"""


def parse(*arguments: str) -> options.Options:
    return options.options(options.parser("", PEERS).parse_args(list(arguments)))


@pytest.fixture
def program(tmp_path, monkeypatch):
    """The worker above, beside copies of the two files that it runs on."""
    for name in ("worker.py", "launch.py"):
        (tmp_path / name).write_text((BENCH / name).read_text())
    (tmp_path / "toy.py").write_text(PROGRAM)
    monkeypatch.setattr(contest, "HERE", tmp_path)
    return "toy"


def toy(name: str, program: str, **settings) -> Contestant:
    return Contestant(name, sys.executable, program, {"steps": 100} | settings)


def result(name: str, *seconds: float, status: str = "ok", steps: int = 100) -> Result:
    rounds = [{"steps": steps, "seconds": s, "return": s} for s in seconds]
    return Result(name, status=status, rounds=rounds, ready={"compile_seconds": 2.0})


class TestOptions:
    def test_what_is_left_out_is_left_to_the_script(self):
        chosen = parse()
        assert chosen.peers is None
        assert chosen.num_envs is None
        assert chosen.venvs == options.venvs_folder()

    def test_a_bare_peers_means_none(self):
        assert parse("--peers").peers == ()

    def test_lists_and_numbers(self, tmp_path):
        chosen = parse(
            "--peers", "gymnax", "--num-envs", "64", "1_024", "--rounds", "3", "--set", "a-b=2",
            "--peer-path", f"purejaxrl={tmp_path}", "--peer-path", f"purejaxrl={tmp_path / '..'}",
        )  # fmt: skip
        assert (chosen.peers, chosen.num_envs, chosen.rounds) == (("gymnax",), (64, 1024), 3)
        assert len(chosen.paths("purejaxrl")) == 2
        assert chosen.paths("gymnax") == []
        assert training.extra(chosen) == {"a_b": 2}

    @pytest.mark.parametrize(
        "arguments",
        [
            ["--peers", "gymnaks"],
            ["--num-envs", "0"],
            ["--peer-path", "purejaxrl"],
            ["--peer-path", "purejaxrl=/no/such/folder"],
            ["--set", "field"],
        ],
    )
    def test_mistakes_stop_before_anything_runs(self, arguments, capsys):
        with pytest.raises(SystemExit) as stopped:
            parse(*arguments)
        assert stopped.value.code == 2
        assert arguments[-1] in capsys.readouterr().err

    def test_extra_fields_become_values(self):
        chosen = parse("--set", "shared_torso=true", "--set", "torso=conv", "--set", "x=(1, 2)")
        assert training.extra(chosen) == {"shared_torso": True, "torso": "conv", "x": (1, 2)}


class TestRatios:
    def test_the_median_of_the_ratios_within_rounds(self):
        """Not the ratio of the medians, 2: a slow spell hits both sides of one round."""
        own, peer = result("fastrl", 1.0, 2.0, 8.0), result("slow", 3.0, 4.0, 16.0)
        row = report.row("b", "c", {}, own, peer)
        assert row["ratios"] == pytest.approx([3.0, 2.0, 2.0])
        assert row["ratio"] == pytest.approx(2.0)
        own, peer = result("fastrl", 1.0, 10.0, 1.0), result("slow", 3.0, 30.0, 9.0)
        assert report.row("b", "c", {}, own, peer)["ratio"] == pytest.approx(3.0)
        assert (row["fastrl"], row["peer_rate"]) == (50.0, 25.0)

    def test_rates_count_the_steps_that_were_done(self):
        own, peer = result("fastrl", 1.0, steps=300), result("slow", 1.0, steps=100)
        assert report.row("b", "c", {}, own, peer)["ratio"] == pytest.approx(3.0)

    @pytest.mark.parametrize("status", ["missing", "failed", "hung"])
    def test_who_did_not_come_to_the_end_has_no_ratio(self, status):
        row = report.row("b", "c", {}, result("fastrl", 1.0), result("slow", 1.0, status=status))
        assert (row["ratio"], row["status"], row["peer_rate"]) == (None, status, None)

    def test_a_failure_of_fastrl_is_no_win(self):
        row = report.row("b", "c", {}, result("fastrl", 1.0, status="failed"), result("p", 1.0))
        assert (row["ratio"], row["status"]) == (None, "failed")

    def test_the_better_of_two_runs_of_a_peer_counts(self):
        one, all_ = result("p", 2.0), result("p", 1.0)
        hung = result("p", 0.1, status="hung")
        assert contest.best([one, all_, hung]) == [all_]
        assert contest.best([hung, one, result("q", 1.0)]) == [one, result("q", 1.0)]

    def test_the_return_is_that_of_the_end_or_the_middle_round(self):
        played = result("p", 1.0, 3.0, 2.0)
        assert played.mean_return == 2.0
        played.end = {"return": 7.0}
        assert played.mean_return == 7.0
        assert Result("p").mean_return is None


class TestTable:
    def test_a_row_says_what_was_measured(self):
        row = report.row("b", "CartPole", {}, result("fastrl", 1e-4), result("p", 3e-4))
        lines = report.table([row]).splitlines()
        assert lines[0].count("|") == lines[1].count("|") == lines[2].count("|")
        assert lines[2].startswith("| CartPole | p | 1.00M | 333k | steps/s | 3.00 |")

    def test_a_missing_peer_is_named(self):
        row = report.row("b", "c", {}, result("fastrl", 1.0), Result("p", status="missing"))
        assert "p: missing" in report.table([row])

    @pytest.mark.parametrize(
        ("x", "text"),
        [(None, "-"), (0.5, "0.5"), (999.0, "999"), (1000.0, "1.00k"), (465e3, "465k"),
         (12.0e6, "12.0M"), (-1240.0, "-1.24k")],
    )  # fmt: skip
    def test_numbers_are_short(self, x, text):
        assert report.number(x) == text

    def test_json_lines_have_ratio_and_machine(self, tmp_path):
        written = report.Report("t", parse("--json", str(tmp_path / "r"), "--plot",
                                           str(tmp_path / "p.png")))  # fmt: skip
        written.add(report.row("b", "c", {}, result("fastrl", 1.0), result("p", 2.0)))
        written.add(report.row("b", "c", {}, result("fastrl", 1.0), None))
        written.close()
        rows = [json.loads(line) for line in (tmp_path / "r").read_text().splitlines()]
        assert [r["ratio"] for r in rows] == [2.0, None]
        assert rows[0]["machine"]["cores"] >= 1
        assert "jax" in rows[0]["machine"]["versions"]
        assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


class TestPeers:
    def test_no_checkout_is_reported(self):
        with pytest.raises(peers.MissingError, match="--peer-path purejaxrl=PATH"):
            peers.find("purejaxrl", parse())

    def test_what_cannot_be_installed_is_reported(self, tmp_path, monkeypatch):
        """Without a network, or with a name that is gone, pip fails: a line, no traceback."""
        monkeypatch.setattr(peers, "_make", lambda folder, packages: Path(sys.executable))
        monkeypatch.setitem(peers.PEERS, "gymnax", peers.Peer((), "no_such_module_at_all"))
        with pytest.raises(peers.MissingError, match="No module named 'no_such_module_at_all'"):
            peers.find("gymnax", parse("--venvs", str(tmp_path)))

    @pytest.mark.slow
    def test_a_failing_installation_is_reported(self, tmp_path):
        with pytest.raises(peers.MissingError, match=r"^pip install: .*no/such"):
            peers._make(tmp_path / "venv", ["/no/such/folder"])
        assert not (tmp_path / "venv" / "packages.json").exists()

    def test_an_environment_given_by_path_is_used(self, tmp_path, monkeypatch):
        bin_ = tmp_path / "own" / "bin"
        bin_.mkdir(parents=True)
        (bin_ / "python").symlink_to(sys.executable)
        (tmp_path / "checkout").mkdir()
        monkeypatch.setitem(peers.PEERS, "purejaxrl", peers.Peer((), "json", checkout=True))
        chosen = parse("--peer-path", f"purejaxrl={tmp_path / 'own'}",
                       "--peer-path", f"purejaxrl={tmp_path / 'checkout'}")  # fmt: skip
        found = peers.find("purejaxrl", chosen)
        assert found.python == str(bin_ / "python")
        assert found.checkout == str(tmp_path / "checkout")
        assert found.environment["PYTHONPATH"] == found.checkout

    def test_a_missing_peer_is_a_row(self, program):
        """The others go on, and nothing is raised."""
        rival = arena.Rival("purejaxrl", "toy")
        rows = arena.meet("b", "c", {"steps": 10}, program, [rival], parse("--rounds", "2"))
        assert [(r["peer"], r["status"], r["ratio"]) for r in rows] == [
            ("purejaxrl", "missing", None)
        ]
        assert rows[0]["fastrl"] == 20.0

    def test_every_peer_of_the_scripts_is_known(self):
        import environments
        import learners

        of_learners = {peer for _, peer, _ in learners.CASES.values()}
        known = {*training.PEERS, *environments.PROGRAMS, *of_learners, "groove"}
        assert known == set(peers.PEERS)


class TestContest:
    def test_rounds_alternate_and_results_come_back(self, program):
        pair = [toy("fastrl", program, end=5.0), toy("p", program, steps=50)]
        own, peer = contest.compete(pair, rounds=3, timeout=30)
        assert [r["return"] for r in own.rounds] == [1.0, 2.0, 3.0]
        assert (own.rate, peer.rate) == (200.0, 100.0)
        assert (own.mean_return, peer.mean_return) == (5.0, 2.0)
        assert own.ready == {"compile_seconds": 0.25}

    def test_a_failure_says_why_and_does_not_stop_the_others(self, program):
        pair = [toy("fastrl", program), toy("p", program, fails_at=2)]
        own, peer = contest.compete(pair, rounds=3, timeout=30)
        assert (own.status, len(own.rounds)) == ("ok", 3)
        assert (peer.status, peer.note) == ("failed", "ValueError: round 2 is too much")

    def test_one_that_never_starts(self, program):
        (only,) = contest.compete([toy("p", program, missing_module=True)], 1, 30)
        assert only.status == "failed"
        assert "no_such_module" in only.note

    def test_a_hang_ends_in_time(self, program):
        begin = time.perf_counter()
        own, peer = contest.compete([toy("f", program), toy("p", program, hangs_at=1)], 2, 2.0)
        assert (own.status, peer.status) == ("ok", "hung")
        assert time.perf_counter() - begin < 20


class TestGuard:
    EXPECTED = {"tolerance": 0.15, "ratios": {"a": 2.0}}  # noqa: RUF012

    @pytest.mark.parametrize(("ratio", "code"), [(2.0, 0), (1.71, 0), (1.69, 1), (3.0, 0)])
    def test_it_fails_at_fifteen_percent_below(self, ratio, code):
        assert guard.judge({"a": ratio}, self.EXPECTED) == code

    def test_one_bad_case_is_enough_and_unknown_ones_fail(self):
        assert guard.judge({"a": 1.0, "b": 9.0}, self.EXPECTED) == 1
        assert guard.judge({"b": 9.0}, self.EXPECTED) == 1

    def test_another_kind_of_machine_is_not_judged(self, tmp_path, monkeypatch, capsys):
        """A ratio from another processor would fail, or pass, changes that did nothing."""
        expected = tmp_path / "guard.json"
        monkeypatch.setattr(guard.worker, "pin", lambda cores: None)
        monkeypatch.setattr(guard, "compare", lambda *_: {"ratio": 1.0})
        for machine, code in ((guard.machine(), 1), ({"processor": "Other", "jax": "1.0"}, 0)):
            file = {"tolerance": 0.15, "machine": machine, "ratios": {guard.case(16): 2.0}}
            expected.write_text(json.dumps(file))
            assert guard.main(["--expected", str(expected)]) == code
        assert "not judged" in capsys.readouterr().out

    def test_processor_time_is_compared(self):
        """What sleeps uses no processor, so a busy machine does not change the ratio."""

        def work(loops, rest):
            return lambda: (sum(i * i for i in range(loops)), time.sleep(rest))

        ratios = guard.alternate(work(300_000, 0.1), work(900_000, 0.0), rounds=7)
        assert 2.0 < sorted(ratios)[3] < 4.5

    def test_what_is_expected_covers_what_is_run(self):
        expected = json.loads(guard.EXPECTED.read_text())
        assert expected["tolerance"] == 0.15
        assert set(expected["ratios"]) == {guard.case(n) for n in guard.UPDATES}
        assert all(ratio > 1.0 for ratio in expected["ratios"].values())

    def test_the_baseline_stands_alone(self):
        """A baseline that used fastrl would move with it."""
        imports = [
            line for line in (BENCH / "baseline_ppo.py").read_text().splitlines()
            if line.startswith(("import ", "from "))
        ]  # fmt: skip
        modules = {line.split()[1].split(".")[0] for line in imports}
        assert modules == {"collections", "typing", "flax", "jax", "optax"}


def test_flops_of_a_small_network():
    """Two nets 4-8-2 and 4-8-1, batch 10: forward 2*10*(4*8+8*2) and 2*10*(4*8+8*1)."""
    shape = roofline.layers(4, [8], 2)
    assert shape == [(4, 8), (8, 2), (4, 8), (8, 1)]
    forward, both = roofline.flops(shape, 10, inputs=4)
    assert forward == 960 + 800
    assert both == 2 * forward + 2 * 10 * (8 * 2 + 8 * 1)


@pytest.mark.slow
def test_the_baseline_learns():
    """A guard against a program that does not work would allow anything."""
    import jax
    from baseline_ppo import Settings, make_train

    train = jax.jit(make_train(Settings(updates=200)))
    _, returns = train(jax.random.key(0, impl="threefry2x32"))
    assert float(returns[-20:].mean()) > 120.0  # 22 at the start


def run(script: str, folder: Path, *arguments: str) -> list[dict]:
    """The rows that a script writes."""
    written = folder / f"{script}.jsonl"
    environment = os.environ | {"PYTHONWARNINGS": "default"}
    command = [sys.executable, str(BENCH / f"{script}.py"), *arguments, "--json", str(written)]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=folder, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in written.read_text().splitlines()]


@pytest.mark.slow
class TestScripts:
    @pytest.mark.full
    def test_environments(self, tmp_path):
        rows = run("environments", tmp_path, "--peers", "--num-envs", "32", "--steps", "64",
                   "--rounds", "1", "--seconds", "0.01")  # fmt: skip
        assert len(rows) == 4
        assert all(r["status"] == "ok" and r["fastrl"] > 0 for r in rows)
        assert 15 < rows[0]["fastrl_return"] < 35  # CartPole with random actions: 22

    @pytest.mark.parametrize(
        "arguments",
        [
            ("--case", "cartpole", "--num-envs", "4", "--steps", "1024"),
            pytest.param(
                ("--case", "members", "--members", "4", "--steps", "512", "--devices", "2"),
                marks=pytest.mark.full,
            ),
            pytest.param(("--case", "host", "--steps", "512"), marks=pytest.mark.full),
        ],
        ids=lambda a: a[1],
    )
    def test_training(self, tmp_path, arguments):
        (row,) = run("training", tmp_path, "--peers", "--rounds", "1", *arguments)
        assert row["status"] == "ok", row["note"]
        assert row["fastrl"] > 0
        assert row["fastrl_compile"] > 0
        assert row["fastrl_return"] > 8

    @pytest.mark.full
    def test_scaling(self, tmp_path):
        rows = run("scaling", tmp_path, "--rounds", "1", "--steps", "512", "--axis", "envs",
                   "--num-envs", "4", "8")  # fmt: skip
        assert [r["size"] for r in rows] == [4, 8]
        assert rows[0]["ratio"] == 1.0

    @pytest.mark.full
    def test_roofline(self, tmp_path):
        rows = run("roofline", tmp_path, "--num-envs", "16", "--num-steps", "8", "--hidden", "16",
                   "--rounds", "3", "--seconds", "0.2", "--copy", "65536")  # fmt: skip
        by_case = {r["case"].split(": ")[1]: r for r in rows}
        assert by_case["products of an epoch"]["gflops_per_second"] > 0
        assert "update, an epoch" in by_case  # a difference of times: noise at this size
        assert by_case["- rollout"]["fastrl"] > 0
        assert by_case["copy"]["ratio"] is None

    @pytest.mark.full
    def test_compile(self, tmp_path):
        rows = run("compile", tmp_path, "--peers", "--rounds", "1")
        assert {"import", "trace", "lower", "compile", "first run"} <= set(rows[0]["phases"])
        assert rows[1]["phases"]["compile"] < rows[0]["phases"]["compile"]

    @pytest.mark.full
    def test_guard(self, tmp_path):
        expected = tmp_path / "guard.json"
        expected.write_text(
            '{"tolerance": 0.15, "machine": {}, "ratios": {"ppo_cartpole_4_envs": 0.001}}'
        )
        (row,) = run("guard", tmp_path, "--rounds", "3", "--updates", "2", "--num-envs", "4",
                     "--expected", str(expected))  # fmt: skip
        assert row["ratio"] > 0.1
        assert len(row["ratios"]) == 3

    def test_all(self, tmp_path):
        """One script after the other, and a summary."""
        command = [sys.executable, str(BENCH / "all.py"), "--out", str(tmp_path), "--quick",
                   "--peers", "--only", "environments"]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        assert "CartPole-v1, 64 envs" in (tmp_path / "summary.md").read_text()
        assert (tmp_path / "environments.png").exists()
