"""An environment of the peers' own, ``.bench-peers/``: it sees this one's packages, and has what would clash here."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".bench-peers"
REQUIREMENTS = Path(__file__).parent / "requirements.txt"


def peers_python(folder: Path = FOLDER) -> tuple[str, str]:
    """The interpreter in which peers run; made on the first call, and again where the requirements have changed.

    Returns:
        Its path, and why it is this process's own interpreter where the environment can't be made, else "".
    """
    python, stamp = folder / "bin" / "python", folder / "made-of.txt"
    # Unlike a bare path this also follows what is installed there as a link: roarline itself.
    shared = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
    wanted = shared + REQUIREMENTS.read_text(encoding="utf-8")
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted and python.exists():
        return str(python), ""
    print(f"making {folder.name}/ for the peers …", file=sys.stderr)
    problem = _command(sys.executable, "-m", "venv", "--clear", "--without-pip", str(folder))
    if not problem:
        packages = next(folder.glob("lib/python*/site-packages"))
        (packages / "shared.pth").write_text(shared, encoding="utf-8")
        problem = _command(
            sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps",
            "-r", str(REQUIREMENTS),
        )  # fmt: skip
    if problem:
        return sys.executable, f"{folder.name}/ can't be made: {problem}"
    stamp.write_text(wanted, encoding="utf-8")
    return str(python), ""


def _command(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no reason given"])[-1]


@dataclass
class Peer:
    """A process in which one peer does one piece of work as often as it is told.

    Attributes:
        versions: Of the packages that it uses.
        passes: Images that went through the network in one run.
        problem: Why it can't, or "".
    """

    python: str
    case: str
    settings: dict[str, Any]
    versions: dict[str, str] = field(default_factory=dict)
    passes: int = 0
    problem: str = ""

    def __enter__(self) -> Peer:
        self._process = subprocess.Popen(
            [self.python, "-m", "benchmarks.peers.worker", self.case, json.dumps(self.settings)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._hear()
        return self

    def __exit__(self, *error: object) -> None:
        self._process.__exit__(None, None, None)  # closes its pipes, on which it ends, and waits for it

    def run(self) -> float:
        """Seconds of one run; 0 where it can't, and ``problem`` says why."""
        if self.problem or self._process.stdin is None:
            return 0.0
        try:
            self._process.stdin.write("run\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # what it said last is read below
        return float(self._hear().get("seconds", 0.0))

    def _hear(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout is not None else ""
        said: dict[str, Any] = json.loads(line) if line else {"problem": "its process ended without a word"}
        self.problem = said.get("problem", "")
        self.versions = said.get("versions", self.versions)
        self.passes = said.get("passes", self.passes)
        return said
