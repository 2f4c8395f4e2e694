"""The store: an artifact exists if and only if it is whole; one writer; damage is found and named."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from roarline.artifacts.files import atomic_path, write_json
from roarline.artifacts.keys import artifact_key
from roarline.artifacts.manifest import MANIFEST
from roarline.artifacts.store import Artifact, Store
from roarline.errors import ArtifactError

KEY = artifact_key("stage", 1, {"a": 1}, {})


def publish(store: Store, value: Any = 1, key: str = KEY) -> Artifact:
    with store.writer("stage", 1, key, "label", {"a": 1}, {}) as writer:
        assert writer is not None
        write_json(writer.out / "value.json", {"value": value})
        (writer.out / "page.html").write_text(str(time.time()))
        writer.undigested.add("page.html")
    return store.open("stage", key)


def test_published_artifact_has_a_manifest_that_verifies(store: Store) -> None:
    artifact = publish(store)
    assert artifact.problems() == []
    assert artifact.manifest.key == KEY
    assert set(artifact.manifest.files) == {"value.json", "page.html"}
    assert artifact.file("value.json").is_file()
    assert not store.work("stage", KEY).exists()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc to tell which file was flushed")
def test_everything_is_flushed_once_before_it_is_published(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[Path] = []
    real = os.fsync

    def watched(handle: int) -> None:
        flushed.append(Path(f"/proc/self/fd/{handle}").readlink())
        real(handle)

    monkeypatch.setattr(os, "fsync", watched)
    artifact = publish(store)
    out = store.work("stage", KEY) / "out"
    assert sorted(path.name for path in flushed if path.parent == out) == [MANIFEST, "page.html", "value.json"]
    assert flushed[-2:] == [out, artifact.path.parent]  # its folder last, then the rename
    flushed.clear()
    write_json(store.work("stage", KEY) / "parts" / "0.json", 1)  # what a later run resumes from can't wait
    assert len(flushed) == 2


def test_digest_covers_content_not_times_nor_rendered_files(store: Store, tmp_path: Path) -> None:
    first, second = publish(store), publish(Store(tmp_path / "other"))
    assert first.path.joinpath("page.html").read_text() != second.path.joinpath("page.html").read_text()
    assert first.digest == second.digest
    assert publish(Store(tmp_path / "third"), value=2).digest != first.digest


def test_an_error_while_writing_leaves_no_artifact_but_keeps_the_parts(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.writer("stage", 1, KEY, "l", {}, {}) as writer:
        assert writer is not None
        (writer.out / "half").write_text("half")
        (writer.parts / "part-0").write_text("whole")
        raise ZeroDivisionError
    assert not store.exists("stage", KEY)
    with store.writer("stage", 1, KEY, "l", {}, {}) as writer:
        assert writer is not None
        assert not (writer.out / "half").exists()
        assert (writer.parts / "part-0").read_text() == "whole"
        (writer.out / "whole").write_text("whole")
    assert set(store.open("stage", KEY).manifest.files) == {"whole"}


def test_existing_artifact_is_not_made_again(store: Store) -> None:
    publish(store)
    with store.writer("stage", 1, KEY, "l", {}, {}) as writer:
        assert writer is None


@pytest.mark.parametrize("where", [0, -1, 7])
def test_flipped_byte_is_found_by_reader_and_by_verify(store: Store, where: int) -> None:
    artifact = publish(store)
    path = artifact.path / "value.json"
    data = bytearray(path.read_bytes())
    data[where] ^= 1
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match=r"value\.json.*SHA-256"):
        store.open("stage", KEY).file("value.json")
    assert any("value.json" in problem for problem in artifact.problems())


def test_flipped_byte_in_a_large_file_is_found_after_it_was_found_good(store: Store) -> None:
    with store.writer("stage", 1, KEY, "l", {}, {}) as writer:
        assert writer is not None
        (writer.out / "large.bin").write_bytes(os.urandom(2**21))
    path = store.open("stage", KEY).file("large.bin")
    assert store.open("stage", KEY).file("large.bin") == path  # by its stamp now
    data = bytearray(path.read_bytes())
    data[2**20] ^= 1
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match="SHA-256"):
        store.open("stage", KEY).file("large.bin")


def test_large_file_with_its_times_put_back_is_still_found_by_verify(store: Store) -> None:
    with store.writer("stage", 1, KEY, "l", {}, {}) as writer:
        assert writer is not None
        (writer.out / "large.bin").write_bytes(bytes(2**21))
    artifact = store.open("stage", KEY)
    path = artifact.file("large.bin")
    stat = path.stat()
    path.write_bytes(bytes(2**20) + b"x" + bytes(2**20 - 1))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert any("large.bin" in problem for problem in artifact.problems())


def test_truncated_missing_and_foreign_files_are_named(store: Store) -> None:
    artifact = publish(store)
    (artifact.path / "value.json").write_text("{")
    (artifact.path / "page.html").unlink()
    (artifact.path / "stranger").write_text("?")
    said = "\n".join(artifact.problems())
    assert "value.json: has 1 bytes" in said
    assert "page.html: missing" in said
    assert "stranger: not in the manifest" in said


def test_damaged_manifest_is_an_artifact_error_that_names_it(store: Store) -> None:
    artifact = publish(store)
    for text in ("", "{", "[]", '{"schema_version": 1}', '{"schema_version": 99}'):
        (artifact.path / MANIFEST).write_text(text)
        with pytest.raises(ArtifactError, match="manifest"):
            _ = store.open("stage", KEY).manifest
        assert artifact.problems()


def test_a_changed_digest_in_the_manifest_is_found(store: Store) -> None:
    artifact = publish(store)
    text = (artifact.path / MANIFEST).read_text()
    (artifact.path / MANIFEST).write_text(text.replace(artifact.digest, "0" * 64))
    assert any("digest" in problem for problem in Artifact(store, artifact.path).problems())


def test_missing_artifact_says_which_stage_to_run(store: Store) -> None:
    with pytest.raises(ArtifactError, match="run stage stage first"):
        store.open("stage", KEY)


def _race(root: Path, queue: Any) -> None:
    store = Store(root)
    with store.writer("stage", 1, KEY, "l", {"a": 1}, {}) as writer:
        if writer is not None:
            time.sleep(0.2)
            (writer.out / "value").write_text("same")
    queue.put(writer is not None)


def test_workers_that_race_for_one_key_end_with_one_artifact(store: Store) -> None:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    processes = [context.Process(target=_race, args=(store.root, queue)) for _ in range(4)]
    for process in processes:
        process.start()
    made = [queue.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert sorted(made) == [False, False, False, True]
    assert store.open("stage", KEY).problems() == []


def _hold(root: Path, queue: Any) -> None:
    with Store(root).writer("stage", 1, KEY, "l", {}, {}) as writer:
        assert writer is not None
        (writer.out / "half").write_text("half")
        queue.put(True)
        time.sleep(60)


def test_killed_writer_leaves_nothing_that_passes_for_a_result(store: Store) -> None:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_hold, args=(store.root, queue))
    process.start()
    queue.get(timeout=60)
    assert store.is_running("stage", KEY)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not store.is_running("stage", KEY)
    assert not store.exists("stage", KEY)
    assert list(store.artifacts()) == []
    assert publish(store).problems() == []


def test_failures_are_kept_until_the_artifact_is_made(store: Store) -> None:
    store.record_failure("stage", KEY, "no luck")
    assert store.failure("stage", KEY) == "no luck"
    publish(store)
    assert store.failure("stage", KEY) is None


def test_atomic_path_leaves_the_old_file_where_writing_fails(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    with pytest.raises(ValueError, match="stop"), atomic_path(target) as partial:
        partial.write_text("new")
        raise ValueError("stop")
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        RuntimeError("Can't decrement id ref count (unable to close file, errno = 28, error message = '...')"),
        Exception("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
    ids=["os", "hdf5", "safetensors"],
)
def test_full_disk_is_one_clear_message_whoever_says_it(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(ArtifactError, match="disk is full"), atomic_path(tmp_path / "file"):
        raise error


def test_hdf5_that_can_not_be_read_is_named(store: Store) -> None:
    with pytest.raises(ArtifactError, match=r"maps\.h5.*damaged"), store.writer("stage", 1, KEY, "l", {}, {}) as writer:
        assert writer is not None
        with h5py.File(writer.out / "maps.h5", "w") as file:
            file["a"] = np.zeros(10000)
        data = (writer.out / "maps.h5").read_bytes()
        (writer.out / "maps.h5").write_bytes(data[:500])
    assert not store.exists("stage", KEY)


@pytest.mark.parametrize(
    ("old", "new"),
    [('"label": "label"', '"label": "lapel"'), ('"a": 1', '"a": 2'), ('"stage_version": 1', '"stage_version": 2')],
)
def test_a_changed_word_of_the_manifest_is_found(store: Store, old: str, new: str) -> None:
    path = publish(store).path / MANIFEST
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    (problem,) = Artifact(store, path.parent).problems()
    assert "SHA-256" in problem
    with pytest.raises(ArtifactError, match="SHA-256"):
        _ = store.open("stage", KEY).digest


def test_a_file_elsewhere_that_a_stage_can_not_read_is_not_blamed_on_the_store(store: Store, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="weights"), store.writer("stage", 1, KEY, "l", {}, {}):
        (tmp_path / "elsewhere" / "weights.pt").read_bytes()
    with (
        pytest.raises(ArtifactError, match="can't write here"),
        store.writer("stage", 1, KEY, "l", {}, {}) as writer,
    ):
        assert writer is not None
        (writer.out / "no such folder" / "file").write_text("")


def test_a_key_that_does_not_follow_from_the_recipe_is_found(store: Store) -> None:
    with store.writer("stage", 1, KEY, "label", {"a": 2}, {}) as writer:
        assert writer is not None
        write_json(writer.out / "value.json", 1)
    (problem,) = store.open("stage", KEY).problems()
    assert "recipe" in problem


def test_an_artifact_of_an_input_that_was_made_anew_is_found(store: Store) -> None:
    source = publish(store)
    key = artifact_key("next", 1, {}, {"source": KEY})
    with store.writer("next", 1, key, "label", {}, {"source": source}) as writer:
        assert writer is not None
        write_json(writer.out / "value.json", 1)
    assert store.open("next", key).problems() == []
    shutil.rmtree(source.path)
    assert store.open("next", key).problems() == []  # `gc` may have dropped it
    publish(store, value=2)
    (problem,) = store.open("next", key).problems()
    assert "another source" in problem


def test_a_store_that_is_no_folder_is_one_clear_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ArtifactError, match=r"runtime\.artifacts"),
        Store(tmp_path / "file").writer("stage", 1, KEY, "l", {}, {}),
    ):
        pass
    with (
        pytest.raises(ArtifactError, match=r"runtime\.artifacts"),
        Store("/proc/none").writer("s", 1, KEY, "l", {}, {}),
    ):
        pass


def _publish_shards(store: Store) -> Artifact:
    """An artifact whose ``maps.txt`` is read through another file."""
    with store.writer("stage", 1, KEY, "label", {"a": 1}, {}) as writer:
        assert writer is not None
        (writer.out / "maps.shards").mkdir()
        for name in ("maps.txt", "other.txt", "maps.shards/0000.txt"):
            (writer.out / name).write_text(name * 200_000)
        writer.undigested.add("maps.shards/0000.txt")
    return store.open("stage", KEY)


def test_a_file_is_checked_with_those_that_are_read_through_it(store: Store) -> None:
    artifact = _publish_shards(store)
    shard = artifact.path / "maps.shards" / "0000.txt"
    assert artifact.problems() == []
    for _ in range(2):  # the second time by its stamp
        assert artifact.file("maps.txt") == artifact.path / "maps.txt"
    content = bytearray(shard.read_bytes())
    content[7] ^= 1
    shard.write_bytes(content)
    assert artifact.file("other.txt").is_file()
    with pytest.raises(ArtifactError, match=r"maps\.shards/0000\.txt: its SHA-256"):
        artifact.file("maps.txt")
    assert [problem for problem in artifact.problems() if "maps.shards/0000.txt" in problem]
    shard.unlink()
    with pytest.raises(ArtifactError, match=r"maps\.shards/0000\.txt: missing"):
        artifact.file("maps.txt")


def test_a_dropped_artifact_is_gone(store: Store) -> None:
    artifact = publish(store)
    store.drop("stage", KEY)
    assert not artifact.path.exists()
    store.drop("stage", KEY)  # by another worker, already
