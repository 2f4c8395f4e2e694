"""Tar files, plain and compressed: where their image members lie, and streaming them. Imports no torch.

Nothing is ever unpacked to disk, so a member's name can't lead out of a folder; only regular files with plain
relative names are seen at all.
"""

from __future__ import annotations

import contextlib
import lzma
import tarfile
import zlib
from collections.abc import Container, Iterator, Set
from pathlib import Path

from roarline.data.raw import STREAMED, RawFile
from roarline.errors import DataError

_MAGIC = ((b"\x1f\x8b", "gz"), (b"\xfd7zXZ\x00", "xz"), (b"BZh", "bz2"))


def compression(path: Path) -> str:
    """``gz``, ``xz``, ``bz2``, or "" for a plain tar, by the file's first bytes."""
    try:
        with path.open("rb") as file:
            head = file.read(6)
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror})") from error
    return next((kind for magic, kind in _MAGIC if head.startswith(magic)), "")


def list_members(path: Path) -> list[RawFile]:
    """The regular files of a tar, in its order; a compressed one's are ``STREAMED``.

    Raises:
        DataError: It is no tar, or damaged.
    """
    packed = compression(path)
    with _opened(path, packed) as tar:
        return [
            RawFile(name, STREAMED if packed else member.offset_data, member.size)
            for member in tar
            if (name := _plain_name(member)) is not None
        ]


def stream_members(path: Path, wanted: Container[str]) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of some members, in one pass through the tar.

    Raises:
        DataError: It is no tar, or damaged.
    """
    with _opened(path, compression(path)) as tar:
        for member in tar:
            name = _plain_name(member)
            if name is not None and name in wanted:
                file = tar.extractfile(member)
                if file is not None:
                    yield name, file.read()
            tar.members = []  # type: ignore[attr-defined]  # or every header seen stays in memory


def read_members(path: Path, names: Set[str]) -> dict[str, bytes]:
    """The bytes of some small members, e.g. tables beside the images."""
    return dict(stream_members(path, names)) if names else {}


@contextlib.contextmanager
def _opened(path: Path, packed: str) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(path, f"r|{packed}" if packed else "r:") as tar:  # type: ignore[call-overload]
            yield tar
    except (tarfile.TarError, EOFError, lzma.LZMAError, zlib.error, OSError) as error:
        raise DataError(f"{path}: can't be read as a tar ({error}); is it whole?") from error


def _plain_name(member: tarfile.TarInfo) -> str | None:
    if not member.isreg() or member.issparse():
        return None
    if member.name.startswith("/") or "\x00" in member.name:
        return None
    parts = [part for part in member.name.split("/") if part not in ("", ".")]
    return None if ".." in parts else "/".join(parts)
