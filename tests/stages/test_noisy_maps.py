"""Max- and average sensitivity: maps that can't change, methods called as extraction calls them, filters, formats."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from roarline.artifacts.dataset import DATASET_FILE, DatasetFile
from roarline.artifacts.maps import MAPS_FILE, MapsFile
from roarline.artifacts.store import Artifact, Store
from roarline.artifacts.tables import SCORES_FILE, read_parquet
from roarline.data.loading import normalise
from roarline.evaluation.map_sensitivity import uniform_noise
from roarline.execution.run_job import run_job
from roarline.imaging.map_filters import blur_maps
from roarline.models.load import load_classifier
from roarline.seeds import derive_seed
from roarline.stages import evaluate_perturbation as stage
from roarline.stages import extract_attribution_maps
from roarline.stages.job import Context
from tests.stages.test_perturbation_measures import COUNT, PARAMETERS, SIDE
from tests.stages.toy_classifier import job_for, toy_classifier, toy_dataset

BOXES = np.array([[image, 0, 2, 2, 9, 9] for image in range(COUNT)])
ENTRY = {"batched": True, "params": {}, "channels": "sum", "dtype": "float32", "precision": "float32", "seed": 0}
RADIUS, COPIES = 0.05, 3


@pytest.fixture
def inputs(store: Store) -> dict[str, Artifact]:
    return {"dataset": toy_dataset(store), "classifier": toy_classifier(store)}


def maps_of(store: Store, inputs: dict[str, Artifact], entry: dict[str, Any]) -> Artifact:
    """The method's maps, as the stage extracts them."""
    unfiltered = {key: value for key, value in entry.items() if key != "filter"}
    shared = {"split": "test", "target": "predicted", "seed": 0, "threads": 1}
    job = job_for(extract_attribution_maps.STAGE, {**unfiltered, **shared}, inputs)
    run_job(job, Context(store))
    maps = store.open(job.stage, job.key)
    if "filter" in entry:
        job = job_for(extract_attribution_maps.STAGE, {**entry, **shared}, {**inputs, "maps": maps})
        run_job(job, Context(store))
        maps = store.open(job.stage, job.key)
    return maps


def sensitivities(
    store: Store, inputs: dict[str, Artifact], method: str, sign: str = "signed", **entry: Any
) -> tuple[np.ndarray, np.ndarray, set[str]]:
    """Largest and mean change of each row, and the statuses."""
    whole = {**ENTRY, "method": method, **entry}
    parameters = {
        **PARAMETERS, "metrics": ["max_sensitivity", "avg_sensitivity"], "sign": sign, "attribution": whole,
        "map_sensitivity": {"samples": COPIES, "radius": RADIUS},
    }  # fmt: skip
    job = job_for(stage.STAGE, parameters, {**inputs, "maps": maps_of(store, inputs, whole)})
    run_job(job, Context(store))
    table = read_parquet(store.open(job.stage, job.key).file(SCORES_FILE))
    both = [
        np.array([v for m, v in zip(table["metric"], table["value"], strict=True) if m == metric], dtype=float)
        for metric in ("max_sensitivity", "avg_sensitivity")
    ]
    return both[0], both[1], set(table["status"])


def noisy(inputs: dict[str, Artifact], row: int) -> tuple[nn.Module, Tensor, Tensor]:
    """The network, an image, and its noisy copies by the seeds; the normalisation divides by 0.25."""
    model, card = load_classifier(inputs["classifier"])
    with DatasetFile(inputs["dataset"].file(DATASET_FILE)) as dataset:
        image = normalise(torch.from_numpy(dataset.pixels([row])), card.mean, card.std)
    generator = torch.Generator().manual_seed(derive_seed(0, "noise on images", f"image/{row:04d}", 0))
    return model, image, image + uniform_noise(generator, 4, SIDE, SIDE, [RADIUS / 0.25] * 3)[:COPIES]


def gradients(model: nn.Module, images: Tensor, target: int) -> Tensor:
    leaf = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(leaf)[:, target].sum(), leaf)
    return gradient


def test_numbers_are_those_of_plain_loops(store: Store, inputs: dict[str, Artifact]) -> None:
    largest, mean, statuses = sensitivities(store, inputs, "gradient", channels="max_abs")
    assert statuses == {"ok"}
    for row in (0, 5, 11):
        model, image, copies = noisy(inputs, row)
        target = int(model(image).argmax())
        map_HW = gradients(model, image, target).abs().amax(dim=1)
        changed = gradients(model, copies, target).abs().amax(dim=1)
        change = (changed - map_HW).flatten(1).norm(dim=1) / map_HW.norm()
        # float32 gradients on other batches and memory layouts; a unit of relu may switch in one and not the other.
        assert largest[row] == pytest.approx(change.max().item(), rel=1e-3, abs=1e-4)
        assert mean[row] == pytest.approx(change.mean().item(), rel=1e-3, abs=1e-4)
        assert largest[row] >= mean[row] > 0


@pytest.mark.parametrize("method", ["constant", "centre_gaussian"])
def test_controls_that_do_not_look_at_the_image_have_none(
    store: Store, inputs: dict[str, Artifact], method: str
) -> None:
    largest, mean, statuses = sensitivities(store, inputs, method)
    assert statuses == {"ok"}
    assert (largest == 0).all()
    assert (mean == 0).all()


def test_random_maps_are_drawn_anew_for_each_copy(store: Store, inputs: dict[str, Artifact]) -> None:
    """Two independent maps of the same distribution lie √2 standard deviations apart, whatever the noise."""
    maps = maps_of(store, inputs, {**ENTRY, "method": "random"})
    with MapsFile(maps.file(MAPS_FILE)) as file:
        values = file.maps(range(COUNT)).reshape(COUNT, -1)
    expected = np.sqrt(2) * values.std() / np.sqrt((values**2).mean())
    _, mean, statuses = sensitivities(store, inputs, "random")
    assert statuses == {"ok"}
    assert mean.mean() == pytest.approx(expected, rel=0.05)  # 36 maps of 256 values


def test_ground_truth_is_that_of_the_image(store: Store) -> None:
    """The ids of copies are not the data set's: ground truth is asked for by the image's."""
    boxed = {"dataset": toy_dataset(store, boxes=BOXES), "classifier": toy_classifier(store)}
    largest, _, statuses = sensitivities(store, boxed, "ground_truth")
    assert (np.nan_to_num(largest) == 0).all()
    assert statuses <= {"ok", "the map is zero everywhere"}  # images whose predicted class has no box


def twice_the_image(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """A method of the user's own."""
    return 2 * images[:, 0]


def single_image(model: nn.Module, image: Tensor, label: Tensor) -> Tensor:
    """One image at a time, as the original ROAR code calls."""
    return 2 * image[:, 0]


@pytest.mark.parametrize(("name", "batched"), [("twice_the_image", True), ("single_image", False)])
def test_methods_of_ones_own_are_called_in_their_style(
    store: Store, inputs: dict[str, Artifact], name: str, batched: bool
) -> None:
    path = f"tests.stages.test_noisy_maps.{name}"
    largest, _, _ = sensitivities(store, inputs, path, dotted_path=path, source_sha256="0" * 64, batched=batched)
    for row in (0, 11):
        _, image, copies = noisy(inputs, row)
        change = (copies - image)[:, 0].flatten(1).norm(dim=1) / image[0, 0].norm()
        assert largest[row] == pytest.approx(change.max().item(), rel=1e-5)


def test_filters_signs_and_formats_are_those_of_the_maps(store: Store, inputs: dict[str, Artifact]) -> None:
    path = "tests.stages.test_noisy_maps.twice_the_image"
    own = {"dotted_path": path, "source_sha256": "0" * 64}
    blur = {"kind": "blur", "sigma_px": 2.0, "window_px": None}
    plain, _, _ = sensitivities(store, inputs, path, **own)
    blurred, _, _ = sensitivities(store, inputs, path, **own, filter=blur)
    absolute, _, _ = sensitivities(store, inputs, path, sign="absolute", **own)
    half, _, _ = sensitivities(store, inputs, path, dtype="float16", **own)
    for row in (0, 11):
        _, image, copies = noisy(inputs, row)
        for found, read in ((blurred, lambda maps: blur_maps(maps, 2.0)), (absolute, torch.abs)):
            map_HW, changed = read(2 * image[:, 0]), read(2 * copies[:, 0])
            change = (changed - map_HW).flatten(1).norm(dim=1) / map_HW.norm()
            assert found[row] == pytest.approx(change.max().item(), rel=1e-4)  # float32 blurs
    np.testing.assert_allclose(half, plain, rtol=0.02)  # float16: 1e-3 of values whose change is 4e-2 of them


def test_smoothed_and_mask_methods_run(store: Store, inputs: dict[str, Artifact]) -> None:
    smooth = {"samples": 2, "noise": 0.1, "kind": "mean"}
    largest, _, statuses = sensitivities(store, inputs, "gradient", smooth=smooth)
    assert statuses == {"ok"}
    assert (largest > 0).all()
