"""The image files of a folder or a tar, in an order that doesn't depend on the file system. Imports no torch."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from roarline.data.archives import list_members, read_members
from roarline.data.raw import OWN_FILE, RawFile
from roarline.errors import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".webp", ".tif", ".tiff", ".gif")
CLASS_TABLES = ("classes.csv", "LOC_synset_mapping.txt")

_DIGITS = re.compile(r"(\d+)", re.ASCII)
_MOST_NAMED = 10


@dataclass(frozen=True)
class Listing:
    """What lies in a folder or tar.

    Attributes:
        files: Images in natural order (``img2`` before ``img10``), paths relative to the root.
        tables: Content of the class tables (``CLASS_TABLES``) on the uppermost level or the one below, by path.
    """

    files: list[RawFile]
    tables: dict[str, bytes]


def list_images(root: Path) -> Listing:
    """List a folder (symbolic links are followed) or a tar; hidden files and folders are left out.

    Raises:
        DataError: The root doesn't exist or can't be read, or names are no UTF-8 or stand twice.
    """
    if root.is_dir():
        entries = scan_folder(root)
        tables = {entry.path: _read(root / entry.path) for entry in entries if is_class_table(entry.path)}
    elif root.is_file():
        entries = [entry for entry in list_members(root) if is_seen(entry.path)]
        names = {entry.path for entry in entries if is_class_table(entry.path)}
        tables = read_members(root, names)
    else:
        raise DataError(f"{root}: no such folder or tar; set data.root to where the images lie")
    files = [entry for entry in entries if is_image(entry.path)]
    _check_names(root, files)
    return Listing(sorted(files, key=lambda entry: natural(entry.path)), tables)


def is_image(path: str) -> bool:
    """True where the suffix is one of ``IMAGE_SUFFIXES``, in any case."""
    return path.lower().endswith(IMAGE_SUFFIXES)


def is_class_table(path: str) -> bool:
    """True for a class table on the uppermost level or the one below."""
    return path.count("/") <= 1 and path.rpartition("/")[2] in CLASS_TABLES


def is_image_or_table(path: str) -> bool:
    """True for images and class tables."""
    return is_image(path) or is_class_table(path)


def scan_folder(root: Path, wanted: Callable[[str], bool] = is_image_or_table) -> list[RawFile]:
    """Every file below a folder that is wanted by its path, in no order; two system calls a file at most."""
    found: list[RawFile] = []
    folders: list[tuple[str, str, frozenset[tuple[int, int]]]] = [(str(root), "", frozenset())]
    while folders:
        folder, prefix, above = folders.pop()
        try:
            status = Path(folder).stat()
            here = (status.st_dev, status.st_ino)
            if here in above:  # a symbolic link back up
                continue
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    path = prefix + entry.name
                    if entry.is_dir():
                        folders.append((entry.path, f"{path}/", above | {here}))
                    elif wanted(path) and entry.is_file():
                        found.append(RawFile(path, OWN_FILE, entry.stat().st_size))
        except OSError as error:
            raise DataError(f"{error.filename or folder}: can't be read ({error.strerror})") from error
    return found


def natural(path: str) -> tuple[list[tuple[str, int]], str]:
    """Sorting key in which numbers within a name count as numbers."""
    parts = _DIGITS.split(path)
    words, numbers = parts[::2], [int(number) for number in parts[1::2]]
    return [*zip(words, [*numbers, -1], strict=True)], path


def is_seen(path: str) -> bool:
    """False for hidden files and what lies in hidden folders."""
    return not any(part.startswith(".") for part in path.split("/"))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror})") from error


def _check_names(root: Path, files: Sequence[RawFile]) -> None:
    problems = [f"{entry.path!r}: the name is not UTF-8; rename it" for entry in files if not _is_utf8(entry.path)]
    seen: set[str] = set()
    for entry in files:
        if entry.path in seen:
            problems.append(f"{entry.path!r}: stands twice in the tar")
        seen.add(entry.path)
    if problems:
        more = [f"and {len(problems) - _MOST_NAMED} more"] if len(problems) > _MOST_NAMED else []
        raise DataError("\n  ".join([f"{root}: names that can't be used:", *problems[:_MOST_NAMED], *more]))


def _is_utf8(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
