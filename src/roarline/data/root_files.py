"""The files below a data set's root, a folder or a tar, and what its annotations say. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from functools import cached_property
from pathlib import Path

from roarline.data.archives import list_members, read_members
from roarline.data.listing import is_image, is_seen, scan_folder
from roarline.data.raw import OWN_FILE, STREAMED, RawFile
from roarline.errors import DataError

ANNOTATION_SUFFIXES = (".xml", ".json", ".txt", ".csv")
_MOST_NAMED = 10


def is_annotation(path: str) -> bool:
    """True for the suffixes of annotation files, in any case."""
    return path.lower().endswith(ANNOTATION_SUFFIXES)


def is_image_or_annotation(path: str) -> bool:
    """True for the suffixes of image and annotation files."""
    return is_image(path) or is_annotation(path)


class RootFiles:
    """Images and annotations below a root; hidden ones are left out.

    Args:
        root: A folder or tar.
        dataset: Name of the data set, for messages.
        expected: The layout in words, for messages.
        wanted: Which files are listed.

    Attributes:
        entries: Every file by its path relative to the root.

    Raises:
        DataError: There is no root, or it can't be read.
    """

    def __init__(
        self,
        root: Path | None,
        dataset: str,
        expected: str,
        wanted: Callable[[str], bool] = is_image_or_annotation,
    ) -> None:
        if root is None:
            raise DataError(f"data set {dataset!r}: set data.root to a folder or tar with {expected}")
        self.root, self.expected = root, expected
        if root.is_dir():
            found = scan_folder(root, wanted)
        elif root.is_file():
            found = [entry for entry in list_members(root) if is_seen(entry.path) and wanted(entry.path)]
        else:
            raise DataError(f"{root}: no such folder or tar; expected {expected}")
        self.entries: dict[str, RawFile] = {entry.path: entry for entry in found}

    def above(self, *markers: str) -> str:
        """The shortest path, "" or with a slash at its end, below which a file of every marker's folder or name lies.

        Raises:
            DataError: There is none.
        """
        tops = [
            {path[: at + 1] for path in self.entries if (at := _place(path, marker)) is not None} for marker in markers
        ]
        common = set.intersection(*tops)
        if not common:
            lacking = next((marker for marker, found in zip(markers, tops, strict=True) if not found), markers[0])
            raise self.missing(lacking)
        return min(common, key=lambda top: (top.count("/"), top))

    def read(self, path: str) -> bytes:
        """One file's content; of a compressed tar annotations only.

        Raises:
            DataError: It isn't there or can't be read.
        """
        entry = self.entries.get(path)
        if entry is None:
            raise self.missing(path)
        if entry.offset == STREAMED:
            if path not in self._streamed:
                raise DataError(
                    f"{self.root}: {path} can't be read on its own from a compressed tar; unpack it, or make it a "
                    "plain tar"
                )
            return self._streamed[path]
        name = self.root / path if entry.offset == OWN_FILE else self.root
        try:
            with name.open("rb") as file:
                file.seek(max(entry.offset, 0))
                return file.read(entry.size if entry.offset != OWN_FILE else -1)
        except OSError as error:
            raise DataError(f"{self.where(path)}: can't be read ({error.strerror})") from error

    def text(self, path: str) -> str:
        """One annotation file as text.

        Raises:
            DataError: It isn't there, can't be read, or isn't UTF-8.
        """
        try:
            return self.read(path).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(f"{self.where(path)}: not UTF-8 text ({error})") from error

    def fields(self, path: str, count: int, separator: str | None = None) -> list[list[str]]:
        """The lines that are not empty, each split into fields.

        Args:
            count: How many fields a line must have.
            separator: None: any white space; the last field then keeps its own.

        Raises:
            DataError: A line has another number of fields.
        """
        rows = []
        for number, line in enumerate(self.text(path).splitlines(), start=1):
            if not line.strip():
                continue
            row = line.strip().split(separator, count - 1) if separator is None else line.strip().split(separator)
            if len(row) != count:
                raise DataError(f"{self.where(path)}:{number}: expected {count} fields, got {line.strip()!r}")
            rows.append([field.strip() for field in row])
        return rows

    def images(self, paths: Iterable[str]) -> list[RawFile]:
        """The entries of some images.

        Raises:
            DataError: Names the first ten that aren't there.
        """
        wanted = list(paths)
        self.require(wanted, "images")
        return [self.entries[path] for path in wanted]

    def require(self, paths: Collection[str], what: str) -> None:
        """Refuse where any of these files isn't there.

        Raises:
            DataError: Names the first ten.
        """
        lacking = [path for path in paths if path not in self.entries]
        if lacking:
            more = f" and {len(lacking) - _MOST_NAMED} more" if len(lacking) > _MOST_NAMED else ""
            raise DataError(
                f"{self.root}: {len(lacking)} of {len(paths)} {what} are not there: {', '.join(lacking[:_MOST_NAMED])}"
                f"{more}; expected {self.expected}"
            )

    def missing(self, path: str) -> DataError:
        """What to raise where something isn't there."""
        return DataError(f"{self.root}: no {path}; expected {self.expected}")

    def where(self, path: str) -> str:
        """A file's name for messages."""
        return f"{self.root}/{path}" if self.root.is_dir() else f"{self.root}:{path}"

    @cached_property
    def _streamed(self) -> dict[str, bytes]:
        return read_members(self.root, {path for path in self.entries if is_annotation(path)})


def _place(path: str, marker: str) -> int | None:
    """Where the part before ``marker`` ends in a path, -1 where there is none, None without the marker."""
    if path.startswith(marker):
        return -1
    at = path.find(f"/{marker}")
    return None if at < 0 else at
