"""`check_env`: whether an environment keeps the contract of `fastrl.types.Env`.

The same checks run over every environment that fastrl ships and, as `fastrl check-env
module:Class`, over a user's. Each check is a function in `fastrl.env_contract`; here they
are run in order and their results are shown. Whatever an environment raises becomes a
failed check that says what to do, never a traceback.
"""

import dataclasses
import sys
from typing import Any, Literal, NamedTuple

from fastrl import env_contract
from fastrl.transforms.base import Transform
from fastrl.user_code import explain, is_ours, is_users, place

Status = Literal["ok", "warning", "failure"]


class Check(NamedTuple):
    """The result of one check. A warning is worth a look, a failure breaks learners."""

    name: str
    status: Status
    message: str


@dataclasses.dataclass(frozen=True)
class Report:
    """What `check_env` found."""

    env: str
    checks: tuple[Check, ...]
    steps_per_second: float | None  # None if it never came to run

    @property
    def ok(self) -> bool:
        """Whether nothing failed; there may be warnings."""
        return not self.failures

    @property
    def failures(self) -> list[Check]:
        return [c for c in self.checks if c.status == "failure"]

    @property
    def warnings(self) -> list[Check]:
        return [c for c in self.checks if c.status == "warning"]

    def print(self) -> None:
        """Writes the report to the console as a table."""
        from rich.console import Console

        Console().print(self)

    def __rich__(self) -> Any:
        from rich.table import Table
        from rich.text import Text

        table = Table(title=f"check-env {self.env}", caption=self._verdict(), show_lines=False)
        for heading in ("check", "result", "what was seen"):
            table.add_column(heading, overflow="fold")
        colours = {"ok": "green", "warning": "yellow", "failure": "red"}
        for check in self.checks:
            result = Text(check.status, style=colours[check.status])
            table.add_row(check.name, result, Text(check.message))
        return table

    def __str__(self) -> str:
        lines = [f"{c.status:8} {c.name}: {c.message}" for c in self.checks]
        return "\n".join([f"check-env {self.env}", *lines, self._verdict()])

    def _verdict(self) -> str:
        counts = f"failures: {len(self.failures)}, warnings: {len(self.warnings)}"
        return f"{'ok' if self.ok else 'not ok'} ({counts})"


def check_env(env: Any, *, seed: int = 0, num_envs: int = 64, num_steps: int = 200) -> Report:
    """Checks `env` against the contract, with `num_steps` random steps of `num_envs` episodes.

    Never raises for what is wrong with the environment: see the `Report`. Raises ValueError
    for `num_envs` below 2 or `num_steps` below 1.
    """
    if num_envs < 2 or num_steps < 1:
        raise ValueError(
            f"check_env(num_envs={num_envs}, num_steps={num_steps}): needs 2 environments "
            "(do their starts differ?) and 1 step at least"
        )
    case = env_contract.Case(env, seed, num_envs, num_steps)
    checks: list[Check] = []
    for name, check, needed in env_contract.CHECKS:
        checks.append(_run(name, check, case))
        if needed and checks[-1].status == "failure":
            rest = f"all further checks need {name!r}: repair it and check again"
            checks.append(Check("not run", "warning", rest))
            break
    return Report(_name(env), tuple(checks), case.steps_per_second)


def why_it_fails(env: Any, error: BaseException) -> str:
    """Why tracing a learner on `env` (None if it has none) raised `error`, on one line.

    That is the user's own line if the error arose in code of theirs.  If not, what their
    environment returned may be to blame: then it is the first clause of the contract broken.
    """
    if place(error):
        return explain(error)
    if env is not None and is_users(_file(env)):
        case = env_contract.Case(env, seed=0, num_envs=2, num_steps=1)
        for name, check, _ in env_contract.CHECKS:
            result = _run(name, check, case) if name in _STRUCTURE else None
            if result is not None and result.status == "failure":
                return f"{_name(env)} is not as environments must be: {result.message}"
    return str(error) if is_ours(error) else explain(error)


_STRUCTURE = ("methods", "params", "spaces", "reset", "step", "state types")  # cheap checks


def _file(env: Any) -> str:
    """Where the innermost environment was written, empty if it was made at run time."""
    while isinstance(env, Transform):
        env = env.env
    return getattr(sys.modules.get(type(env).__module__), "__file__", None) or ""


def _run(name: str, check: env_contract.CheckFunction, case: env_contract.Case) -> Check:
    try:
        return Check(name, "ok", check(case))
    except env_contract.Doubt as doubt:
        return Check(name, "warning", str(doubt))
    except env_contract.Breach as breach:
        return Check(name, "failure", str(breach))
    except Exception as error:
        return Check(name, "failure", explain(error))


def _name(env: Any) -> str:
    return env.__name__ if isinstance(env, type) else type(env).__name__
