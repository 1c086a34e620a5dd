"""Ctrl-C and SIGTERM end a run cleanly; what hangs is reported; what a user sees is right."""

import os
import pty
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tiny

from fastrl import watchdog
from fastrl.interrupts import Interrupted, Interrupts
from fastrl.progress import Lines, Table, duration
from fastrl.train import train

ALGORITHM = tiny.make()


def signal_during(monkeypatch, signum: int, iteration: int) -> None:
    """Sends `signum` to this process when the evaluation after `iteration` begins."""
    module = sys.modules["fastrl.train"]  # the function of that name hides it in the package
    original = module.evaluate

    def evaluate(algorithm, state, **options):
        if int(state.iteration) == iteration:
            os.kill(os.getpid(), signum)
        return original(algorithm, state, **options)

    monkeypatch.setattr(module, "evaluate", evaluate)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_first_signal_saves_and_says_how_to_go_on(tmp_path, monkeypatch, capfd, signum, code):
    """The state at the stop must be on disk, the handlers as before, and the resume exact."""
    handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    with monkeypatch.context() as patch:
        signal_during(patch, signum, iteration=14)
        with pytest.raises(Interrupted) as caught:
            train(
                ALGORITHM, steps=400, run_dir=tmp_path, progress=False, checkpoint_every=400,
                eval_every=70, eval_episodes=2,
            )  # fmt: skip
    assert caught.value.exit_code == code
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == handlers
    seen = capfd.readouterr().err
    assert "stopping after this chunk" in seen
    assert f"fastrl resume {tmp_path}" in str(caught.value)
    assert (tmp_path / "checkpoints/0000000014").is_dir()
    resumed = train(ALGORITHM, run_dir=tmp_path, resume=True, progress=False)
    straight = train(ALGORITHM, steps=400, progress=False)
    assert bool((resumed.weights["w"] == straight.weights["w"]).all())


@pytest.mark.parametrize("iteration", [10, 20])
def test_signal_without_a_folder(monkeypatch, iteration):
    """The state is all there is, so it comes with the error; a signal at the end counts too."""
    signal_during(monkeypatch, signal.SIGINT, iteration)
    with pytest.raises(Interrupted, match="nothing is saved") as caught:
        train(ALGORITHM, steps=200, eval_every=50)
    assert int(caught.value.state.iteration) == iteration


def test_second_signal_ends_at_once():
    """Also while the device computes: a hang must be left by Ctrl-C alone."""
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match="second"), Interrupts() as interrupts:  # noqa: PT012
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.signum == signal.SIGINT
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_late_signal_is_passed_on():
    """One that nobody looked at any more must not be swallowed."""
    with pytest.raises(KeyboardInterrupt), Interrupts():
        os.kill(os.getpid(), signal.SIGINT)


def test_ignored_signals_stay_ignored():
    """A run under nohup must not die of the hang-up's companions."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interrupts() as interrupts:
            os.kill(os.getpid(), signal.SIGINT)
            assert interrupts.signum is None
    finally:
        signal.signal(signal.SIGINT, before)


HANGING = """
import sys, time
sys.path.insert(0, {tests!r})
import jax, tiny
from fastrl.train import train

class Slow:  # what a chunk that hangs looks like from the host
    def __init__(self, array): self.array = array
    def is_ready(self): return False

import fastrl.loop
wait = fastrl.loop._wait
fastrl.loop._wait = lambda array: (print("waiting", flush=True), wait(Slow(array)))
train(tiny.make(), steps=100, progress=False)
"""


def test_hanging_chunk_is_left_by_two_signals():
    """JAX's own wait would not let Python's signal handlers run."""
    script = HANGING.format(tests=str(Path(__file__).parent))
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
    _, err = process.communicate(timeout=60)
    assert process.returncode not in (0, None)
    assert "aborted by a second signal" in err


def test_watchdog_speaks_once_and_only_if_it_is_late():
    said: list[str] = []
    with watchdog.watching("iteration 3", 60.0, said.append):
        pass
    late = threading.Event()
    with watchdog.watching("iteration 4", 0.01, lambda text: (said.append(text), late.set())):  # type: ignore[arg-type,return-value]
        assert late.wait(10)
    assert len(said) == 1
    assert said[0].startswith("iteration 4 has been running for 0 s")
    assert "jax.lax.map" in said[0]
    assert watchdog.limit([]) == watchdog.limit([0.1, 1.0, 0.2]) == 60.0
    assert watchdog.limit([10.0, 10.0, 1000.0]) == 200.0


def test_table_shows_evaluations_and_a_row_now_and_then():
    """A hundred lines for a run hide the ten that matter."""
    table = Table(1000, ["episode_return", "policy_loss", "entropy"])
    shown = []
    for steps in range(10, 1001, 10):
        row = {"iteration": steps // 10, "steps": steps, "seconds": steps / 100}
        row |= {"episode_return": float("nan"), "policy_loss": np.float32(0.25)}
        row |= {"steps_per_second": 1234.5}
        shown += table.lines(row | ({"evaluation_return": 7.0} if steps == 20 else {}))
    assert shown[0].split() == [
        "iteration",
        "steps",
        "return",
        "evaluation",
        "policy_loss",
        "steps/s",
    ]
    assert shown[1].split() == ["1", "10", "0.25", "1,234"]
    assert shown[2].split() == ["2", "20", "7", "0.25", "100"]
    assert len({len(line) for line in shown}) == 1
    assert shown[-1].split()[1] == "1,000"
    assert 20 <= len(shown) <= 25


def test_durations_are_said_as_people_say_them():
    assert [duration(s) for s in (3.4, 200, 7500, float("inf"))] == [
        "3 s", "3 min 20 s", "2 h 5 min", "?",
    ]  # fmt: skip


def test_quiet_says_nothing(capfd):
    train(ALGORITHM, steps=50, progress=False)
    assert capfd.readouterr() == ("", "")


def test_logs_of_jobs_are_plain_lines(capfd):
    """Escape codes and carriage returns make CI logs unreadable."""
    train(ALGORITHM, steps=50, eval_episodes=2)
    out, err = capfd.readouterr()
    assert out == ""
    assert "\x1b" not in err
    assert "\r" not in err
    assert "compiled in" in err
    assert "steps/s" in err


def test_terminal_shows_bar_and_table():
    """On a pseudo-terminal: the bar with speed and time left, rows above, the cursor restored."""
    script = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import tiny
from fastrl.train import train
train(tiny.make(), steps=3_000_000, eval_every=1_500_000, eval_episodes=2)
"""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=follower, stderr=follower,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "120"},
    )  # fmt: skip
    os.close(follower)
    seen = b""
    while True:
        try:
            block = os.read(leader, 65536)
        except OSError:
            break
        if not block:
            break
        seen += block
    os.close(leader)
    assert process.wait(timeout=60) == 0
    text = seen.decode()
    assert "steps/s" in text
    assert "left" in text
    assert "evaluation" in text
    assert "3,000,000" in text
    assert "\x1b[?25h" in text


def test_reporters_take_warnings_from_other_threads(capfd):
    reporter = Lines()
    thread = threading.Thread(target=reporter.warn, args=("slow",))
    thread.start()
    thread.join()
    assert capfd.readouterr().err == "fastrl: slow\n"
