"""Extraction in shards: the same key and digest as the whole, pieces that end with it, failures that are shown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from roarline.artifacts.files import write_json
from roarline.artifacts.maps import MAPS_FILE, MapsFile
from roarline.artifacts.store import Artifact, Store, Writer
from roarline.errors import ArtifactError
from roarline.execution.commands import _state, gc
from roarline.execution.run_job import run_job
from roarline.execution.shards import in_shards, shards_of, whole_key
from roarline.stages import extract_attribution_maps as stage
from roarline.stages.job import Context, Job
from tests.stages.test_extract_attribution_maps import PARAMETERS, small_parts
from tests.stages.toy_classifier import job_for, toy_classifier, toy_dataset


def extraction(store: Store, **parameters: Any) -> Job:
    inputs = {"dataset": toy_dataset(store), "classifier": toy_classifier(store)}
    return job_for(stage.STAGE, {**PARAMETERS, **parameters}, inputs)


def make(store: Store, jobs: list[Job]) -> list[bool]:
    return [run_job(job, Context(store)) for job in jobs]


def the_maps(store: Store) -> list[Artifact]:
    return [artifact for artifact in store.artifacts() if artifact.manifest.stage == stage.STAGE]


@pytest.mark.parametrize("parameters", [{}, {"method": "random"}, {"limit": 9}, {"target": "every-label"}])
@pytest.mark.parametrize("count", [2, 3, 5])
def test_shards_give_the_key_and_the_digest_of_the_whole(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, parameters: dict[str, Any]
) -> None:
    small_parts(monkeypatch)  # 12 images are three parts of two batches each: of five shards two have no row
    whole = Store(tmp_path / "whole")
    job = extraction(whole, **parameters)
    make(whole, [job])
    jobs = in_shards([extraction(store, **parameters)], count)
    assert len(jobs) == count + 1
    assert jobs[-1].key == job.key
    assert make(store, jobs) == [True] * (count + 1)
    (found,) = the_maps(store)  # nothing is left of the shards
    assert found.manifest.key == job.key
    assert found.digest == the_maps(whole)[0].digest
    assert found.problems() == []
    assert found.manifest.inputs == the_maps(whole)[0].manifest.inputs
    with MapsFile(found.file(MAPS_FILE)) as maps, MapsFile(the_maps(whole)[0].file(MAPS_FILE)) as plain:
        assert maps.sample_ids == plain.sample_ids
        assert (maps.maps(range(len(maps))) == plain.maps(range(len(maps)))).all()


def test_an_empty_split_in_shards(store: Store) -> None:
    make(store, in_shards([extraction(store, split="validation")], 2))
    with MapsFile(the_maps(store)[0].file(MAPS_FILE)) as maps:
        assert len(maps) == 0


def test_each_shard_computes_its_own_rows_only(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    small_parts(monkeypatch)
    first, second, _ = in_shards([extraction(store)], 2)
    make(store, [second])
    with MapsFile(the_maps(store)[0].file(MAPS_FILE)) as maps:
        assert maps.sample_ids == [f"image/{index:04d}" for index in range(4, 12)]
    make(store, [first])
    assert len(the_maps(store)) == 2


def test_provenance_of_the_whole_counts_all_shards(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    small_parts(monkeypatch)
    *shards, join = in_shards([extraction(store)], 3)
    make(store, shards)
    spent = sum(artifact.manifest.provenance["duration_s"] for artifact in the_maps(store))
    make(store, [join])
    provenance = the_maps(store)[0].manifest.provenance
    assert provenance["shards"] == 3
    assert provenance["duration_s"] == pytest.approx(spent)
    assert {"device", "torch", "started", "peak_memory_mb"} <= set(provenance)


def test_the_whole_says_of_its_making_what_its_shards_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """Joining takes a moment on any machine: the device, the time and the memory are those of the shards."""
    said = [
        {"device": "a GPU", "cuda": "13.0", "started": "02", "duration_s": 2.0, "peak_memory_mb": 5.0},
        {"device": "a GPU", "cuda": "13.0", "started": "01", "duration_s": 3.0, "peak_memory_mb": 4.0},
    ]
    monkeypatch.setattr(stage, "join_shards", lambda out, shards: ["maps.shards/0000.h5"])
    for device_memory, expected in (({}, {}), ({"peak_device_memory_mb": 7.0}, {"peak_device_memory_mb": 7.0})):
        writer = Writer(Path(), Path())
        shards: Any = [
            SimpleNamespace(file=Path, manifest=SimpleNamespace(provenance=one | device_memory)) for one in said
        ]
        stage._join(shards, writer)
        assert writer.undigested == {"maps.shards/0000.h5"}
        assert writer.provenance == {
            "shards": 2, "device": "a GPU", "cuda": "13.0", "started": "01", "duration_s": 5.0, "peak_memory_mb": 5.0,
            **expected,
        }  # fmt: skip


def test_a_shard_is_not_made_where_the_whole_exists(store: Store) -> None:
    job = extraction(store)
    make(store, [job])
    assert make(store, in_shards([job], 2)) == [False] * 3
    assert len(the_maps(store)) == 1


def test_a_damaged_shard_is_not_joined(store: Store) -> None:
    *shards, join = in_shards([extraction(store)], 2)
    make(store, shards)
    path = store.path(*join.shards["shard:0001"]) / MAPS_FILE
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="its SHA-256 is not the manifest's"):
        make(store, [join])
    assert not store.exists(join.stage, join.key)
    assert store.exists(*join.shards["shard:0000"])


def test_only_extraction_that_asks_a_network_is_cut(store: Store) -> None:
    job = extraction(store)
    filtered = replace(job, key="f" * 64, parameters={**job.parameters, "filter": {"kind": "blur"}})
    other = replace(job, stage="evaluate-perturbation", key="e" * 64)
    assert in_shards([filtered, other], 4) == [filtered, other]
    assert in_shards([job], 1) == [job]
    keys = [piece.key for piece in in_shards([job], 4)]
    assert len(set(keys)) == 5
    assert {piece.shard_of for piece in shards_of(job, 4)} == {(job.stage, job.key)}
    assert sum(piece.cost for piece in shards_of(job, 4)) == pytest.approx(job.cost)
    assert not {piece.key for piece in shards_of(job, 3)} & set(keys)
    assert not {piece.key for piece in shards_of(replace(job, stage_version=job.stage_version + 1), 4)} & set(keys)


def test_a_failed_or_running_shard_shows_at_the_whole(store: Store) -> None:
    job = extraction(store)
    shard = shards_of(job, 2)[1]
    assert _state(store, job, 2) == ("to do", "")
    store.record_failure(shard.stage, shard.key, "no such layer")
    assert _state(store, job, 2) == ("failed", "no such layer")
    with store.writer(shard.stage, 1, shard.key, shard.label, {}, {}):
        assert _state(store, job, 2) == ("running", "")
        (store.work(shard.stage, shard.key) / "out" / "x").write_text("x")
    make(store, [job])
    assert _state(store, job, 2) == ("done", "")


def test_gc_keeps_the_shards_that_a_kept_experiment_has_yet_to_join(store: Store) -> None:
    kept, other = extraction(store), extraction(store, method="sobel")
    make(store, [*in_shards([kept], 2)[:2], *in_shards([other], 2)[:2]])
    jobs = [{"key": kept.key}, *({"key": key} for _, key in kept.inputs.values())]
    write_json(store.root / "experiments" / "one" / "experiment.json", {"jobs": jobs})
    gc(store.root, yes=True)
    assert {whole_key(artifact.manifest) for artifact in the_maps(store)} == {kept.key}
    assert len(the_maps(store)) == 2
    make(store, [in_shards([kept], 2)[2]])
    make(store, [replace(shards_of(kept, 2)[0], shard_of=None)])  # left by a worker that came too late
    gc(store.root, yes=True)
    assert [artifact.manifest.key for artifact in the_maps(store)] == [kept.key]
    assert {whole_key(artifact.manifest) for artifact in store.artifacts()} == {None}
