"""Splits: the same inputs whichever way they reach the loop."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from roarline.artifacts.dataset import DATASET_FILE, DatasetFile
from roarline.data.loading import ImageReader, normalise
from roarline.errors import DataError
from roarline.stages import splits
from roarline.stages.evaluate_roar import _Removal
from roarline.stages.splits import Normalization, SplitImages, normalization_of, split_images
from roarline.training.batches import ResidentSplit, StreamedSplit, in_order
from tests.stages.toy_retraining import SIDE, new_toy
from tests.training.unread import Unread

FLOAT_BYTES = 60 * 3 * SIDE * SIDE * 4


def opened(toy) -> DatasetFile:
    return DatasetFile(toy.store.open("prepare-data", toy.dataset_key).file(DATASET_FILE))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("limit", "kind", "prepared"),
    [(FLOAT_BYTES, ResidentSplit, False), (FLOAT_BYTES - 1, ResidentSplit, True), (100, StreamedSplit, True)],
)
def test_resident_stored_and_streamed_splits_give_the_same_inputs(
    tmp_path, monkeypatch, channels, limit, kind, prepared
):
    toy = new_toy(tmp_path, channels=channels)
    monkeypatch.setattr(splits, "_RESIDENT_BYTES_CPU", limit)
    rows = toy.rows("train")

    def alter(images: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        return images * 2 + places[:, None, None, None]

    with opened(toy) as dataset, ImageReader(dataset, None) as reader:
        normalization = normalization_of("dataset", dataset)
        images = split_images(dataset, reader, "train", normalization, "cpu")
        split = images.altered(alter)
        assert isinstance(split, kind)
        assert (getattr(split, "prepare", None) is not None) == prepared
        got = torch.cat([inputs for inputs, _ in in_order(split, 7)])
        plain = torch.cat([inputs for inputs, _ in in_order(images.altered(), 7)])
    expected = normalise(torch.from_numpy(toy.content.images[rows]), normalization.mean, normalization.std)
    assert torch.equal(plain, expected)
    assert torch.equal(got, expected * 2 + torch.arange(len(rows))[:, None, None, None])
    assert images.sample_ids == [toy.content.sample_ids[row] for row in rows]
    assert split.labels.tolist() == toy.content.labels[rows].tolist()


def test_what_is_read_from_an_open_file_is_never_kept(tmp_path, monkeypatch):
    toy = new_toy(tmp_path)
    with opened(toy) as dataset, ImageReader(dataset, None) as reader:
        normalization = normalization_of("dataset", dataset)
        assert split_images(dataset, reader, "train", normalization, "cpu").nbytes == FLOAT_BYTES
        monkeypatch.setattr(splits, "_RESIDENT_BYTES_CPU", 100)
        assert split_images(dataset, reader, "train", normalization, "cpu").nbytes > 2**60


def test_inputs_of_the_training_split_have_mean_0_and_standard_deviation_1(tmp_path):
    toy = new_toy(tmp_path, channels=3)
    with opened(toy) as dataset, ImageReader(dataset, None) as reader:
        inputs = split_images(dataset, reader, "train", normalization_of("dataset", dataset), "cpu").inputs
    torch.testing.assert_close(inputs.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(inputs.std((0, 2, 3), unbiased=False), torch.ones(3), atol=1e-5, rtol=0)


def test_normalization_settings(tmp_path):
    with opened(new_toy(tmp_path)) as dataset:
        assert normalization_of("imagenet", dataset).mean == [0.485, 0.456, 0.406]
        assert normalization_of({"mean": [0.5], "std": [0.2]}, dataset).std == [0.2, 0.2, 0.2]
        one = float(np.asarray(dataset.mean)[0])
        assert normalization_of("dataset", dataset).mean == [one] * 3
        for wrong in ({"mean": [0.5, 0.5], "std": [0.2]}, {"mean": [0.5], "std": [0.0]}):
            with pytest.raises(DataError, match="expected 1 or 3 numbers each and std above 0"):
                normalization_of(wrong, dataset)


def test_without_a_training_split_there_are_no_statistics(tmp_path):
    with (
        opened(new_toy(tmp_path, counts={"test": 5})) as dataset,
        pytest.raises(DataError, match=r"no training split.*imagenet or to numbers"),
    ):
        normalization_of("dataset", dataset)


FILLS = ["mean", "zero", "blur", "uniform_noise", {"kind": "constant", "value": [0.1, 0.2, 0.3]}]


@pytest.mark.parametrize(
    "how",
    [*({"mode": "roar", "fill": fill} for fill in FILLS), {"mode": "kar", "compat": "original"}, {"probe": True}],
    ids=str,
)
def test_removal_in_the_batch_reads_and_sends_nothing(how):
    """On the meta device: images that don't fit as network inputs are altered batch by batch."""
    meta, pixels = torch.device("meta"), SIDE**2
    job = {"mode": "roar", "fill": "mean", "compat": "corrected", "probe": False, "seed": 0, "removed_fraction": 0.5}
    dataset = SimpleNamespace(mean=np.array([0.4, 0.5, 0.6]), name="toy")
    images = SplitImages(
        np.arange(48), [str(row) for row in range(48)], torch.zeros(48, dtype=torch.long, device=meta), (SIDE, SIDE),
        Normalization([0.4, 0.5, 0.6], [0.2, 0.3, 0.25]),
        stored=torch.zeros((48, 3, SIDE, SIDE), dtype=torch.uint8, device=meta),
    )  # fmt: skip
    ranks = torch.zeros((48, SIDE, SIDE), dtype=torch.int16, device=meta)
    removal = _Removal(SimpleNamespace(parameters=job | how), dataset, images)
    split = images.altered(removal.of("train", lambda places: ranks.index_select(0, places), images))
    batches = split.batches(torch.arange(48), [(0, 16), (16, 32), (32, 48)])
    assert next(batches)[0].shape == (16, 3, SIDE, SIDE)  # the epoch's order goes to the device before its first step
    with Unread():
        assert [len(labels) for _, labels in batches] == [16, 16]
    assert removal.removed_pixels == pixels // 2
