"""evaluate-perturbation does what its configuration says: arguments other than the defaults, against plain loops.

A stage that forgot to pass one of them on would compute a number for its default.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from roarline.artifacts.dataset import DATASET_FILE, DatasetContent, DatasetFile, write_dataset
from roarline.artifacts.store import Artifact, Store
from roarline.artifacts.tables import SCORES_FILE, read_parquet
from roarline.config.perturbation import EvaluatePerturbation
from roarline.data.loading import normalise
from roarline.evaluation.infidelity import noise_weights, square_weights
from roarline.evaluation.outcomes import LOW_PROBABILITY, OUTCOMES
from roarline.evaluation.pixel_sets import draw_pixel_sets
from roarline.execution.run_job import run_job
from roarline.imaging.smoothing import gaussian_blur
from roarline.imaging.superpixels import find_superpixels
from roarline.models.load import load_classifier
from roarline.seeds import derive_seed
from roarline.stages import evaluate_perturbation as stage
from roarline.stages.job import Context
from tests.stages.toy_classifier import job_for, make_artifact, toy_classifier
from tests.stages.toy_maps import distinct_values, toy_maps

SIDE, COUNT = 16, 6
BLACK, GREY = -2.0, -0.8  # 0 and 0.3 in the network's space: mean 0.5, deviation 0.25
REVEALED = [0.05, 0.1, 0.2, 0.4, 0.6, 0.8]
SURE = 0.85
SECTION: dict[str, Any] = {
    "metrics": [
        "morf", "lerf", "insertion", "deletion", "aopc", "irof", "region_perturbation", "sensitivity_n",
        "faithfulness_correlation", "infidelity", "aic", "sic",
    ],
    "fractions": [0.0, 0.3, 0.9], "steps": 4, "score": "logit",
    "fill": "zero", "insertion_fill": {"kind": "constant", "value": [0.3]}, "deletion_fill": "blur",
    "irof": {"superpixels": "slic", "segments": 25, "compactness": 100.0, "steps": 3, "fill": "zero"},
    "region_perturbation": {"patch_px": [4], "fractions": [0.0, 0.25, 0.5], "fill": "blur"},
    "sensitivity_n": {"fractions": [0.3], "subsets": 14, "fill": "blur"},
    "faithfulness_correlation": {"fraction": 0.2, "subsets": 13, "fill": "zero"},
    "infidelity": {"samples": 12, "sides": [0.4], "noise": 0.7, "normalise": False, "fill": "blur"},
    "information_curve": {
        "fractions": REVEALED, "compression": "webp", "least_probability": SURE, "monotone": False,
    },
}  # fmt: skip
Found = dict[tuple[str, str], list[tuple[float | None, str]]]


class Wavy(nn.Module):
    """Class 0 by the contrast of the upper left quarter, in waves: a little more of it can make class 0 less likely."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(num_classes))

    def forward(self, images: Tensor) -> Tensor:
        contrast = images[:, :, :8, :8].std(dim=(1, 2, 3))
        first = 10 * contrast - 5.2 + 2.5 * torch.sin(25 * contrast) + images[:, 0].mean(dim=(1, 2))
        return torch.cat([first[:, None], self.bias[1:].expand(len(images), -1)], dim=1)


def write_pictures(folder: Path) -> None:
    """Blocks of 4 px in colours of their own, and grain: superpixels find something, and so does a blur."""
    rng = np.random.default_rng(4)
    blocks = rng.integers(60, 196, (COUNT, 3, 4, 4)).repeat(4, axis=2).repeat(4, axis=3)
    images = (blocks + rng.integers(-60, 60, (COUNT, 3, SIDE, SIDE))).astype(np.uint8)
    content = DatasetContent(
        "pictures", [f"class {index}" for index in range(4)], multi_label=False, split=np.full(COUNT, 2), images=images,
        sample_ids=[f"image/{index:04d}" for index in range(COUNT)], labels=np.zeros(COUNT, dtype=np.int64),
        mean=np.full(3, 0.5), std=np.full(3, 0.25),
    )  # fmt: skip
    write_dataset(folder / DATASET_FILE, content)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("arguments"))


@pytest.fixture(scope="module")
def inputs(store: Store) -> dict[str, Artifact]:
    dataset = make_artifact(store, "prepare-data", {"pictures": COUNT}, lambda folder: write_pictures(folder))
    return {
        "dataset": dataset,
        "classifier": toy_classifier(store, arch="tests.stages.test_perturbation_arguments.Wavy", params={}),
        "maps": toy_maps(store, dataset, distinct_values(COUNT, SIDE)),
    }


def evaluate(store: Store, inputs: Mapping[str, Artifact], **changes: Any) -> Found:
    """(metric, setting) to (value, status) of each row."""
    section = EvaluatePerturbation.model_validate(SECTION | changes)
    settings = section.model_dump(mode="json", exclude={"metrics", *section.unused})
    parameters = {**settings, "metrics": section.table_metrics, "sign": "signed", "seed": 3, "threads": 1}
    job = job_for(stage.STAGE, parameters, inputs)
    run_job(job, Context(store))
    table = read_parquet(store.open(job.stage, job.key).file(SCORES_FILE))
    found: Found = {}
    for metric, setting, value, status in zip(
        table["metric"], table["setting"], table["value"], table["status"], strict=True
    ):
        found.setdefault((metric, setting), []).append((value, status))
    return found


@pytest.fixture(scope="module")
def found(store: Store, inputs: dict[str, Artifact]) -> Found:
    """What one run with arguments of all kinds gives."""
    return evaluate(store, inputs)


class Reference:
    """One row by plain loops, an image a pass, the score a logit."""

    def __init__(self, inputs: Mapping[str, Artifact], row: int) -> None:
        self.model, self.card = load_classifier(inputs["classifier"])
        with DatasetFile(inputs["dataset"].file(DATASET_FILE)) as dataset:
            self.pixels = torch.from_numpy(dataset.pixels([row]))
        self.image = normalise(self.pixels, self.card.mean, self.card.std)[0]
        self.blurred = gaussian_blur(self.image[None], 0.1 * SIDE)[0]
        self.map = torch.from_numpy(distinct_values(COUNT, SIDE)[row]).double()
        self.first = np.argsort(-self.map.numpy().ravel())  # most relevant first, no ties
        self.sample_id = f"image/{row:04d}"

    def logit(self, image: Tensor) -> float:
        return float(self.model(image[None])[0, 0])

    def probability(self, image: Tensor) -> float:
        return float(self.model(image[None]).softmax(dim=1)[0, 0])

    def without(self, gone: np.ndarray, fill: Tensor | float) -> float:
        """The score without some pixels, given by their places."""
        mask = torch.zeros(SIDE * SIDE, dtype=torch.bool)
        mask[gone.copy()] = True
        other = torch.as_tensor(fill).expand_as(self.image)
        return self.logit(torch.where(mask.reshape(SIDE, SIDE), other, self.image))

    def draws(self, purpose: str, block: int) -> torch.Generator:
        return torch.Generator().manual_seed(derive_seed(3, purpose, self.sample_id, block))

    def regions(self, labels_HW: np.ndarray, removed: list[int], fill: Tensor | float) -> list[float]:
        """The score without so many regions, the most relevant first."""
        means = [self.map.numpy()[labels_HW == label].mean() for label in range(labels_HW.max() + 1)]
        order = np.argsort(-np.array(means))
        return [self.without(np.flatnonzero(np.isin(labels_HW, order[:count])), fill) for count in removed]

    def correlation(self, fraction: float, subsets: int, fill: Tensor | float) -> float:
        sums, drops = [], []
        for subset in range(subsets):
            generator = self.draws("pixel sets", subset // 10)
            masks = draw_pixel_sets(generator, 10, [int(fraction * SIDE * SIDE)], SIDE, SIDE)
            mask = masks.reshape(10, SIDE, SIDE)[subset % 10]
            sums.append(self.map[mask].sum().item())
            drops.append(self.logit(self.image) - self.without(np.flatnonzero(mask.numpy()), fill))
        return float(np.corrcoef(sums, drops)[0, 1])

    def infidelity(self, kind: str, *, samples: int, side_px: int, noise: float) -> float:
        squares = []
        for sample in range(samples):
            generator = self.draws(f"infidelity {kind}", sample // 10)
            if kind == "square":
                weights = square_weights(generator, 10, SIDE, SIDE, [side_px])[sample % 10]
            else:
                weights = noise_weights(generator, 10, SIDE, SIDE, noise)[sample % 10]
            relevance = (weights * self.map).sum().item()
            moved = self.image + weights * (self.blurred - self.image)
            squares.append((relevance - (self.logit(self.image) - self.logit(moved))) ** 2)
        return float(np.mean(squares))

    def information_curve(self, compression: str, *, accuracy: bool, monotone: bool) -> float:
        """Points of (share of the information, share of the score), joined by straight lines."""
        mean, std = np.array(self.card.mean)[:, None, None], np.array(self.card.std)[:, None, None]
        blurred = np.rint((self.blurred.numpy() * std + mean) * 255).clip(0, 255).astype(np.uint8)
        sizes, scores = [], []
        for share in [0.0, *REVEALED, 1.0]:
            sharp = np.zeros(SIDE * SIDE, dtype=bool)
            sharp[self.first[: int(share * SIDE * SIDE)]] = True
            shown = np.where(sharp.reshape(SIDE, SIDE), self.pixels[0].numpy(), blurred)
            file = io.BytesIO()
            options = {"lossless": True, "quality": 100} if compression == "webp" else {"compress_level": 6}
            Image.fromarray(shown.transpose(1, 2, 0)).save(file, format=compression, **options)
            sizes.append(float(len(file.getvalue())))
            logits = self.model(normalise(torch.from_numpy(shown[None]), self.card.mean, self.card.std))[0]
            scores.append(float(logits.argmax() == 0) if accuracy else float(logits.softmax(dim=0)[0]))
        x, y = (np.clip((np.array(v) - v[0]) / (v[-1] - v[0]), 0, 1) for v in (sizes, scores))
        inner = np.maximum.accumulate(y[1:-1]) if monotone else y[1:-1]
        between = sorted((point for point in zip(x[1:-1], inner, strict=True) if point[0] > 0), key=lambda one: one[0])
        xs, ys = zip(*[(0.0, 0.0), *between, (1.0, 1.0)], strict=True)
        return float(np.trapezoid(ys, xs))


def test_curves_have_the_fills_fractions_and_steps_that_are_asked_for(
    inputs: dict[str, Artifact], found: Found
) -> None:
    for row in (0, 5):
        one = Reference(inputs, row)
        pixels, quarters = SIDE * SIDE, [0.0, 0.25, 0.5, 0.75, 1.0]
        gone = [int(fraction * pixels) for fraction in (0.0, 0.3, 0.9)]
        morf = [one.without(one.first[:count], BLACK) for count in gone]
        lerf = [one.without(one.first[pixels - count :], BLACK) for count in gone]
        deletion = [one.without(one.first[: int(share * pixels)], one.blurred) for share in quarters]
        insertion = [one.without(one.first[int(share * pixels) :], GREY) for share in quarters]
        expected = {
            "morf": np.trapezoid(morf, [0, 0.3, 0.9]) / 0.9, "lerf": np.trapezoid(lerf, [0, 0.3, 0.9]) / 0.9,
            "deletion": np.trapezoid(deletion, quarters), "insertion": np.trapezoid(insertion, quarters),
            "aopc": np.mean([morf[0] - score for score in morf]),
        }  # fmt: skip
        for metric, value in expected.items():
            # float32 networks on other batches: logits of about 1 move by 1e-6, the sine by 14 times that
            assert found[metric, ""][row][0] == pytest.approx(value, abs=1e-4), metric


def test_equal_pixels_go_in_the_order_that_is_asked_for(store: Store, inputs: dict[str, Artifact]) -> None:
    """In order of place the last pixels of a flat map go first; by chance another half of them does."""
    flat = toy_maps(store, inputs["dataset"], np.ones((COUNT, SIDE, SIDE), dtype=np.float32))
    told = {"metrics": ["morf"], "fractions": [0.0, 0.5]}
    by = {
        ties: evaluate(store, {**inputs, "maps": flat}, ties=ties, **told)["morf", ""] for ties in ("index", "random")
    }
    for row in range(COUNT):
        one = Reference(inputs, row)
        halves = [one.without(np.arange(128) + start, BLACK) for start in (0, 128)]
        areas = [(one.logit(one.image) + half) / 2 for half in halves]
        assert by["index"][row][0] == pytest.approx(areas[1], abs=1e-4)
        assert min(abs((by["random"][row][0] or 0) - area) for area in areas) > 1e-3


def superpixels(one: Reference, kind: Any, segments: int, compactness: float) -> np.ndarray:
    return find_superpixels(one.pixels / 255, kind, segments, compactness=compactness)[0].numpy()


def irof(one: Reference, labels_HW: np.ndarray) -> float:
    count = labels_HW.max() + 1
    scores = one.regions(labels_HW, [0, int(count / 3 + 1e-9), int(2 * count / 3 + 1e-9), count], BLACK)
    return float(1 - np.trapezoid(scores, dx=1 / 3) / scores[0])


def test_irof_cuts_superpixels_as_it_is_told(store: Store, inputs: dict[str, Artifact], found: Found) -> None:
    grid = evaluate(
        store, inputs, metrics=["irof"], irof={**SECTION["irof"], "superpixels": "grid", "compactness": 20.0}
    )
    compared = 0
    for row in range(COUNT):
        one = Reference(inputs, row)
        if one.logit(one.image) <= 0:  # a stated failure
            continue
        compared += 1
        cut = superpixels(one, "slic", 25, 100.0)
        assert not np.array_equal(cut, superpixels(one, "slic", 25, 20.0))
        assert found["irof", ""][row][0] == pytest.approx(irof(one, cut), rel=1e-3, abs=1e-4)
        cells = superpixels(one, "grid", 25, 20.0)
        assert cells.max() == 24  # five by five
        assert grid["irof", ""][row][0] == pytest.approx(irof(one, cells), rel=1e-3, abs=1e-4)
    assert compared >= 2


def test_patches_become_the_fill_that_is_asked_for(inputs: dict[str, Artifact], found: Found) -> None:
    y, x = np.mgrid[:SIDE, :SIDE] // 4
    for row in (0, 5):
        one = Reference(inputs, row)
        scores = one.regions(y * 4 + x, [0, 4, 8], one.blurred)
        expected = np.mean([scores[0] - score for score in scores])
        assert found["region_perturbation", "patch_px=4"][row][0] == pytest.approx(expected, abs=1e-4)


def test_pixel_sets_have_the_size_number_and_fill_that_are_asked_for(inputs: dict[str, Artifact], found: Found) -> None:
    for row in (0, 5):
        one = Reference(inputs, row)
        blurred, black = one.correlation(0.3, 14, one.blurred), one.correlation(0.2, 13, BLACK)
        # drops of about 0.3 to 1e-5
        assert found["sensitivity_n", "removed_fraction=0.3"][row][0] == pytest.approx(blurred, abs=1e-3)
        assert found["faithfulness_correlation", ""][row][0] == pytest.approx(black, abs=1e-3)


@pytest.mark.parametrize("kind", ["square", "noise"])
def test_infidelity_perturbs_and_scales_as_it_is_told(inputs: dict[str, Artifact], found: Found, kind: str) -> None:
    for row in (0, 5):
        expected = Reference(inputs, row).infidelity(kind, samples=12, side_px=6, noise=0.7)
        assert found["infidelity", kind][row][0] == pytest.approx(expected, rel=1e-4)  # float32 maps of up to 170


def test_infidelity_of_scaled_maps_sees_what_the_fill_is(store: Store, inputs: dict[str, Artifact]) -> None:
    """Small maps, since drops don't show beside the sums of large ones."""
    small = toy_maps(store, inputs["dataset"], distinct_values(COUNT, SIDE) / 20_000)
    fills = {
        fill: evaluate(
            store, {**inputs, "maps": small}, metrics=["infidelity"], infidelity={**SECTION["infidelity"], "fill": fill}
        )
        for fill in ("blur", "zero")
    }
    for row in (0, 5):
        one = Reference(inputs, row)
        one.map = one.map / 20_000
        for fill, replaced in (("blur", one.blurred), ("zero", torch.full_like(one.image, BLACK))):
            one.blurred = replaced
            expected = one.infidelity("square", samples=12, side_px=6, noise=0.7)
            assert fills[fill]["infidelity", "square"][row][0] == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_aic_counts_right_answers_and_sic_adds_up_probabilities(
    store: Store, inputs: dict[str, Artifact], found: Found
) -> None:
    told = {**SECTION["information_curve"], "compression": "png", "monotone": True}
    other = evaluate(store, inputs, metrics=["aic", "sic"], information_curve=told)
    compared = {"aic": 0, "sic": 0}
    for row in range(COUNT):
        one = Reference(inputs, row)
        for metric in ("aic", "sic"):
            value, status = found[metric, ""][row]
            if one.probability(one.image) < SURE:
                assert (value, status) == (None, OUTCOMES[LOW_PROBABILITY])
                continue
            accuracy = metric == "aic"
            assert (status, other[metric, ""][row][1]) == ("ok", "ok")
            assert value == pytest.approx(one.information_curve("webp", accuracy=accuracy, monotone=False), abs=1e-5)
            expected = one.information_curve("png", accuracy=accuracy, monotone=True)
            assert other[metric, ""][row][0] == pytest.approx(expected, abs=1e-5)
            compared[metric] += 1
    assert 2 <= compared["aic"] < COUNT
    assert compared["aic"] == compared["sic"]


def test_the_curves_of_the_test_tell_their_arguments_apart(inputs: dict[str, Artifact]) -> None:
    """Or the test above would pass whatever the stage did."""
    rows = [Reference(inputs, row) for row in range(COUNT)]
    sure = [one for one in rows if one.probability(one.image) >= SURE]
    for accuracy in (True, False):
        of = [
            [one.information_curve(compression, accuracy=accuracy, monotone=monotone) for one in sure]
            for compression, monotone in (("webp", False), ("png", False), ("webp", True), ("png", True))
        ]
        assert all(not np.allclose(a, b, atol=1e-3) for place, a in enumerate(of) for b in of[:place])
