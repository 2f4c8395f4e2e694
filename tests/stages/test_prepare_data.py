"""prepare-data: packing, indexing, splits, limits, resumption, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from roarline.artifacts.dataset import DatasetFile
from roarline.artifacts.digest import content_digest
from roarline.data import pixels, staging
from roarline.data.loading import ImageReader
from roarline.data.raw import RawDataset
from roarline.errors import ArtifactError, DataError
from tests.conftest import REPOSITORY
from tests.data.builders import encoded, tree, write_folder, write_tar
from tests.data.preparing import prepare

SHARED = REPOSITORY.parent / "shared" / "data"
SPLITS = ("train", "validation", "test")


def _ids(dataset: DatasetFile, split: str) -> list[str]:
    return [dataset.sample_ids[row] for row in dataset.rows(split)]


def drawn(root: Path | None, params: dict[str, Any], seed: int) -> RawDataset:
    """A user's own data set, named by dotted path: n grey images, every third for testing."""
    count = params["n"]
    labels = np.arange(count) % 2
    return RawDataset(
        name="mine",
        class_names=["even", "odd"],
        sample_ids=[f"{row}" for row in range(count)],
        splits=["test" if row % 3 == 2 else "train" for row in range(count)],
        labels=np.stack([1 - labels, labels], axis=1) if params.get("multi_label") else labels,
        multi_label=bool(params.get("multi_label")),
        images=np.arange(count * 20, dtype=np.int64).astype(np.uint8).reshape(count, 1, 4, 5),
        boxes=np.asarray([[row, row % 2, 1, 0, 2, 3] for row in range(count)]),
        segmentation=np.full((count, 4, 5), 255, dtype=np.uint8),
    )


def nothing(root: Path | None, params: dict[str, Any], seed: int) -> str:
    """A reader that gives something else."""
    return "no data set"


def test_digits_from_end_to_end(tmp_path: Path) -> None:
    path = prepare(tmp_path, "digits", params={"test_fraction": 0.25}, validation_fraction=0.2)
    with DatasetFile(path) as dataset:
        assert dataset.packed
        assert dataset.image_size == (8, 8)
        assert sum(len(dataset.rows(split)) for split in SPLITS) == 1797
        assert len(dataset.rows("validation")) == round(0.2 * (1797 - len(dataset.rows("test"))))
        train = dataset.pixels(dataset.rows("train")).astype(np.float64) / 255
        assert dataset.mean == pytest.approx([train.mean()], abs=1e-14)
        assert dataset.std == pytest.approx([train.std()], abs=1e-14)


def test_the_training_mean_is_not_cut_to_8_bits(tmp_path: Path) -> None:
    """The original ROAR fills training images with the mean cut to whole grey levels, test images with it uncut."""
    with DatasetFile(prepare(tmp_path, "digits")) as dataset:
        level = dataset.mean[0] * 255
        assert 0.01 < level % 1 < 0.99


def test_shapes_keep_their_ground_truth(tmp_path: Path) -> None:
    params = {"train": 30, "test": 10}
    with DatasetFile(
        prepare(tmp_path, "shapes", params=params, limit={"train": 12, "validation": 1, "test": 5})
    ) as dataset:
        assert (len(dataset), dataset.multi_label, dataset.labels.shape) == (17, True, (17, 6))
        masks = dataset.segmentation(range(17))
        for row in range(17):
            of_row = dataset.boxes[dataset.boxes[:, 0] == row]
            assert set(of_row[:, 1].tolist()) == set(np.flatnonzero(dataset.labels[row]).tolist())
            assert set(np.unique(masks[row]).tolist()) - {0} == {int(label) + 1 for label in of_row[:, 1]}


def test_the_splits_are_disjoint_and_the_validation_split_stratified(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", tree(count=12))
    with DatasetFile(prepare(tmp_path / "a", "image_folder", root, validation_fraction=0.25)) as dataset:
        assert [len(dataset.rows(split)) for split in SPLITS] == [18, 6, 24]
        assert np.bincount(dataset.labels[dataset.rows("validation")]).tolist() == [3, 3]
        assert all(sample_id.startswith("train/") for sample_id in _ids(dataset, "validation"))


def test_a_validation_split_of_its_own_is_kept(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", tree(("train", "val", "test"), count=3))
    with DatasetFile(prepare(tmp_path / "a", "image_folder", root, validation_fraction=0.25)) as dataset:
        assert all(sample_id.startswith("val/") for sample_id in _ids(dataset, "validation"))
        assert [len(dataset.rows(split)) for split in SPLITS] == [6, 6, 6]


def test_limits_are_stratified_draws_from_the_seed(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", tree(count=12))
    limit = {"train": 8, "validation": 4, "test": 6}
    chosen = {}
    for seed in (0, 1):
        path = prepare(tmp_path / f"{seed}", "image_folder", root, validation_fraction=0.25, limit=limit, seed=seed)
        with DatasetFile(path) as dataset:
            assert {split: len(dataset.rows(split)) for split in SPLITS} == limit
            for split in SPLITS:
                assert np.ptp(np.bincount(dataset.labels[dataset.rows(split)])) == 0
            train = dataset.pixels(dataset.rows("train")) / 255
            assert dataset.mean == pytest.approx(train.mean(axis=(0, 2, 3)), abs=1e-14)
            chosen[seed] = dataset.sample_ids
    assert chosen[0] != chosen[1]


@pytest.mark.parametrize("pack_limit_mb", [1, 0])
def test_neither_threads_nor_place_nor_file_order_change_the_digest(tmp_path: Path, pack_limit_mb: int) -> None:
    files = tree(count=20)
    digests = set()
    for number, threads in enumerate((1, 4)):
        root = write_folder(tmp_path / f"data{number}", dict(reversed(files.items())) if number else files)
        path = prepare(
            tmp_path / f"{number}",
            "image_folder",
            root,
            threads=threads,
            pack_limit_mb=pack_limit_mb,
            validation_fraction=0.5,
        )
        digests.add(content_digest(path))
    if pack_limit_mb:  # a tar's members lie at places of their own, so that only packed it is the same
        path = prepare(
            tmp_path / "tar", "image_folder", write_tar(tmp_path / "x.tar.xz", files, "w:xz"), validation_fraction=0.5
        )
        digests.add(content_digest(path))
    assert len(digests) == 1


class _KilledError(Exception):
    pass


@pytest.mark.parametrize("pack_limit_mb", [1, 0])
def test_a_killed_run_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack_limit_mb: int) -> None:
    monkeypatch.setattr(staging, "_CHUNK_ROWS", 16)
    root = write_folder(tmp_path / "data", tree(count=40))

    def kill(done: int, total: int, unit: str) -> None:
        if done >= 100:
            raise _KilledError

    settings = {"pack_limit_mb": pack_limit_mb, "validation_fraction": 0.3}
    with pytest.raises(_KilledError):
        prepare(tmp_path / "killed", "image_folder", root, progress=kill, **settings)
    assert not (tmp_path / "killed" / "out" / "dataset.h5").exists()
    decoded = []
    decode = pixels.decode
    monkeypatch.setattr(pixels, "decode", lambda data, name: decoded.append(name) or decode(data, name))
    again = prepare(tmp_path / "killed", "image_folder", root, **settings)
    assert 0 < len(decoded) < 80
    undisturbed = prepare(tmp_path / "undisturbed", "image_folder", root, **settings)
    assert content_digest(again) == content_digest(undisturbed)


def test_resized_images_take_their_boxes_and_masks_along(tmp_path: Path) -> None:
    with DatasetFile(prepare(tmp_path, f"{__name__}.drawn", params={"n": 6}, resize_px=8, crop_px=8)) as dataset:
        assert dataset.image_size == (8, 8)
        assert dataset.boxes.tolist() == [[row, row % 2, 1, 0, 4, 7] for row in range(6)]
        assert dataset.segmentation([0]).shape == (1, 8, 8)
        assert (dataset.segmentation([0]) == 255).all()


def test_a_users_own_data_set_may_have_several_labels(tmp_path: Path) -> None:
    path = prepare(tmp_path, f"{__name__}.drawn", params={"n": 30, "multi_label": True}, validation_fraction=0.5)
    with DatasetFile(path) as dataset:
        assert dataset.labels[dataset.rows("validation")].sum(axis=0).tolist() == [5, 5]


def test_without_training_images_there_are_no_statistics(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", tree(("test",)))
    with DatasetFile(prepare(tmp_path / "a", "image_folder", root, validation_fraction=0.5)) as dataset:
        assert dataset.mean is None
        assert dataset.std is None


def test_a_reader_that_gives_something_else_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing': expected a roarline\.data\.raw\.RawDataset, got str"):
        prepare(tmp_path, f"{__name__}.nothing")


def test_without_test_images_it_stops(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'mine': no image is in the test split, on which everything is measured"):
        prepare(tmp_path, f"{__name__}.drawn", params={"n": 2})


def test_a_class_too_small_to_be_split_is_named(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", {**tree(count=4), "train/emu/1.png": encoded(), "test/emu/1.png": encoded()})
    with pytest.raises(DataError, match=r"class 'emu': 1 image where 2 are needed .* data\.validation_fraction"):
        prepare(tmp_path / "a", "image_folder", root, validation_fraction=0.25)


def test_an_unreadable_jpeg_is_named_and_nothing_is_made(tmp_path: Path) -> None:
    files = {path.replace(".png", ".jpg"): encoded(seed, kind="JPEG") for seed, path in enumerate(tree(count=4))}
    files["train/dog/2.jpg"] = files["train/dog/2.jpg"][:200]
    with pytest.raises(DataError, match=r"train/dog/2\.jpg: damaged or truncated .*; replace or delete it"):
        prepare(tmp_path / "a", "image_folder", write_folder(tmp_path / "data", files))
    assert not (tmp_path / "a" / "out" / "dataset.h5").exists()


@pytest.mark.parametrize(
    ("kind", "way"), [("drawn", "use fewer or smaller images"), ("w:gz", "unpack the tar into a folder first")]
)
def test_what_must_be_packed_and_is_too_large_says_what_to_do(tmp_path: Path, kind: str, way: str) -> None:
    with pytest.raises(DataError, match=rf"images take 1 MB, more than data\.pack_limit_mb 0; raise it to 1, .*{way}"):
        if kind == "drawn":
            prepare(tmp_path, f"{__name__}.drawn", params={"n": 6}, pack_limit_mb=0)
        else:
            prepare(tmp_path, "image_folder", write_tar(tmp_path / "x.tar.gz", tree(), kind), pack_limit_mb=0)


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: object, array: np.ndarray) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(staging, "_write_all", full)
    with pytest.raises(ArtifactError, match=r"pixels\.u8: the disk is full"):
        prepare(tmp_path, "digits")


def test_the_file_can_be_read_by_any_hdf5_reader(tmp_path: Path) -> None:
    with h5py.File(prepare(tmp_path, f"{__name__}.drawn", params={"n": 6})) as file:
        assert file["images"].shape == (6, 1, 4, 5)
        assert file["images"][3].ravel().tolist() == [number % 256 for number in range(60, 80)]
        assert file["split"][:].tolist() == [0, 0, 2, 0, 0, 2]
        assert list(file.attrs["image_size"]) == [4, 5]


@pytest.mark.data
@pytest.mark.skipif(not (SHARED / "imagenet-samples.tar").exists(), reason="needs ../shared/data/imagenet-samples.tar")
def test_real_images_packed_and_indexed_are_the_same(tmp_path: Path) -> None:
    root = SHARED / "imagenet-samples.tar"
    settings: dict[str, Any] = {
        "resize_px": 256,
        "crop_px": 224,
        "limit": {"train": None, "validation": None, "test": 40},
    }
    packed = DatasetFile(prepare(tmp_path / "packed", "imagenet", root, **settings))
    indexed = DatasetFile(prepare(tmp_path / "indexed", "imagenet", root, pack_limit_mb=1, **settings))
    with packed, indexed, ImageReader(packed, None) as one, ImageReader(indexed, root) as other:
        assert (packed.packed, indexed.packed, len(packed)) == (True, False, 40)
        rows = np.arange(40)
        assert bool((one.read(rows) == other.read(rows)).all())


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif(
    not (SHARED / "tiny-imagenet-20.tar.xz").exists(), reason="needs ../shared/data/tiny-imagenet-20.tar.xz"
)
def test_a_compressed_tar_of_real_images_is_streamed(tmp_path: Path) -> None:
    limit = {"train": 200, "validation": 60, "test": 100}
    root = SHARED / "tiny-imagenet-20.tar.xz"
    with DatasetFile(prepare(tmp_path, "image_folder", root, limit=limit, validation_fraction=0.125)) as dataset:
        assert dataset.image_size == (64, 64)
        assert np.bincount(dataset.labels[dataset.rows("train")]).tolist() == [10] * 20
        assert dataset.mean == pytest.approx([0.48, 0.45, 0.40], abs=0.05)  # natural images


def test_subsets_of_so_many_images_a_class(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "raw", tree(("train", "test"), ("cat", "dog", "emu"), 9))
    seen = {}
    for count in (2, 3):
        path = prepare(
            tmp_path / str(count), "image_folder", root, limit={"train": 4, "validation": None, "test": count},
            limit_per_class=True, validation_per_class=3,
        )  # fmt: skip
        with DatasetFile(path) as dataset:
            sizes = {split: np.bincount(dataset.labels[dataset.rows(split)]).tolist() for split in SPLITS}
            assert sizes == {"train": [4, 4, 4], "validation": [3, 3, 3], "test": [count] * 3}
            assert not {*_ids(dataset, "train")} & {*_ids(dataset, "validation")}
            seen[count] = {*_ids(dataset, "test")}
    assert seen[2] < seen[3]


def test_a_class_without_images_left_to_train_on_is_named(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "raw", tree(count=3))
    with pytest.raises(DataError, match="validation_per_class 3 leaves no training image of 2 classes: cat, dog"):
        prepare(tmp_path, "image_folder", root, validation_per_class=3)


def test_held_out_images_may_be_annotated_ones_alone(tmp_path: Path) -> None:
    # As saliency_investigation: so many of the annotated images of each class, fewer where there are fewer.
    files = tree(("train", "test"), ("cat", "dog", "emu"), 6)
    names = [name for name in files if name.startswith("train/")]
    annotated = [name for name in names if not name.startswith("train/emu")]
    annotated = [name for name in annotated if name.startswith("train/cat")][:4] + annotated[-1:]
    table = "file,x0,y0,x1,y1\n" + "".join(f"{name},0,0,1,1\n" for name in annotated)
    root = write_folder(tmp_path / "raw", files | {"boxes.csv": table.encode()})
    words = {"params": {"boxes": "boxes.csv"}, "validation_per_class": 3}
    with DatasetFile(prepare(tmp_path / "a", "image_folder", root, **words, validation_annotated=True)) as dataset:
        held = _ids(dataset, "validation")
        assert len(held) == 4  # 3 cats, 1 dog, no emu
        assert set(held) <= set(annotated)
        assert len(dataset.rows("train")) == 14
    with DatasetFile(prepare(tmp_path / "b", "image_folder", root, **words)) as dataset:
        assert len(dataset.rows("validation")) == 9
    with pytest.raises(DataError, match="no training image has a box"):
        prepare(tmp_path / "c", "image_folder", root, validation_per_class=3, validation_annotated=True)
