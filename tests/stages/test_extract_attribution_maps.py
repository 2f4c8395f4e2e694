"""extract-attribution-maps: what it writes, how it goes on after an interruption, and what it refuses."""

import re
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from roarline.artifacts.dataset import DATASET_FILE, DatasetFile
from roarline.artifacts.maps import MAPS_FILE, MapsFile
from roarline.artifacts.store import Writer
from roarline.attribution.gradient import gradient
from roarline.config.component import locate
from roarline.config.methods import METHODS
from roarline.data.loading import normalise
from roarline.errors import ArtifactError, DataError, MethodError, ModelError
from roarline.execution.run_job import run_job
from roarline.models.load import load_classifier
from roarline.stages import extract_attribution_maps as stage
from roarline.stages.job import Context
from tests.method_params import cheap_params
from tests.stages.toy_classifier import job_for, toy_classifier, toy_dataset
from tests.stages.toy_explainer import toy_explainer

PARAMETERS = {
    "method": "gradient", "params": {}, "batched": True, "channels": "none", "split": "test", "target": "predicted",
    "dtype": "float32", "precision": "float32", "seed": 0, "threads": 1,
}  # fmt: skip


@pytest.fixture
def inputs(store):
    return {"dataset": toy_dataset(store), "classifier": toy_classifier(store)}


def extract(store, inputs, context=None, **parameters):
    """Run the stage; the artifact."""
    job = job_for(stage.STAGE, {**PARAMETERS, **parameters}, inputs)
    run_job(job, context or Context(store))
    return store.open(job.stage, job.key)


def user_method(name):
    """Parameters of a function of this file, as the plan gives them."""
    path = f"tests.stages.test_extract_attribution_maps.{name}"
    return {"method": path, "dotted_path": locate(path, "roarline.methods").dotted_path, "source_sha256": "0"}


def small_parts(monkeypatch, rows=4, batch=2):
    monkeypatch.setattr(stage, "rows_per_part", lambda height, width: rows)
    monkeypatch.setattr(stage, "pass_size", lambda height, width, device, **_: batch)


def test_file_holds_maps_targets_logits_and_where_they_come_from(store, inputs):
    artifact = extract(store, inputs)
    model, card = load_classifier(inputs["classifier"])
    with (
        DatasetFile(inputs["dataset"].file(DATASET_FILE)) as dataset,
        MapsFile(artifact.file(MAPS_FILE)) as maps,
    ):
        images = normalise(torch.from_numpy(dataset.pixels(range(12))), card.mean, card.std)
        logits = model(images)
        assert maps.sample_ids == dataset.sample_ids
        np.testing.assert_allclose(maps.logits, logits.numpy(), rtol=1e-4, atol=1e-5)  # float32, another memory format
        assert maps.targets.tolist() == logits.argmax(dim=1).tolist()
        expected = gradient(model, images, logits.argmax(dim=1)).numpy()
        np.testing.assert_allclose(maps.maps(range(12)), expected, rtol=1e-4, atol=1e-6)
        attributes = maps.attributes
        assert list(attributes["input_size"]) == [16, 16]
        assert (attributes["method"], attributes["parameters"], attributes["split"]) == ("gradient", {}, "test")
        assert attributes["classifier_digest"] == inputs["classifier"].digest
        assert attributes["dataset_digest"] == inputs["dataset"].digest


@pytest.mark.parametrize("name", METHODS)
def test_every_method_of_the_table_runs_through_the_stage(store, inputs, name):
    params = METHODS[name].params(**cheap_params(name, "conv2")).model_dump(mode="json")
    split = np.array([2] * 4 + [0] * 4)
    inputs["dataset"] = toy_dataset(
        store, count=8, split=split, boxes=np.array([[row, 1, 2, 3, 9, 8] for row in range(8)])
    )
    if name == "explainer":
        inputs["explainer"] = toy_explainer(store, inputs["classifier"])
    artifact = extract(store, inputs, method=name, params=params, channels=METHODS[name].channels)
    with MapsFile(artifact.file(MAPS_FILE)) as maps:
        assert maps.shape == (4, 16, 16)
        assert np.isfinite(maps.maps(range(4))).all()


class Flattening(nn.Module):
    """A network of the user's own as tutorials have it: ``view`` needs the convolution's output in one piece."""

    def __init__(self, num_classes):
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, 4, 3, stride=4), nn.Linear(4 * 4 * 4, num_classes)

    def forward(self, images):
        maps = self.conv(images).relu()
        return self.last(maps.view(len(maps), -1))


@pytest.mark.parametrize("name", METHODS)
def test_a_network_that_counts_on_contiguous_memory_runs_with_every_method(store, name):
    dataset = toy_dataset(store, count=4, split=np.array([2, 2, 0, 0]), boxes=np.array([[0, 1, 2, 3, 9, 8]]))
    arch = "tests.stages.test_extract_attribution_maps.Flattening"
    inputs = {"dataset": dataset, "classifier": toy_classifier(store, arch=arch, params={})}
    if name == "explainer":
        inputs["explainer"] = toy_explainer(store, inputs["classifier"])
    params = METHODS[name].params(**cheap_params(name, "conv")).model_dump(mode="json")
    with MapsFile(extract(store, inputs, method=name, params=params, channels="sum").file(MAPS_FILE)) as maps:
        assert maps.shape == (2, 16, 16)


def test_rows_are_cut_and_joined_in_order_whatever_the_threads(store, inputs, monkeypatch, tmp_path):
    whole = extract(store, inputs)
    small_parts(monkeypatch, rows=4, batch=2)
    other = type(store)(tmp_path / "other")
    cut = extract(
        other,
        {"dataset": toy_dataset(other), "classifier": toy_classifier(other)},
        Context(other, loader_threads=1),
    )
    with MapsFile(whole.file(MAPS_FILE)) as a, MapsFile(cut.file(MAPS_FILE)) as b:
        assert a.sample_ids == b.sample_ids
        np.testing.assert_allclose(a.maps(range(12)), b.maps(range(12)), rtol=1e-4, atol=1e-6)


class Stopped(Exception):  # noqa: N818
    """The process ends here."""


def stop_after(rows):
    def progress(done, total, unit):
        if done >= rows:
            time.sleep(0.2)  # let the part that is being written land, as it would
            raise Stopped

    return progress


def test_goes_on_after_the_last_whole_part_and_gives_the_same_digest(store, inputs, monkeypatch, tmp_path):
    small_parts(monkeypatch)
    other = type(store)(tmp_path / "undisturbed")
    undisturbed = extract(other, {"dataset": toy_dataset(other), "classifier": toy_classifier(other)}, method="random")
    with pytest.raises(Stopped):
        extract(store, inputs, Context(store, progress=stop_after(10)), method="random")
    computed = []
    launch = stage.Extraction.launch
    monkeypatch.setattr(
        stage.Extraction,
        "launch",
        lambda self, pixels, targets, ids: computed.extend(ids) or launch(self, pixels, targets, ids),
    )
    resumed = extract(store, inputs, method="random")
    assert computed == [f"image/{index:04d}" for index in range(8, 12)]
    assert resumed.digest == undisturbed.digest


@pytest.mark.parametrize("damage", ["flipped byte", "truncated", "seal lost", "part lost"])
def test_a_damaged_part_is_made_again(store, inputs, monkeypatch, tmp_path, damage):
    small_parts(monkeypatch)
    with pytest.raises(Stopped):
        extract(store, inputs, Context(store, progress=stop_after(10)))
    part = next(iter(sorted(store.root.glob(".work/*/*/parts/00000000-*.h5"))))
    seal = part.with_suffix(".sha256.json")
    content = bytearray(part.read_bytes())
    if damage == "flipped byte":
        content[len(content) // 2] ^= 1
        part.write_bytes(content)
    elif damage == "truncated":
        part.write_bytes(content[: len(content) // 2])
    else:
        (seal if damage == "seal lost" else part).unlink()
    other = type(store)(tmp_path / "undisturbed")
    undisturbed = extract(other, {"dataset": toy_dataset(other), "classifier": toy_classifier(other)})
    assert extract(store, inputs).digest == undisturbed.digest


def test_original_roar_bug_8_bit_pictures_of_maps_lose_the_sign_and_tie(store, inputs):
    """The original stretches each map to 256 grey levels, so that most pixels tie and the sign is gone."""
    with MapsFile(extract(store, inputs, method="input_x_gradient", channels="sum").file(MAPS_FILE)) as maps:
        for map_HW in maps.maps(range(12)):
            assert (map_HW < 0).any()
            assert (map_HW > 0).any()
            stretched = (map_HW - map_HW.min()) / (map_HW.max() - map_HW.min())
            assert len(np.unique(map_HW)) > 1.5 * len(np.unique((stretched * 255).astype(np.uint8)))


def test_an_empty_split_has_a_file_without_rows(store, inputs):
    artifact = extract(store, inputs, split="validation", channels="sum")
    with MapsFile(artifact.file(MAPS_FILE)) as maps:
        assert maps.shape == (0, 16, 16)
        assert maps.logits.shape == (0, 4)
        assert maps.sample_ids == []


def test_only_the_splits_own_images_have_rows(store):
    split = np.array([0, 1, 2] * 4)
    inputs = {"dataset": toy_dataset(store, split=split), "classifier": toy_classifier(store)}
    with MapsFile(extract(store, inputs, split="validation").file(MAPS_FILE)) as maps:
        assert maps.sample_ids == [f"image/{index:04d}" for index in range(1, 12, 3)]


@pytest.mark.parametrize("target", ["label", "every-label"])
def test_label_of_single_label_data(store, inputs, target):
    artifact = extract(store, inputs, target=target)
    with DatasetFile(inputs["dataset"].file(DATASET_FILE)) as dataset, MapsFile(artifact.file(MAPS_FILE)) as maps:
        assert maps.targets.tolist() == dataset.labels.tolist()


MULTI_HOT = np.array([[1, 0, 1, 0], [0, 0, 0, 0], [0, 1, 0, 0], [1, 1, 1, 1]], dtype=np.uint8)


def test_every_label_gives_a_row_a_label_and_the_predicted_class_to_an_unlabelled_image(store):
    inputs = {
        "dataset": toy_dataset(store, count=4, labels=MULTI_HOT),
        "classifier": toy_classifier(store, multi_label=True),
    }
    with MapsFile(extract(store, inputs, target="every-label").file(MAPS_FILE)) as maps:
        rows = list(zip(maps.sample_ids, maps.targets.tolist(), strict=True))
        predicted = int(maps.logits[2].argmax())
        expected = [(0, 0), (0, 2), (1, predicted), (2, 1), (3, 0), (3, 1), (3, 2), (3, 3)]
        assert rows == [(f"image/{image:04d}", target) for image, target in expected]
        np.testing.assert_array_equal(maps.logits[0], maps.logits[1])
        assert not np.array_equal(*maps.maps([0, 1]))


def test_label_of_multi_label_data_is_refused(store):
    inputs = {
        "dataset": toy_dataset(store, count=4, labels=MULTI_HOT),
        "classifier": toy_classifier(store, multi_label=True),
    }
    with pytest.raises(DataError, match="'every-label' or 'predicted'"):
        extract(store, inputs, target="label")


def not_a_number(model, images, targets):
    """A method whose third map of a batch has a NaN."""
    maps = images.clone()
    maps[2, 0, 3, 3] = float("nan")
    return maps


def too_small(model, images, targets):
    """A method that returns the wrong shape."""
    return images[:, :, :8, :8]


def scaled(model, images, targets, factor):
    """The image times a factor."""
    return images * factor


def one_by_one(model, image, label):
    """The original's call style."""
    return np.repeat(image[0, :1].numpy(), 3, axis=0) * float(label)


def test_the_users_method_in_both_styles(store, inputs):
    batched = extract(store, inputs, **user_method("scaled"), params={"factor": 2.0})
    single = extract(store, inputs, **user_method("one_by_one"), batched=False, channels="max")
    with (
        DatasetFile(inputs["dataset"].file(DATASET_FILE)) as dataset,
        MapsFile(batched.file(MAPS_FILE)) as a,
        MapsFile(single.file(MAPS_FILE)) as b,
    ):
        images = normalise(torch.from_numpy(dataset.pixels(range(12))), [0.5] * 3, [0.25] * 3).numpy()
        np.testing.assert_allclose(a.maps(range(12)), 2 * images, rtol=1e-6)
        np.testing.assert_allclose(b.maps(range(12)), images[:, 0] * b.targets[:, None, None], rtol=1e-6)


def test_a_nan_map_names_the_row_and_keeps_what_was_finished(store, inputs, monkeypatch):
    small_parts(monkeypatch, rows=4, batch=4)
    with pytest.raises(MethodError, match=r"not_a_number: the map of sample 'image/0002', target class \d, has NaN"):
        extract(store, inputs, **user_method("not_a_number"))
    assert not list(store.root.glob("extract-attribution-maps/*"))


def test_a_wrong_shape_names_the_method_and_both_shapes(store, inputs):
    with pytest.raises(MethodError, match=re.escape("too_small: returned shape [12, 3, 8, 8]")):
        extract(store, inputs, **user_method("too_small"))


@pytest.mark.parametrize(("factor", "words"), [(1e6, "largest magnitude of"), (1e-8, "largest magnitude of")])
def test_float16_that_can_not_hold_a_map_is_an_error(store, inputs, factor, words):
    with pytest.raises(MethodError, match=rf"image/0000.*{words}.*float32"):
        extract(store, inputs, **user_method("scaled"), params={"factor": factor}, dtype="float16")


def test_float16_is_kept_where_it_fits(store, inputs):
    artifact = extract(store, inputs, **user_method("scaled"), params={"factor": 1.0}, dtype="float16")
    with h5py.File(artifact.file(MAPS_FILE)) as file:
        assert file["maps"].dtype == np.float16


@pytest.mark.parametrize("filtered", [False, True])
@pytest.mark.parametrize("compression", ["gzip", "lz4"])
def test_compression_is_in_no_key_and_in_no_digest(store, inputs, monkeypatch, tmp_path, compression, filtered):
    small_parts(monkeypatch, rows=4, batch=4)
    how = {"filter": {"kind": "max", "sigma_px": None, "window_px": 3}} if filtered else {}
    inputs |= {"maps": extract(store, inputs, channels="sum")} if filtered else {}
    plain = extract(store, inputs, channels="sum", **how)
    digest = plain.digest
    store.drop(plain.manifest.stage, plain.manifest.key)
    job = job_for(stage.STAGE, {**PARAMETERS, "channels": "sum", **how}, inputs)
    job.local["map_compression"] = compression
    run_job(job, Context(store))
    compressed = store.open(job.stage, job.key)
    assert compressed.digest == digest
    with h5py.File(compressed.file(MAPS_FILE)) as file:
        assert file["maps"].id.get_create_plist().get_nfilters() > 0


def test_bfloat16_computes_near_float32(store, inputs):
    exact, rounded = extract(store, inputs), extract(store, inputs, precision="bfloat16")
    with MapsFile(exact.file(MAPS_FILE)) as a, MapsFile(rounded.file(MAPS_FILE)) as b:
        left, right = a.maps(range(12)), b.maps(range(12))
        assert not np.array_equal(left, right)
        assert np.corrcoef(left.ravel(), right.ravel())[0, 1] > 0.95  # 8 bits of mantissa


def test_other_class_count_or_image_size_is_refused(store, inputs):
    with pytest.raises(ModelError, match="has 4 classes, data set 'toy' has 7"):
        extract(store, {**inputs, "dataset": toy_dataset(store, classes=7)})
    with pytest.raises(ModelError, match="16×16 px, those of 'toy' are 24×24 px"):
        extract(store, {**inputs, "dataset": toy_dataset(store, side=24)})


def test_an_error_of_the_writing_thread_ends_the_stage(store, inputs, monkeypatch):
    small_parts(monkeypatch)

    def full(path, rows, compression):
        raise ArtifactError(f"{path}: the disk is full")

    monkeypatch.setattr("roarline.artifacts.map_parts.write_part", full)
    with pytest.raises(ArtifactError, match="the disk is full"):
        extract(store, inputs)


def test_parts_hold_whole_batches_at_every_size():
    """Else a batch, and so a map's last bits, would depend on where a run was interrupted."""
    for side in (8, 28, 32, 64, 96, 224, 299, 512, 1024, 4000):
        for device in ("cpu", "cuda"):
            for kept in (True, False):
                batch = stage.rows_at_once(side, side, torch.device(device), keeps_activations=kept)
                assert stage.rows_per_part(side, side) % batch == 0


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux to measure peak memory")
def test_memory_does_not_grow_with_the_number_of_images(store, monkeypatch, tmp_path):
    """3072 maps of 64 × 64 px are 48 MiB; a part is 1 MiB."""
    small_parts(monkeypatch, rows=64, batch=16)
    classifier = toy_classifier(store, side=64)

    def growth_mib(count):
        inputs = {"dataset": toy_dataset(store, count=count, side=64), "classifier": classifier}
        job = job_for(stage.STAGE, {**PARAMETERS, "method": "sobel", "channels": "sum"}, inputs)
        writer = Writer(tmp_path / f"out {count}", tmp_path / f"parts {count}")
        Path("/proc/self/clear_refs").write_text("5")
        before = _resident_mib("VmRSS")
        stage.run(job, Context(store), writer)
        return _resident_mib("VmHWM") - before

    growth_mib(256)
    assert growth_mib(3072) - growth_mib(512) < 16


def _resident_mib(what):
    found = re.search(rf"{what}:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found.group(1)) / 1024


def test_filtered_maps_are_the_methods_own_maps_filtered(store, inputs):
    """The network is not asked again: ids, targets and logits are those of the source."""
    source = extract(store, inputs, channels="sum")
    artifact = extract(
        store, {**inputs, "maps": source}, channels="sum", filter={"kind": "max", "sigma_px": None, "window_px": 3}
    )
    with MapsFile(source.file(MAPS_FILE)) as plain, MapsFile(artifact.file(MAPS_FILE)) as filtered:
        expected = ndimage.maximum_filter(plain.maps(range(12)), size=(1, 3, 3), mode="nearest")
        assert np.array_equal(filtered.maps(range(12)), expected)
        assert filtered.sample_ids == plain.sample_ids
        assert np.array_equal(filtered.targets, plain.targets)
        assert np.array_equal(filtered.logits, plain.logits)
        assert filtered.attributes["input_size"].tolist() == [16, 16]


def test_filtered_maps_keep_channels_and_go_on_after_an_interruption(store, inputs, monkeypatch):
    source = extract(store, inputs)
    how = {"kind": "blur", "sigma_px": 1.0, "window_px": None}
    monkeypatch.setattr("roarline.stages.filter_maps._PART_PX", 5 * 3 * 16 * 16)
    artifact = extract(store, {**inputs, "maps": source}, filter=how)
    with MapsFile(source.file(MAPS_FILE)) as plain, MapsFile(artifact.file(MAPS_FILE)) as filtered:
        expected = ndimage.gaussian_filter(plain.maps(range(12)), sigma=(0, 0, 1, 1), mode="mirror", truncate=4)
        np.testing.assert_allclose(filtered.maps(range(12)), expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def test_smoothing_is_declared_beside_the_method(store, inputs):
    smooth = {"samples": 3, "noise": 0.2, "kind": "squared"}
    plain, smoothed = extract(store, inputs), extract(store, inputs, smooth=smooth)
    with MapsFile(plain.file(MAPS_FILE)) as a, MapsFile(smoothed.file(MAPS_FILE)) as b:
        assert a.maps(range(12)).min() < 0 <= b.maps(range(12)).min()
        assert np.array_equal(a.targets, b.targets)


def test_the_perfect_mask_is_the_targets_segmentation(store, inputs):
    segmentation = np.zeros((12, 16, 16), dtype=np.uint8)
    segmentation[:, 2:5, 3:9], segmentation[:, 10:12, 1:4] = 2, 3  # classes 1 and 2
    inputs["dataset"] = toy_dataset(store, segmentation=segmentation, labels=np.arange(12) % 2 + 1)
    artifact = extract(store, inputs, method="ground_truth", channels="sum", target="label")
    with MapsFile(artifact.file(MAPS_FILE)) as maps:
        for row, target in enumerate(maps.targets):
            assert np.array_equal(maps.maps([row])[0], segmentation[row] == target + 1)


def test_no_ground_truth_is_said_plainly(store, inputs):
    with pytest.raises(DataError, match="neither boxes nor segmentation"):
        extract(store, inputs, method="ground_truth", channels="sum")


def test_a_limit_draws_the_same_images_for_every_method(store, inputs):
    few = [extract(store, inputs, limit=5, method=method, channels="sum") for method in ("gradient", "constant")]
    with MapsFile(few[0].file(MAPS_FILE)) as one, MapsFile(few[1].file(MAPS_FILE)) as other:
        assert len(one) == 5
        assert one.sample_ids == other.sample_ids == sorted(one.sample_ids)
        assert one.attributes["limit"] == 5
    with MapsFile(extract(store, inputs, limit=99).file(MAPS_FILE)) as all_of_them:
        assert len(all_of_them) == 12
