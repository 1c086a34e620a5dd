"""Every Python block of the README and of docs/ runs, and so does every example.

The blocks of a page run in order and share their names, in an empty folder.  A block that only
shows something is marked `text` instead of `python`.
"""

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.py"))
# Pages of other learners are alike; these of concepts compile the most.
LEARNERS = ("ppo", "dqn", "sac")
DEAR = ("continual", "members", "devices", "programs", "schedules", "snapshots", "sweep")
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[str]:
    """The Python blocks of `page`, each moved to its line so that tracebacks point right."""
    text = page.read_text()
    return ["\n" * text[: m.start(1)].count("\n") + m[1] for m in BLOCK.finditer(text)]


def label(page: Path) -> str:
    return str(page.relative_to(ROOT))


def marked(page: Path) -> Any:
    """`page`, if it is one of those, in full runs only."""
    alike = page.parent.name == "algorithms" and page.stem not in LEARNERS
    marks = [pytest.mark.full] if alike or page.stem in DEAR else []
    return pytest.param(page, marks=marks, id=label(page))


@pytest.mark.slow
@pytest.mark.parametrize("page", [marked(p) for p in PAGES])
def test_the_code_on_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "page"}
    for block in blocks(page):
        exec(compile(block, page, "exec"), names)


@pytest.mark.slow
@pytest.mark.parametrize("example", [marked(p) for p in EXAMPLES])
def test_an_example_runs(example, tmp_path, monkeypatch):
    """Run as a user would run it, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location("__main__", example)
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


@pytest.mark.parametrize("page", PAGES, ids=label)
def test_links_between_pages_lead_somewhere(page):
    """A file that was moved or a picture that was not committed leaves a dead link."""
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    targets += re.findall(r"<img[^>]*src=\"([^\"]+)\"", page.read_text())
    local = [t for t in targets if "://" not in t]
    missing = [t for t in local if not (page.parent / t).exists()]
    assert not missing


def test_every_public_name_has_a_docstring():
    """What `fastrl` exports is documented, or this fails with its names."""
    import fastrl

    public = {n: getattr(fastrl, n) for n in dir(fastrl) if not n.startswith("_")}
    assert {"make", "run", "ppo"} <= set(public)
    missing = [n for n, x in public.items() if not (getattr(x, "__doc__", "") or "").strip()]
    assert not missing
