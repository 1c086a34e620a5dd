"""Meta-training of LPG by gradients: agents' environment steps per second, and memory.

    python bench/meta_lpg.py --peer-path groove=../groove
    python bench/meta_lpg.py --peers --devices 1 --chunk 8

The default task family of the published GROOVE code (random grid worlds, `all_shortlife`): 8
agents, 64 workers, 20 steps, 5 updates of each agent and one more rollout per meta-update.  Of
either side all of these environment steps count; what the published code plays beside them for
its log does not.  It runs with all agents side by side and with one after the other.  The second
row is memory, divided by the agents: how far a process' peak in a round is above what it holds
before; notes have XLA's own account of it.
"""

import dataclasses
import statistics
import sys
from typing import Any

import arena
import contest
import options
import peers
import report
from arena import Rival
from contest import Contestant, Result


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    parser = options.parser(__doc__, ("groove",))
    parser.add_argument("--mode", default="all_shortlife", help="of the grid world (%(default)s)")
    parser.add_argument("--agents", type=int, default=8, help="%(default)s")
    parser.add_argument("--chunk", type=int, default=0, help="agents side by side (automatic)")
    parser.add_argument("--devices", type=int, default=0, help="as many as cores by default")
    parser.add_argument("--workers", type=int, default=64, help="%(default)s")
    parser.add_argument("--rollout", type=int, default=20, help="its steps (%(default)s)")
    parser.add_argument("--window", type=int, default=5, help="updates (%(default)s)")
    parser.add_argument("--updates", type=int, default=2, help="of the rule (%(default)s)")
    parser.add_argument("--hidden-size", type=int, default=256, help="of the rule (%(default)s)")
    parser.add_argument("--keep", default="activations", help="for the gradient (%(default)s)")
    parsed = parser.parse_args(arguments)
    chosen = options.options(parsed)
    names = ("mode", "agents", "chunk", "workers", "rollout", "window", "updates", "hidden_size",
             "keep")  # fmt: skip
    settings = {name: getattr(parsed, name) for name in names} | {"seed": 0}
    settings["devices"] = parsed.devices or report.machine()["cores"]
    made = report.Report("LPG", chosen)
    for row in compared(settings, chosen):
        made.add(row)
        if row["note"]:
            print(f"    {row['note']}", flush=True)
    made.close()
    return 0


def compared(settings: dict[str, Any], chosen: options.Options) -> list[report.Row]:
    """A row of speed and one of memory for each way in which the peer runs."""
    contestants, absent = [arena.own("own_meta_lpg", settings)], []
    if chosen.peers is None or "groove" in chosen.peers:
        try:
            contestants += groove(settings, chosen)
        except peers.MissingError as error:
            absent = [Result("groove", status="missing", note=str(error))]
    own, *others = contest.compete(contestants, chosen.rounds, chosen.timeout)
    case = f"{settings['mode']}, {settings['agents']} agents, {settings['devices']} devices"
    rows = []
    for rival in others + absent or [None]:
        speed = report.row("meta_lpg", case, settings, own, rival)
        rows += [speed, memory(speed, settings["agents"], own, rival)]
    return rows


def groove(settings: dict[str, Any], chosen: options.Options) -> list[Contestant]:
    """The published code, all agents side by side and one after the other.

    Raises `peers.MissingError`.
    """
    made = []
    for batches in (1, settings["agents"]):
        rival = Rival("groove", "peer_groove", extra={"mini_batches": batches})
        (entered,) = arena.enter(rival, settings, chosen)
        made.append(dataclasses.replace(entered, variant=f"{batches} mini-batches"))
    return made


def memory(speed: report.Row, agents: int, own: Result, rival: Result | None) -> report.Row:
    """The row of memory, from that of speed: `ratio` is the peer's over fastrl's."""
    sides = [r for r in (own, rival) if r is not None and r.rounds and r.status == "ok"]
    held = [statistics.median(r["held"] for r in s.rounds) / agents / 1e6 for s in sides]
    planned = [f"{s.name} {s.ready['planned'] / agents / 1e6:,.1f}" for s in sides]
    made = speed | {
        "case": f"{speed['case']}, memory", "unit": "MB/agent", "ratio": None, "ratios": [],
        "fastrl": held[0] if held else None,
    }  # fmt: skip
    if len(held) == 2:
        made |= {"peer_rate": held[1], "ratio": held[1] / held[0]}
    if planned:
        made["note"] = f"MB an agent by XLA's account: {', '.join(planned)}"
    return made


if __name__ == "__main__":
    sys.exit(main())
