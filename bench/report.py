"""What is written: JSON lines, a markdown table, a plot, and on what machine it was measured."""

import functools
import json
import os
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import worker
from contest import Result, ratios
from options import Options

Row = dict[str, Any]
_PACKAGES = ("fastrl", "jax", "jaxlib", "flax", "optax", "brax", "numpy")


@functools.cache
def machine() -> dict[str, Any]:
    """Processor, cores that this process may use, accelerator, versions. No names of hosts."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the workers need the GPU
    import jax

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": _processor(),
        "cores": cores,
        "device": jax.devices()[0].device_kind,
        "backend": jax.default_backend(),
        "devices": jax.device_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": worker.versions(*_PACKAGES),
    }


def _processor() -> str:
    """The processor's own name, or else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def row(bench: str, case: str, settings: dict[str, Any], own: Result, peer: Result | None) -> Row:
    """A comparison: `ratio` is the median over rounds of fastrl's rate over the peer's.

    It is None where there is no peer, or where one side did not come to an end.
    """
    made: Row = {
        "bench": bench, "case": case, "settings": settings, "peer": None, "variant": "",
        "status": own.status, "note": own.note, "ratio": None, "ratios": [],
        "unit": "steps/s", "fastrl": own.rate, "fastrl_return": own.mean_return,
        "fastrl_compile": own.ready.get("compile_seconds"),
    }  # fmt: skip
    if peer is None:
        return made
    both = own.status == peer.status == "ok"
    per_round = ratios(own.rates, peer.rates) if both else []
    return made | {
        "peer": peer.name,
        "variant": peer.variant,
        "status": peer.status if own.status == "ok" else own.status,
        "note": peer.note if own.status == "ok" else own.note,
        "ratio": statistics.median(per_round) if per_round else None,
        "ratios": per_round,
        "peer_rate": peer.rate,
        "peer_return": peer.mean_return,
        "peer_compile": peer.ready.get("compile_seconds"),
        "peer_versions": peer.ready.get("versions", {}),
    }


def table(rows: Sequence[Row]) -> str:
    """A markdown table of comparisons."""
    head = ("case", "against", "fastrl", "peer", "unit", "ratio", "return", "compile s")
    lines = [head, ("---",) * len(head)]
    for r in rows:
        against = " ".join(filter(None, (r["peer"], r["variant"] and f"({r['variant']})")))
        if r["status"] != "ok":
            against = f"{against or 'fastrl'}: {r['status']}"
        lines.append((
            r["case"], against or "-", number(r["fastrl"]), number(r.get("peer_rate")), r["unit"],
            "-" if r["ratio"] is None else f"{r['ratio']:.2f}",
            _pair(r.get("fastrl_return"), r.get("peer_return")),
            _pair(r.get("fastrl_compile"), r.get("peer_compile")),
        ))  # fmt: skip
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def number(x: float | None) -> str:
    """Three digits, thousands as k and millions as M; a dash for None."""
    if x is None:
        return "-"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(x) >= size:
            return f"{x / size:#.3g}".rstrip(".") + letter
    return f"{x:.3g}"


def _pair(own: float | None, peer: float | None) -> str:
    return "-" if own is peer is None else f"{number(own)} / {number(peer)}"


class Report:
    """Takes rows one by one, writes each at once, and the table and the plot at the end."""

    def __init__(self, title: str, options: Options) -> None:
        self.title, self.options, self.rows = title, options, []
        if options.json:
            Path(options.json).write_text("")

    def add(self, *rows: Row) -> None:
        """Writes `rows`: with the machine to the JSON file, in short to the terminal."""
        for r in rows:
            self.rows.append(r)
            print(_line(r), flush=True)
            if self.options.json:
                with open(self.options.json, "a", encoding="utf-8") as file:
                    file.write(json.dumps(r | {"machine": machine()}) + "\n")

    def close(self) -> None:
        """The table on the terminal and in its file, and the plot."""
        text = f"## {self.title}\n\n{describe_machine()}\n\n{table(self.rows)}\n"
        print(f"\n{text}")
        if self.options.markdown:
            Path(self.options.markdown).write_text(text, encoding="utf-8")
        if self.options.plot:
            draw(self.rows, self.title, Path(self.options.plot))


def describe_machine() -> str:
    """The machine in one line."""
    m = machine()
    packages = ", ".join(f"{name} {version}" for name, version in m["versions"].items())
    return f"{m['processor']}, {m['cores']} cores, {m['device']}; Python {m['python']}, {packages}."


def _line(r: Row) -> str:
    ratio = "" if r["ratio"] is None else f"  x{r['ratio']:.2f}"
    own = f"{number(r['fastrl'])} {r['unit']}"
    peer = "" if r["peer"] is None else f", {r['peer']} {r['variant']}".rstrip()
    told = "" if r["status"] == "ok" else f"  {r['status']}: {r['note']}"
    return f"{r['bench']:12} {r['case']:44} {own}{peer} {number(r.get('peer_rate'))}{ratio}{told}"


def draw(rows: Sequence[Row], title: str, path: Path) -> None:
    """A bar for every ratio, with its range over the rounds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = [r for r in rows if r["ratio"] is not None]
    figure, axes = pyplot.subplots(figsize=(8, 1.2 + 0.32 * len(shown)), layout="constrained")
    for place, r in enumerate(shown):
        low, high = min(r["ratios"] or [r["ratio"]]), max(r["ratios"] or [r["ratio"]])
        axes.barh(place, r["ratio"], color="#4269d0")
        axes.plot([low, high], [place, place], color="#333333", linewidth=1)
    axes.axvline(1.0, color="#999999", linewidth=1)
    axes.set_yticks(
        range(len(shown)), [" vs ".join(filter(None, (r["case"], r["peer"]))) for r in shown]
    )
    axes.invert_yaxis()
    axes.set_xlabel("ratio")
    axes.set_title(title)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
