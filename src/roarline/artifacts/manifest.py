"""The manifest beside each artifact: what it is, what is in it, how it came to be. Imports no torch."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from roarline.artifacts.files import read_json, write_json
from roarline.artifacts.keys import canonical_json
from roarline.errors import ArtifactError

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"


def companions_folder(name: str) -> str:
    """The folder of files that are read through ``name``: ``maps.shards`` of ``maps.h5``."""
    return f"{Path(name).stem}.shards"


class FileEntry(BaseModel):
    """One file of an artifact; ``content`` is None for a file that renders others, e.g. a page with times in it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int
    sha256: str
    content: str | None


class InputEntry(BaseModel):
    """One artifact that was read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    key: str
    digest: str


class Manifest(BaseModel):
    """``manifest.json``; ``sha256`` is that of all the rest as canonical JSON, empty until it is written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int
    stage: str
    stage_version: int
    key: str
    label: str
    parameters: dict[str, Any]
    inputs: dict[str, InputEntry]
    files: dict[str, FileEntry]
    digest: str
    provenance: dict[str, Any]
    sha256: str = ""

    def write(self, folder: Path) -> None:
        """Write ``manifest.json`` with its own checksum."""
        data = self.model_dump(mode="json", exclude={"sha256"})
        write_json(folder / MANIFEST, data | {"sha256": _checksum(data)})

    @staticmethod
    def read(folder: Path) -> Manifest:
        """Read an artifact's manifest.

        Raises:
            ArtifactError: It is missing, damaged or of a newer schema.
        """
        path = folder / MANIFEST
        data = read_json(path)
        version = data.get("schema_version") if isinstance(data, dict) else None
        if version != SCHEMA_VERSION:
            raise ArtifactError(f"{path}: schema version {version!r}, this roarline reads {SCHEMA_VERSION}")
        rest = {name: value for name, value in data.items() if name != "sha256"}
        if "sha256" in data and data["sha256"] != _checksum(rest):
            raise ArtifactError(
                f"{path}: damaged: its SHA-256 is not the one that it states; delete its folder and run again"
            )
        try:
            return Manifest.model_validate(data)
        except ValidationError as error:
            raise ArtifactError(
                f"{path}: damaged: {error.errors()[0]['msg']}; delete its folder and run again"
            ) from error


def _checksum(rest: dict[str, Any]) -> str:
    return hashlib.sha256(canonical_json(rest).encode()).hexdigest()
