"""The artifact store: atomic publish, exclusive writers, verified reads. Imports no torch.

Layout: ``<root>/<stage>/<first 16 of key>/`` is a whole artifact; ``<root>/.work/<stage>/<16>/`` is where one is
being made (``out/`` becomes the artifact, ``parts/`` holds what a later run resumes from); ``<root>/.locks/`` has a
lock for each; ``<root>/.failed/`` the last error of a job; ``<root>/.checked/`` which files were found good, by
size and time.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from roarline.artifacts.digest import combined_digest, content_digest
from roarline.artifacts.files import OUT, WORK, file_sha256, flush, read_json, write_json, writing_to
from roarline.artifacts.keys import artifact_key, short
from roarline.artifacts.manifest import (
    MANIFEST,
    SCHEMA_VERSION,
    FileEntry,
    InputEntry,
    Manifest,
    companions_folder,
)
from roarline.errors import ArtifactError

_ALWAYS_HASH_BELOW = 2**20


class Artifact:
    """A whole artifact on disk."""

    def __init__(self, store: Store, path: Path) -> None:
        self.store, self.path = store, path

    @cached_property
    def manifest(self) -> Manifest:
        """The manifest, read once."""
        return Manifest.read(self.path)

    @property
    def digest(self) -> str:
        """Digest of the logical content."""
        return self.manifest.digest

    def file(self, name: str) -> Path:
        """Path of one file, after it and those read through it were checked against the manifest.

        A large file is hashed once for each change.

        Raises:
            ArtifactError: The file is not listed, missing, truncated or changed.
        """
        entry = self.manifest.files.get(name)
        if entry is None:
            raise ArtifactError(f"{self.path}: has no file {name!r} (it has {', '.join(sorted(self.manifest.files))})")
        companions = f"{companions_folder(name)}/"
        read = {name: entry} | {other: e for other, e in self.manifest.files.items() if other.startswith(companions)}
        for other, expected in read.items():
            problem = self._problem(self.path / other, expected, use_stamps=True)
            if problem:
                raise ArtifactError(
                    f"{self.path / other}: {problem}; delete {self.path} and run again: only what depends on it is "
                    "made anew"
                )
        return self.path / name

    def problems(self) -> list[str]:
        """Re-hash everything; an empty list means the artifact is good."""
        try:
            manifest = Manifest.read(self.path)
        except ArtifactError as error:
            return [str(error)]
        found = []
        for name, entry in sorted(manifest.files.items()):
            problem = self._problem(self.path / name, entry, use_stamps=False)
            if problem:
                found.append(f"{self.path / name}: {problem}")
        listed = {*manifest.files, MANIFEST}
        present = {str(p.relative_to(self.path)) for p in self.path.rglob("*") if p.is_file()}
        found += [f"{self.path / name}: not in the manifest" for name in sorted(present - listed)]
        digests = {name: entry.content for name, entry in manifest.files.items() if entry.content is not None}
        if combined_digest(digests) != manifest.digest:
            found.append(f"{self.path / MANIFEST}: the digest doesn't follow from the files' digests")
        recipe = artifact_key(
            manifest.stage,
            manifest.stage_version,
            manifest.parameters,
            {role: entry.key for role, entry in manifest.inputs.items()},
        )
        if manifest.key != recipe or not manifest.key.startswith(self.path.name):
            found.append(f"{self.path / MANIFEST}: its key doesn't follow from its recipe, or is not the folder's name")
        return found + self._strange_inputs(manifest)

    def _strange_inputs(self, manifest: Manifest) -> list[str]:
        """Inputs that lie in the store with another content than the one that was read."""
        found = []
        for role, entry in manifest.inputs.items():
            if not self.store.exists(entry.stage, entry.key):
                continue
            with contextlib.suppress(ArtifactError):  # a damaged input is a problem of its own
                present = self.store.open(entry.stage, entry.key)
                if present.digest != entry.digest:
                    found.append(
                        f"{self.path / MANIFEST}: was made from another {role} than {present.path} holds now; "
                        "delete it and run again"
                    )
        return found

    def _problem(self, path: Path, entry: FileEntry, *, use_stamps: bool) -> str | None:
        try:
            stat = path.stat()
        except FileNotFoundError:
            return "missing"
        if stat.st_size != entry.size:
            return f"has {stat.st_size} bytes, the manifest says {entry.size}: truncated or changed"
        stamp = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, entry.sha256]
        name = ".".join(path.relative_to(self.path).parts)
        stamps = self.store.root / ".checked" / self.path.parent.name / f"{self.path.name}.{name}.json"
        if use_stamps and stat.st_size >= _ALWAYS_HASH_BELOW and stamps.exists() and read_json(stamps) == stamp:
            return None
        if file_sha256(path) != entry.sha256:
            return "its SHA-256 is not the manifest's: damaged or changed"
        if use_stamps and stat.st_size >= _ALWAYS_HASH_BELOW:
            with contextlib.suppress(ArtifactError, OSError):  # a read-only store works, only slower
                write_json(stamps, stamp)
        return None


@dataclass
class Writer:
    """The right to make one artifact.

    Attributes:
        out: Folder whose files become the artifact.
        parts: Folder for closed, renamed pieces that an interrupted run leaves for the next; dropped on publish.
        undigested: Names of files in ``out`` that render others and stay out of the content digest.
    """

    out: Path
    parts: Path
    undigested: set[str] = field(default_factory=set)
    provenance: dict[str, Any] = field(default_factory=dict)


class Store:
    """A folder of artifacts."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def path(self, stage: str, key: str) -> Path:
        """Where an artifact lies, or will lie."""
        return self.root / stage / short(key)

    def exists(self, stage: str, key: str) -> bool:
        """True where the artifact is whole."""
        return (self.path(stage, key) / MANIFEST).is_file()

    def open(self, stage: str, key: str) -> Artifact:
        """An artifact by stage and key.

        Raises:
            ArtifactError: There is none, or a different recipe lies under the same short key.
        """
        artifact = Artifact(self, self.path(stage, key))
        if not self.exists(stage, key):
            raise ArtifactError(
                f"{artifact.path}: there is no such artifact; run stage {stage} first (`roarline run` does all)"
            )
        if artifact.manifest.key != key:
            raise ArtifactError(f"{artifact.path}: holds key {artifact.manifest.key}, expected {key}")
        return artifact

    def artifacts(self) -> Iterator[Artifact]:
        """Every whole artifact, by stage and key."""
        if self.root.is_dir():
            for manifest in sorted(self.root.glob(f"[!.]*/*/{MANIFEST}")):
                if manifest.parent.parent.name != "experiments":
                    yield Artifact(self, manifest.parent)

    def drop(self, stage: str, key: str) -> None:
        """Delete an artifact: at no instant is half of it taken for a whole one."""
        (self.path(stage, key) / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(self.path(stage, key), ignore_errors=True)

    def work(self, stage: str, key: str) -> Path:
        """Where an artifact is being made."""
        return self.root / WORK / stage / short(key)

    def is_running(self, stage: str, key: str) -> bool:
        """True where some process holds the right to make this artifact."""
        path = self.lock_path(stage, key)
        if not path.exists():
            return False
        try:
            with FileLock(path, timeout=0):
                return False
        except Timeout:
            return True
        except OSError:  # a read-only store: nobody can be writing to it from here
            return False

    def failure(self, stage: str, key: str) -> str | None:
        """The message of the job's last failure, if it was not made since."""
        path = self._failure_path(stage, key)
        return read_json(path)["message"] if path.exists() and not self.exists(stage, key) else None

    def record_failure(self, stage: str, key: str, message: str) -> None:
        """Keep why a job failed, for ``roarline status``."""
        with contextlib.suppress(ArtifactError, OSError):  # the failure itself may be a full disk
            write_json(
                self._failure_path(stage, key),
                {"message": message, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z")},
            )

    @contextlib.contextmanager
    def writer(
        self,
        stage: str,
        stage_version: int,
        key: str,
        label: str,
        parameters: Mapping[str, Any],
        inputs: Mapping[str, Artifact],
        *,
        on_wait: Callable[[], None] | None = None,
    ) -> Iterator[Writer | None]:
        """Hold the right to make one artifact; on leaving without an error, publish it.

        Yields:
            None where the artifact exists already, perhaps because another worker made it while this one waited.

        Raises:
            ArtifactError: The store can't be written, or the disk is full.
        """
        final, work = self.path(stage, key), self.work(stage, key)
        if self.exists(stage, key):
            yield None
            return
        with self._lock(stage, key, on_wait):
            if self.exists(stage, key):
                yield None
                return
            with writing_to(work):
                shutil.rmtree(work / OUT, ignore_errors=True)
                (work / OUT).mkdir(parents=True)
                (work / "parts").mkdir(exist_ok=True)
            writer = Writer(work / OUT, work / "parts")
            with writing_to(work):
                yield writer
            with writing_to(final, work):
                self._publish(writer, final, stage, stage_version, key, label, parameters, inputs)
                shutil.rmtree(work, ignore_errors=True)
                self._failure_path(stage, key).unlink(missing_ok=True)

    def _publish(
        self, writer: Writer, final: Path, stage: str, stage_version: int, key: str, label: str,
        parameters: Mapping[str, Any], inputs: Mapping[str, Artifact],
    ) -> None:  # fmt: skip
        files = {}
        for path in sorted(p for p in writer.out.rglob("*") if p.is_file()):
            name = path.relative_to(writer.out).as_posix()
            flush(path)
            content = None if name in writer.undigested else content_digest(path)
            files[name] = FileEntry(size=path.stat().st_size, sha256=file_sha256(path), content=content)
        if not files:
            raise ArtifactError(f"stage {stage} wrote no file into {writer.out}")
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            stage=stage,
            stage_version=stage_version,
            key=key,
            label=label,
            parameters=dict(parameters),
            inputs={
                role: InputEntry(stage=a.manifest.stage, key=a.manifest.key, digest=a.digest)
                for role, a in sorted(inputs.items())
            },
            files=files,
            digest=combined_digest({name: entry.content for name, entry in files.items() if entry.content is not None}),
            provenance=writer.provenance,
        )
        manifest.write(writer.out)
        flush(writer.out / MANIFEST)
        final.parent.mkdir(parents=True, exist_ok=True)
        if final.exists():  # a folder without a manifest: somebody deleted part of an artifact by hand
            shutil.rmtree(final)
        flush(writer.out)
        writer.out.replace(final)
        flush(final.parent)

    @contextlib.contextmanager
    def _lock(self, stage: str, key: str, on_wait: Callable[[], None] | None) -> Iterator[None]:
        path = self.lock_path(stage, key)
        with writing_to(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                if on_wait:
                    on_wait()
                lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def lock_path(self, stage: str, key: str) -> Path:
        """The file whose lock is the right to make one artifact."""
        return self.root / ".locks" / f"{stage}-{short(key)}.lock"

    def _failure_path(self, stage: str, key: str) -> Path:
        return self.root / ".failed" / f"{stage}-{short(key)}.json"
