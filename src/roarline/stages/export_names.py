"""How exported files are called, so that other programs find them by the data set's own ids."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

from roarline.data.listing import is_image

_NAME_LENGTH = 120
_PART = re.compile(r"[A-Za-z0-9_()+=~#@ -][A-Za-z0-9._()+=~#@ -]*")


def file_name(sample_id: str, target: int | None = None) -> str:
    """A file name, without suffix, that every system takes: unique for a sample id, and readable where the id is.

    Characters outside ``A-Z a-z 0-9 . _ -`` become ``_``; a name that this changed bears a hash of the id.
    """
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", sample_id).strip("._-")[:_NAME_LENGTH]
    if safe != sample_id or not safe:
        safe = f"{safe}-{hashlib.sha256(sample_id.encode()).hexdigest()[:10]}".lstrip("-")
    return safe if target is None else f"{safe}_class{target}"


def image_id(sample_id: str) -> str:
    """A sample id as the path of an image: itself, folders and all, where it is one, else ``file_name``.

    An id without the suffix of an image gets ``.png``.
    """
    parts = sample_id.split("/")
    whole = all(_PART.fullmatch(part) and len(part) <= _NAME_LENGTH and part == part.strip() for part in parts)
    path = sample_id if whole else file_name(sample_id)
    return path if is_image(path) else f"{path}.png"


def pair_id(sample_id: str, label: int, *, multi_label: bool) -> str:
    """The path of an image in a list that knows one label an image: one for each label, in a folder of its number."""
    return f"{label}/{image_id(sample_id)}" if multi_label else image_id(sample_id)


def stems(ids: Sequence[str]) -> list[str]:
    """File names without folder and suffix, as other projects look them up; ``file_name`` where several are alike."""
    found = [PurePosixPath(one).stem for one in ids]
    times = Counter(found)
    return [stem if times[stem] == 1 else file_name(one) for stem, one in zip(found, ids, strict=True)]
