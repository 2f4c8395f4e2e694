"""What evaluate-localization hands to its metrics: each setting and input, against a computation without the stage."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from roarline.artifacts.dataset import DATASET_FILE, DatasetFile
from roarline.artifacts.features import FEATURES_FILE, read_features
from roarline.artifacts.store import Artifact, Store
from roarline.config.localization import EvaluateLocalization
from roarline.evaluation.complexity import effective_complexity
from roarline.evaluation.max_box_accuracy import boxes_right
from roarline.evaluation.pixel_precision import pixel_histograms
from roarline.evaluation.pointing import stochastic_pointing_hits
from roarline.models.load import load_classifier
from roarline.seeds import derive_seed
from tests.stages.test_evaluate_localization import Found, evaluate, scores
from tests.stages.toy_classifier import toy_classifier, toy_dataset
from tests.stages.toy_maps import distinct_values

SIDE, COUNT = 16, 4
ROWS = [(f"image/{row:04d}", row % 2) for row in range(COUNT)]
TARGETS = torch.tensor([target for _, target in ROWS])


def boxes() -> np.ndarray:
    """One box an image, of its target's class; the second also has one of class 2."""
    own = [[row, row % 2, 2 + row, 3, 8 + row, 9] for row in range(COUNT)]
    return np.array([*own[:2], [1, 2, 12, 12, 14, 14], *own[2:]])


def segmentation() -> np.ndarray:
    """Boxes; the last column of those of the target's class is void."""
    labels = np.zeros((COUNT, SIDE, SIDE), dtype=np.uint8)
    for row, label, x0, y0, x1, y1 in boxes().tolist():
        labels[row, y0 : y1 + 1, x0 : x1 + 1] = label + 1
        if label == row % 2:
            labels[row, y0 : y1 + 1, x1] = 255
    return labels


def data(store: Store, *, multi_label: bool = False, segmented: bool = True) -> Artifact:
    hot = np.eye(4, dtype=np.uint8)[TARGETS.numpy()]
    labels = hot if multi_label else TARGETS.numpy()
    masks = segmentation() if segmented else None
    return toy_dataset(store, count=COUNT, labels=labels, boxes=boxes(), segmentation=masks)


def run(store: Store, dataset: Artifact, values: np.ndarray, metrics: list[str], **parameters: Any) -> Found:
    kinds = EvaluateLocalization(metrics=metrics).kinds()
    return scores(evaluate(store, dataset, values, ROWS, metrics=metrics, ground_truth=kinds, **parameters))


def column(found: Found, metric: str) -> list[float]:
    """Values of all rows, each of which has one."""
    assert all(status == "ok" for _, status in found[metric, ""])
    return [value for value, _ in found[metric, ""] if value is not None]


def hills() -> np.ndarray:
    """Maps with one hill each, somewhere, and slightly uneven elsewhere."""
    y, x = np.mgrid[:SIDE, :SIDE]
    centres = [(4, 5), (11, 4), (6, 11), (9, 8)]
    hill = np.stack([np.exp(-((y - top) ** 2 + (x - left) ** 2) / 18) for top, left in centres])
    return (hill + distinct_values(COUNT, SIDE) / 1e5 - 0.1).astype(np.float32)


def scaled(values: np.ndarray) -> Tensor:
    """From lowest to highest, float64."""
    low, high = values.min((1, 2), keepdims=True), values.max((1, 2), keepdims=True)
    return torch.from_numpy((values.astype(np.float64) - low) / (high.astype(np.float64) - low))


def logits(store: Store, dataset: Artifact, change: Any) -> Tensor:
    """float64 [B, K] of the changed images, by the network itself."""
    model, card = load_classifier(toy_classifier(store))
    with DatasetFile(dataset.file(DATASET_FILE)) as file:
        pixels = torch.from_numpy(file.pixels(range(COUNT))).float() / 255
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (card.mean, card.std))
    with torch.no_grad():
        output: Tensor = model.eval()(change((pixels - mean) / std).float())
    return output.double()


def part(mask: np.ndarray, shorter: int) -> tuple[int, int, int, int]:
    """Box of the largest 4-connected part above the mean; its last row and column left out where ``shorter``."""
    marked, count = ndimage.label(mask > mask.mean())
    largest = 1 + int(np.argmax([(marked == number + 1).sum() for number in range(count)]))
    ys, xs = np.nonzero(marked == largest)
    return xs.min(), ys.min(), xs.max() + 1 - shorter, ys.max() + 1 - shorter


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("compat", ["corrected", "original"])
def test_what_the_network_is_shown_and_how_it_answers(store: Store, multi_label: bool, compat: str) -> None:
    """Mask times image for saliency, the part's box enlarged for sm; sigmoids where labels don't exclude each other."""
    dataset, values = data(store, multi_label=multi_label), hills()
    metrics = ["saliency", "sm", "sm_area", "sm_confidence", "probability_sparsity", "probability_entropy"]
    found, masks = run(store, dataset, values, metrics, compat=compat), scaled(values)
    answers = [
        functional.logsigmoid(out) if multi_label and compat == "corrected" else out.log_softmax(dim=1)
        for out in (
            logits(store, dataset, lambda images: images * masks[:, None]),
            logits(store, dataset, lambda images: crops(images, masks, compat)),
            logits(store, dataset, lambda images: images),
        )
    ]
    masked, cropped, whole = (answer[torch.arange(COUNT), TARGETS] for answer in answers)
    assert (masked - whole).abs().min() > 1e-4  # so that what is shown makes a difference
    assert (cropped - whole).abs().min() > 1e-4
    expected = masks.mean(dim=(1, 2)).clamp_min(0.05).log() - masked
    near: dict[str, Any] = {"rel": 1e-4, "abs": 1e-5}  # float32 passes of other batch layouts
    assert column(found, "saliency") == pytest.approx(expected.tolist(), **near)
    sides = [part(mask, int(compat == "original")) for mask in masks.numpy()]
    area = np.log([max((x1 - x0) * (y1 - y0) / SIDE**2, 0.05) for x0, y0, x1, y1 in sides])
    assert column(found, "sm_area") == pytest.approx(area.tolist())
    assert column(found, "sm_confidence") == pytest.approx(cropped.tolist(), **near)
    assert column(found, "sm") == pytest.approx((area - cropped.numpy()).tolist(), **near)
    shares = answers[0].exp()
    assert column(found, "probability_sparsity") == pytest.approx(shares.square().sum(dim=1).tolist(), **near)
    assert column(found, "probability_entropy") == pytest.approx((-shares * shares.log()).sum(dim=1).tolist(), **near)


def crops(images: Tensor, masks: Tensor, compat: str) -> Tensor:
    seen = []
    for image, mask in zip(images, masks.numpy(), strict=True):
        x0, y0, x1, y1 = part(mask, int(compat == "original"))
        seen.append(functional.interpolate(image[None, :, y0:y1, x0:x1], (SIDE, SIDE), mode="bicubic"))
    return torch.cat(seen)


@pytest.mark.parametrize(("draws", "tolerance_px"), [(7, 1), (7, 4), (50, 4)])
def test_draws_and_tolerance_of_pointing(store: Store, draws: int, tolerance_px: float) -> None:
    dataset, values = data(store), distinct_values(COUNT, SIDE, seed=4)
    values[:, 0, 0] += 1e4  # the highest pixel: 3 px and more from the object
    metrics = ["stochastic_pointing_game", "pointing_game"]
    found = run(store, dataset, values, metrics, draws=draws, tolerance_px=tolerance_px)
    seeds = [derive_seed(0, "evaluate-localization", "draws", sample_id, target) for sample_id, target in ROWS]
    objects = torch.from_numpy(segmentation() == (TARGETS.numpy() + 1)[:, None, None])
    expected = stochastic_pointing_hits(
        torch.from_numpy(values), objects, seeds=seeds, draws=draws, tolerance_px=tolerance_px
    )
    assert column(found, "stochastic_pointing_game") == expected.tolist()
    apart = [np.hypot(2 + row, 3) for row in range(COUNT)]
    assert column(found, "pointing_game") == [float(distance < tolerance_px) for distance in apart]


@pytest.mark.parametrize("fraction", [1 / SIDE**2, 0.1, 0.5])
def test_top_pixels(store: Store, fraction: float) -> None:
    values = distinct_values(COUNT, SIDE, seed=5)
    found = run(store, data(store, segmented=False), values, ["topk_intersection"], topk_fraction=fraction)
    for row, _, x0, y0, x1, y1 in [box for box in boxes().tolist() if box[1] == box[0] % 2]:
        order = np.argsort(-values[row].ravel())[: max(1, int(fraction * SIDE**2))]
        ys, xs = np.divmod(order, SIDE)
        inside = (xs >= x0) & (xs <= x1) & (ys >= y0) & (ys <= y1)
        assert found["topk_intersection", ""][row][0] == pytest.approx(inside.mean())


def test_binarising_by_mean_or_area(store: Store) -> None:
    values = np.exp(distinct_values(COUNT, SIDE) / 20)  # few high pixels: the mean is far below the half
    metrics = ["mask_binarised", "le"]
    masks = scaled(values.astype(np.float32)).numpy()
    by_mean = run(store, data(store), values, metrics, binarise="mean")
    by_area = run(store, data(store), values, metrics, binarise="area")
    for row, mask in enumerate(masks):
        assert by_mean["mask_binarised", ""][row][0] == pytest.approx((mask > mask.mean()).mean())
        pixels = SIDE**2 - int((1 - mask.mean()) * SIDE**2)  # no two alike: as many as the mean is a share of all
        assert by_area["mask_binarised", ""][row][0] == pytest.approx(pixels / SIDE**2)
    assert by_mean["mask_binarised", ""] != by_area["mask_binarised", ""]


def test_the_rule_of_binarising_reaches_the_boxes(store: Store) -> None:
    """A hill of two steps: above the mean the broad one, the object's box; by area, a fifth of it, the narrow one."""
    values = np.zeros((COUNT, SIDE, SIDE))
    for row, label, x0, y0, x1, y1 in boxes().tolist():
        if label == row % 2:
            values[row, y0 : y1 + 1, x0 : x1 + 1] = 0.25
            values[row, y0 + 2 : y0 + 4, x0 + 2 : x0 + 4] = 1
    for binarise, error in (("mean", 0.0), ("area", 1.0)):
        found = run(store, data(store), values, ["le", "om", "sm_area"], mask="none", binarise=binarise)
        assert column(found, "le") == [error] * COUNT
    assert np.exp(column(found, "sm_area")) == pytest.approx([0.05] * COUNT)


def test_effective_pixels_and_thresholds(store: Store) -> None:
    dataset, values = data(store), distinct_values(COUNT, SIDE)
    metrics = ["effective_complexity", "max_box_acc", "max_box_acc_v2", "pxap"]
    kinds = EvaluateLocalization(metrics=metrics).kinds()
    for epsilon, step in ((0.5, 0.25), (0.01, 0.125)):
        artifact = evaluate(
            store, dataset, values, ROWS, metrics=metrics, ground_truth=kinds, epsilon=epsilon, threshold_step=step
        )
        expected = effective_complexity(torch.from_numpy(values), epsilon=epsilon)
        assert column(scores(artifact), "effective_complexity") == expected.tolist()
        features, masks = read_features(artifact.file(FEATURES_FILE)).metrics, scaled(values)
        objects = torch.from_numpy(segmentation() == (TARGETS.numpy() + 1)[:, None, None])
        histograms = pixel_histograms(masks, objects, torch.from_numpy(segmentation() != 255), step=step)
        np.testing.assert_array_equal(features["pxap"].values, histograms.flatten(1))
        for row in range(COUNT):
            own = boxes()[(boxes()[:, 0] == row) & (boxes()[:, 1] == row % 2), 2:]
            for metric, which, overlaps in (
                ("max_box_acc", "largest", (0.5,)), ("max_box_acc_v2", "all", (0.3, 0.5, 0.7)),
            ):  # fmt: skip
                right = boxes_right(masks[row].numpy(), own, step=step, overlaps=overlaps, which=which)  # type: ignore[arg-type]
                np.testing.assert_array_equal(features[metric].values[row], right.ravel())


def test_published_and_corrected_boxes_ties_and_void(store: Store) -> None:
    """A mask of the object and its void column: what each reading makes of it."""
    values = np.zeros((COUNT, SIDE, SIDE), dtype=np.float32)
    for row, label, x0, y0, x1, y1 in boxes().tolist():
        if label == row % 2:
            values[row, y0 : y1 + 1, x0 : x1 + 1] = 1
    metrics = ["pointing_game", "object_coverage", "mean_f1", "le", "f1", "relevance_mass_accuracy", "max_box_acc"]
    sharp = np.zeros_like(values)
    sharp[:, 0, 0], sharp[:, 5, 7] = 1, 1  # two highest pixels, the first of them off the object
    for compat, share, tie in (("corrected", 1.0, 0.5), ("original", 1.0, 0.0)):
        found = run(store, data(store), values, metrics, compat=compat, mask="none")
        assert column(found, "object_coverage") == [share] * COUNT
        pointed = run(store, data(store), sharp, ["pointing_game"], compat=compat, tolerance_px=1)
        assert column(pointed, "pointing_game") == [tie] * COUNT
    # the object without its void column, 6 of 7 columns: void counts against it where it is an object
    narrow = values * torch.from_numpy(segmentation() != 255).numpy()
    for compat, share in (("corrected", 1.0), ("original", 6 / 7)):
        found = run(store, data(store), narrow, metrics, compat=compat, mask="none")
        assert column(found, "object_coverage") == pytest.approx([share] * COUNT)
        assert column(found, "mean_f1") == pytest.approx([2 * share / (1 + share)] * COUNT)
        assert column(found, "relevance_mass_accuracy") == pytest.approx([1.0] * COUNT)
    # 3 × 3 px are 2 × 2 of 9 as published: an IoU of 4/9, and 4 × 4 of 9 in MaxBoxAcc: 9/16
    tiny, small = np.zeros_like(values), np.array([[row, row % 2, 4, 4, 6, 6] for row in range(COUNT)])
    tiny[:, 4:7, 4:7] = 1
    dataset = toy_dataset(store, count=COUNT, labels=TARGETS.numpy(), boxes=small)
    for compat, error, right in (("corrected", 0.0, 1.0), ("original", 1.0, 0.0)):
        wanted = ["le", "max_box_acc_v2"]
        kinds = EvaluateLocalization(metrics=wanted).kinds()
        artifact = evaluate(store, dataset, tiny, ROWS, metrics=wanted, ground_truth=kinds, compat=compat, mask="none")
        assert column(scores(artifact), "le") == [error] * COUNT
        features = read_features(artifact.file(FEATURES_FILE)).metrics["max_box_acc_v2"].values
        at_70 = features.reshape(COUNT, 3, -1)[:, 2]
        assert (at_70 == right).all()


def test_the_largest_part_is_boxed_for_max_box_acc_and_every_part_for_its_second_version(store: Store) -> None:
    """A part as large as the object and on it, and a larger one off it."""
    values, small = np.zeros((COUNT, SIDE, SIDE)), np.array([[row, row % 2, 4, 4, 6, 6] for row in range(COUNT)])
    values[:, 4:7, 4:7] = values[:, 9:15, 9:15] = 1
    dataset = toy_dataset(store, count=COUNT, labels=TARGETS.numpy(), boxes=small)
    metrics = ["max_box_acc", "max_box_acc_v2"]
    kinds = EvaluateLocalization(metrics=metrics).kinds()
    artifact = evaluate(store, dataset, values, ROWS, metrics=metrics, ground_truth=kinds)
    features = read_features(artifact.file(FEATURES_FILE)).metrics
    assert (features["max_box_acc"].values == 0).all()
    assert (features["max_box_acc_v2"].values == 1).all()


def test_masks_are_scaled_or_taken_as_they_are(store: Store) -> None:
    values = 0.25 + distinct_values(COUNT, SIDE, seed=6) / 1000
    for mask, expected in (("none", torch.from_numpy(values)), ("min_max", scaled(values.astype(np.float32)))):
        found = run(store, data(store), values, ["mask_average"], mask=mask)
        assert column(found, "mask_average") == pytest.approx(expected.mean(dim=(1, 2)).tolist(), rel=1e-5)


def test_right_means_the_targets_own_logit_where_labels_are_several(store: Store) -> None:
    """Right where it is above 0, whatever the others are; of one label: where the label's is the highest."""
    perfect = np.zeros((COUNT, SIDE, SIDE), dtype=np.float32)
    for row, label, x0, y0, x1, y1 in boxes().tolist():
        if label == row % 2:
            perfect[row, y0 : y1 + 1, x0 : x1 + 1] = 1
    decided = np.array([[0.1, -1, 5, 0], [-1, -0.1, -5, -9], [-0.1, 9, 9, 9], [9, 0.1, 9, 9]])
    expected = {True: [0.0, 1.0, 1.0, 0.0], False: [1.0, 0.0, 1.0, 1.0]}
    for several, errors in expected.items():
        dataset, kinds = data(store, multi_label=several), {"om": "boxes", "le": "boxes"}
        artifact = evaluate(
            store, dataset, perfect, ROWS, logits=decided, metrics=["om", "le"], ground_truth=kinds, mask="none"
        )
        assert column(scores(artifact), "om") == errors
        assert column(scores(artifact), "le") == [0.0] * COUNT
