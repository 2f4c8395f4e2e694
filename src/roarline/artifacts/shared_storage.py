"""Is the artifact folder one folder for all hosts: do they see it, write to it, respect its locks? Imports no torch.

A network file system may show a host for up to a minute what it knew before: that a folder was not there, say. Whoever
reads what another host has just made waits for it here.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from roarline.artifacts.files import writing_to
from roarline.artifacts.store import Store

_STAGE = "shared-storage"
LONGEST_S = 90.0
_LONGEST_FOR_NEW_NAMES_S = 10.0  # nobody has looked for them before, so that no host remembers otherwise
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 2.0


@dataclass(frozen=True)
class Marker:
    """A folder that one host has made, with a lock that it holds, for the others to find.

    Attributes:
        root: The artifact folder, absolute.
        name: Of this marker.
    """

    root: Path
    name: str

    @property
    def folder(self) -> Path:
        """Where the hosts leave their answers; ``roarline gc`` knows it as something left over."""
        return Store(self.root).work(_STAGE, self.name)

    @property
    def lock(self) -> Path:
        """The lock that is held while the marker is there; ``roarline gc`` knows it as that of a run at work."""
        return Store(self.root).lock_path(_STAGE, self.name)


@contextlib.contextmanager
def marked(root: Path) -> Iterator[Marker]:
    """Make a marker in the artifact folder and hold its lock.

    Raises:
        ArtifactError: The folder can't be written.
    """
    marker = Marker(root.absolute(), secrets.token_hex(8))
    with writing_to(root):
        marker.folder.mkdir(parents=True)
        marker.lock.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(marker.lock)
        lock.acquire()
    try:
        yield marker
    finally:
        lock.release()
        marker.lock.unlink(missing_ok=True)
        shutil.rmtree(marker.folder, ignore_errors=True)


def answer(marker: Marker, name: str, longest_s: float = _LONGEST_FOR_NEW_NAMES_S) -> str | None:
    """On another host: look for the marker, try its lock, leave an answer of that name.

    Returns:
        What is wrong with the folder as this host sees it, and what to do; None where all is well.
    """
    if not seen(marker.folder, longest_s):
        return (
            f"{marker.root} is not there, or is another folder than where roarline was started: runtime.artifacts must "
            "be on storage that every node has at the same path"
        )
    try:
        with FileLock(marker.lock, timeout=0):
            return (
                f"a lock on {marker.root} that another host holds can be had here, too: two hosts would write one "
                "artifact. Mount it with locks that hold for all hosts (NFS: without nolock and local_lock; Lustre: "
                "with flock)"
            )
    except Timeout:
        pass
    except (OSError, NotImplementedError) as error:
        return f"files under {marker.root} can't be locked here ({error}): mount it with locks"
    try:
        (marker.folder / name).write_bytes(b"")
    except OSError as error:
        return f"{marker.root} can't be written here ({error.strerror}): every node writes its results there"
    return None


def answered(marker: Marker, name: str, longest_s: float = _LONGEST_FOR_NEW_NAMES_S) -> bool:
    """True where the answer of that name is seen from here."""
    return seen(marker.folder / name, longest_s)


def seen(path: Path, longest_s: float = LONGEST_S) -> bool:
    """Wait until a file or folder that another host has made is seen here.

    Returns:
        False where it was not in so many seconds.
    """
    end, pause = time.monotonic() + longest_s, _FIRST_PAUSE_S
    while not path.exists():
        with contextlib.suppress(OSError):
            os.listdir(path.parent)  # noqa: PTH208 - opening the folder makes a network file system ask its server
        if path.exists():
            break
        if time.monotonic() + pause > end:
            return False
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_S)
    return True


def wait_for_artifacts(
    store: Store,
    artifacts: Iterable[tuple[str, str]],
    longest_s: float = LONGEST_S,
    on_wait: Callable[[], None] | None = None,
) -> None:
    """Wait until artifacts that other hosts have made are seen here; those that never are, their reader reports.

    Args:
        artifacts: (stage, key) of each.
        longest_s: For all of them together.
        on_wait: Called once where it takes a wait.
    """
    end = time.monotonic() + longest_s
    missing = [(stage, key) for stage, key in artifacts if not store.exists(stage, key)]
    if missing and on_wait:
        on_wait()
    for stage, key in missing:
        seen(store.path(stage, key), max(0.0, end - time.monotonic()))
