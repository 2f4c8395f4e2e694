"""``python -m benchmarks.peers``: the same work through peers and through roarline, in turns, as ratios of their times.

Peers run in processes of their own, in an environment of their own (``.bench-peers/``, made on the first call). One
that isn't there, or fails, is said in its line. Ours is the whole stage, with files read and written; peers have their
images and maps in memory and keep their results to themselves.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import RESULTS, Options, machine, timed
from benchmarks.peers.comparisons import Comparison, comparisons, opened
from benchmarks.peers.environment import Peer, peers_python
from benchmarks.peers.retraining import Retraining, compare
from roarline.execution.allocator import keep_freed_memory

RETRAINING = "retraining"


@dataclass
class Line:
    """One comparison: seconds of each turn, and images through the network in one run of the peer."""

    what: str
    peer: str
    images: int
    passes: int = 0
    ours_s: list[float] = field(default_factory=list)
    peer_s: list[float] = field(default_factory=list)
    problem: str = ""

    @property
    def ratio(self) -> float:
        """The peer's time ÷ ours, the median of the turns."""
        return statistics.median(peer / ours for ours, peer in zip(self.ours_s, self.peer_s, strict=True))


def take_turns(comparison: Comparison, python: str, options: Options) -> Line:
    """Let roarline and a peer take turns, after one untimed turn of each."""
    with Peer(python, comparison.case, comparison.settings) as peer, opened(comparison) as ours:
        line = Line(comparison.what, comparison.case.split()[0], comparison.settings["images"], peer.passes)
        if not peer.problem:
            ours()
        for turn in range(options.turns):
            runs = [(line.ours_s, lambda: timed(ours, options.device)), (line.peer_s, peer.run)]
            for seconds, run in runs if turn % 2 == 0 else reversed(runs):
                if not peer.problem:
                    seconds.append(run())
        line.peer = " ".join([line.peer, *peer.versions.values()])
        line.problem = peer.problem
    return line


def table(lines: Sequence[Line]) -> str:
    """Markdown."""
    header = ["work", "peer", "images", "the peer's passes", "ours, s", "the peer, s", "peer ÷ ours", "range"]
    rows = [header, ["---"] * len(header)]
    for line in lines:
        if line.problem:
            rows.append([line.what, line.peer, str(line.images), "", "", "", line.problem, ""])
            continue
        ratios = [peer / ours for ours, peer in zip(line.ours_s, line.peer_s, strict=True)]
        rows.append(
            [
                line.what, line.peer, str(line.images), str(line.passes), f"{statistics.median(line.ours_s):.2f}",
                f"{statistics.median(line.peer_s):.2f}", f"{line.ratio:.2f}", f"{min(ratios):.2f} to {max(ratios):.2f}",
            ]
        )  # fmt: skip
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def save(lines: Sequence[Line], retraining: Retraining | None, options: Options, folder: Path = RESULTS) -> Path:
    """Write what was measured, the kind of machine, the date and the versions; other lines of the day stay."""
    folder.mkdir(parents=True, exist_ok=True)
    kind = machine(options.device)
    name = re.sub(r"[^a-z0-9]+", "-", f"{kind['gpu'] or kind['cpu']} {kind['cores']} cores".lower()).strip("-")
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    path = folder / f"{today}-peers-{name}.json"
    before: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    known = {line.what for line in lines}
    kept = [one for one in before.get("lines", []) if one["what"] not in known] if before.get("machine") == kind else []
    found = [{**asdict(line), "ratio": None if line.problem else line.ratio} for line in lines]
    content: dict[str, Any] = {"date": today, "machine": kind, "options": asdict(options), "lines": kept + found}
    if retraining is not None and not retraining.problem:
        content[RETRAINING] = {**asdict(retraining), "ratio": retraining.ratio}
    elif RETRAINING in before and before.get("machine") == kind:
        content[RETRAINING] = before[RETRAINING]
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return path


def main(words: list[str] | None = None) -> int:
    """Run the comparisons that were asked for; 1 where retraining misses its goal."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__.partition("\n")[0])
    parser.add_argument("peers", nargs="*", help=f"quantus, captum, grad-cam, {RETRAINING}; default: all")
    parser.add_argument("--quick", action="store_true", help="one turn of small runs: shows that it works, no figures")
    parser.add_argument("--save", action="store_true", help="write the result to benchmarks/results/ as JSON")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of torch, on both sides")
    parser.add_argument("--networks", nargs=1, default=[Options.networks[0]], help="a torchvision name")
    parser.add_argument("--alternations", type=int, default=Options.alternations)
    given = parser.parse_args(words)
    options = Options(
        device=given.device, threads=given.threads, quick=given.quick, networks=tuple(given.networks),
        alternations=given.alternations,
    )  # fmt: skip
    known = {one: one.case.split()[0] for one in comparisons(options)}
    names = sorted({*known.values(), RETRAINING})
    unknown = set(given.peers) - set(names)
    if unknown:
        parser.error(f"no peer is named {min(unknown)!r}; there are {', '.join(names)}")
    chosen = [one for one, peer in known.items() if not given.peers or peer in given.peers]
    retrains = not given.peers or RETRAINING in given.peers
    torch.set_num_threads(options.threads)
    keep_freed_memory()  # as in a worker
    python, problem = peers_python()
    if problem:
        print(problem, file=sys.stderr)
    lines = []
    for comparison in chosen:
        lines.append(take_turns(comparison, python, options))
        print(f"{lines[-1].what}: {lines[-1].problem or f'{lines[-1].ratio:.2f}'}", file=sys.stderr)
    retraining = compare(options, python) if retrains else None
    print(", ".join(f"{key} {value}" for key, value in machine(options.device).items() if value is not None))
    if lines:
        print(f"\n{options.networks[0]}, {options.input_px} px, {options.threads} threads\n\n{table(lines)}")
    if retraining is not None:
        print("\n" + "\n".join(retraining.lines()))
    if given.save:
        print(f"\nsaved: {save(lines, retraining, options).name}")
    missed = retraining is not None and not retraining.problem and retraining.ratio < retraining.goal
    return 1 if missed and not options.quick else 0


if __name__ == "__main__":
    raise SystemExit(main())
