"""The probes of evaluate-perturbation: each number by plain loops, shared passes, draws, statuses, resuming."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from roarline.artifacts.dataset import DATASET_FILE, DatasetFile
from roarline.artifacts.store import Artifact, Store
from roarline.artifacts.tables import SCORES_FILE, read_parquet
from roarline.config.perturbation import EvaluatePerturbation
from roarline.config.probes import (
    PROBES,
    FaithfulnessCorrelation,
    Infidelity,
    InformationCurve,
    MapSensitivity,
    SensitivityN,
)
from roarline.data.loading import normalise
from roarline.evaluation.infidelity import noise_weights, square_weights
from roarline.evaluation.pixel_sets import draw_pixel_sets
from roarline.execution.run_job import run_job
from roarline.models.load import load_classifier
from roarline.seeds import derive_seed
from roarline.stages import evaluate_perturbation as stage
from roarline.stages import measured_rows
from roarline.stages.job import Context
from roarline.stages.perturbation_measures import find_measures
from tests.stages.toy_classifier import job_for, toy_classifier, toy_dataset
from tests.stages.toy_maps import distinct_values, toy_maps

SIDE, COUNT = 16, 12
SECTIONS = {
    "sensitivity_n": SensitivityN(fractions=[0.1, 0.5], subsets=20),
    "faithfulness_correlation": FaithfulnessCorrelation(fraction=0.1, subsets=12),
    "infidelity": Infidelity(samples=18, sides=[0.25, 0.5]),
    "map_sensitivity": MapSensitivity(samples=3),
    "information_curve": InformationCurve(fractions=[0.1, 0.4, 0.8], compression="png"),
}
PARAMETERS = {
    **EvaluatePerturbation().model_dump(mode="json"),
    **{name: section.model_dump(mode="json") for name, section in SECTIONS.items()},
    "metrics": [metric for section, metrics in PROBES.items() for metric in metrics if section != "map_sensitivity"],
    "sign": "signed", "seed": 0, "threads": 1,
}  # fmt: skip


@pytest.fixture
def inputs(store: Store) -> dict[str, Artifact]:
    """Twelve images, a network, tie-free maps."""
    dataset = toy_dataset(store)
    return {
        "dataset": dataset,
        "classifier": toy_classifier(store),
        "maps": toy_maps(store, dataset, distinct_values(COUNT, SIDE)),
    }


def evaluate(store: Store, inputs: dict[str, Artifact], context: Context | None = None, **parameters: Any) -> Artifact:
    """Run the stage; the artifact."""
    job = job_for(stage.STAGE, {**PARAMETERS, **parameters}, inputs)
    run_job(job, context or Context(store))
    return store.open(job.stage, job.key)


def columns(artifact: Artifact) -> dict[tuple[str, str], tuple[list[float | None], list[str]]]:
    """(metric, setting) to values and statuses, in the file's order."""
    table = read_parquet(artifact.file(SCORES_FILE))
    found: dict[tuple[str, str], tuple[list[float | None], list[str]]] = {}
    for metric, setting, value, status in zip(
        table["metric"], table["setting"], table["value"], table["status"], strict=True
    ):
        values, statuses = found.setdefault((metric, setting), ([], []))
        values.append(value)
        statuses.append(status)
    return found


def values(artifact: Artifact, metric: str, setting: str = "") -> np.ndarray:
    return np.array(columns(artifact)[metric, setting][0], dtype=float)


class Reference:
    """One row by plain loops, an image a pass; the draws are those that the seeds give."""

    def __init__(self, inputs: dict[str, Artifact], row: int) -> None:
        self.model, card = load_classifier(inputs["classifier"])
        with DatasetFile(inputs["dataset"].file(DATASET_FILE)) as dataset:
            self.image = normalise(torch.from_numpy(dataset.pixels([row])), card.mean, card.std)[0]
        self.map = torch.from_numpy(distinct_values(COUNT, SIDE)[row]).double()
        self.sample_id = f"image/{row:04d}"

    def score(self, image: Tensor) -> float:
        return float(self.model(image[None]).softmax(dim=1)[0, 0])

    def draws(self, purpose: str, block: int) -> torch.Generator:
        return torch.Generator().manual_seed(derive_seed(0, purpose, self.sample_id, block))

    def correlation(self, fraction: float, subsets: int, sizes: list[int]) -> float:
        """The fill is the data set's mean, 0 in the network's space."""
        sums, drops = [], []
        for subset in range(subsets):
            masks = draw_pixel_sets(self.draws("pixel sets", subset // 10), 10, sizes, SIDE, SIDE)
            place = sizes.index(int(fraction * SIDE * SIDE))
            mask = masks.reshape(10, len(sizes), SIDE, SIDE)[subset % 10, place]
            sums.append(self.map[mask].sum().item())
            drops.append(self.score(self.image) - self.score(self.image.masked_fill(mask, 0.0)))
        return float(np.corrcoef(sums, drops)[0, 1])

    def infidelity(self, kind: str, samples: int) -> float:
        relevance, drops = [], []
        for sample in range(samples):
            generator = self.draws(f"infidelity {kind}", sample // 10)
            square = kind == "square"
            weights = (
                square_weights(generator, 10, SIDE, SIDE, [4, 8]) if square
                else noise_weights(generator, 10, SIDE, SIDE, 0.2)
            )[sample % 10]  # fmt: skip
            relevance.append((weights * self.map).sum().item())
            drops.append(self.score(self.image) - self.score(self.image * (1 - weights)))
        x, y = np.array(relevance), np.array(drops)
        return float(((x * (x @ y) / (x @ x) - y) ** 2).mean())


def test_every_number_is_what_plain_loops_compute(store: Store, inputs: dict[str, Artifact]) -> None:
    found = evaluate(store, inputs)
    for row in (0, 7, 11):
        reference = Reference(inputs, row)
        sizes = [int(0.1 * 256), 128]
        expected = {
            ("sensitivity_n", "removed_fraction=0.1"): reference.correlation(0.1, 20, sizes),
            ("sensitivity_n", "removed_fraction=0.5"): reference.correlation(0.5, 20, sizes),
            ("faithfulness_correlation", ""): reference.correlation(0.1, 12, sizes),
            ("infidelity", "square"): reference.infidelity("square", 18),
            ("infidelity", "noise"): reference.infidelity("noise", 18),
        }
        for name, value in expected.items():
            # float32 networks on other batches and memory layouts: probabilities move by 1e-7, drops are 1e-2.
            assert values(found, *name)[row] == pytest.approx(value, rel=2e-3, abs=1e-4), name


def test_every_row_has_a_number_or_a_status(store: Store, inputs: dict[str, Artifact]) -> None:
    found = columns(evaluate(store, inputs))
    assert list(found) == [
        ("aic", ""), ("sic", ""),
        ("sensitivity_n", "removed_fraction=0.1"), ("sensitivity_n", "removed_fraction=0.5"),
        ("faithfulness_correlation", ""), ("infidelity", "square"), ("infidelity", "noise"),
    ]  # fmt: skip
    for numbers, statuses in found.values():
        assert len(numbers) == COUNT
        assert [number is None for number in numbers] == [status != "ok" for status in statuses]


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many images each pass of a measure had."""
    seen: list[int] = []
    usual = measured_rows.outputs_of_copies

    def counting(model: nn.Module, *arguments: Any, **named: Any) -> Any:
        handle = model.register_forward_pre_hook(lambda module, images: seen.append(len(images[0])))
        try:
            return usual(model, *arguments, **named)
        finally:
            handle.remove()

    monkeypatch.setattr(measured_rows, "outputs_of_copies", counting)
    return seen


def test_metrics_of_the_same_images_share_passes(
    store: Store, inputs: dict[str, Artifact], passes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measured_rows, "pass_size", lambda height, width, device: 32)
    evaluate(store, inputs)
    # Two sizes of 20 sets serve both correlations; two perturbations of 18; three shares and the blurred image; and the
    # untouched image once.
    sets, perturbations, curve, untouched = 20 * 2, 18 * 2, 4, 1
    assert sum(passes) == COUNT * (sets + perturbations + curve + untouched)
    assert sum(measure.passes for measure in find_measures(PARAMETERS)) == sets + perturbations + curve
    assert sum(size < 32 for size in passes) <= 5  # the last pass of each measure


def test_a_correlation_of_other_sets_has_passes_of_its_own(
    store: Store, inputs: dict[str, Artifact], passes: list[int]
) -> None:
    other = {"fraction": 0.25, "subsets": 12, "fill": "zero"}
    metrics = ["sensitivity_n", "faithfulness_correlation"]
    evaluate(store, inputs, metrics=metrics, faithfulness_correlation=other)
    assert sum(passes) == COUNT * (20 * 2 + 12 + 1)


def test_the_untouched_image_of_a_curve_serves_the_measures(
    store: Store, inputs: dict[str, Artifact], passes: list[int]
) -> None:
    alone = evaluate(store, inputs, metrics=["sensitivity_n"])
    assert sum(passes) == COUNT * (20 * 2 + 1)
    passes.clear()
    beside = evaluate(store, inputs, metrics=["sensitivity_n", "morf"])
    assert sum(passes) == COUNT * 20 * 2
    name = ("sensitivity_n", "removed_fraction=0.5")
    np.testing.assert_allclose(values(alone, *name), values(beside, *name), atol=1e-4)


def test_methods_are_probed_with_the_same_sets(store: Store, inputs: dict[str, Artifact]) -> None:
    """Correlations are blind to scale and offset, so another unit gives the same number where sets are the same."""
    moved = toy_maps(store, inputs["dataset"], 3 * distinct_values(COUNT, SIDE) - np.float32(10))
    one, other = evaluate(store, inputs), evaluate(store, {**inputs, "maps": moved})
    for name in (("faithfulness_correlation", ""), ("sensitivity_n", "removed_fraction=0.1")):
        np.testing.assert_allclose(values(one, *name), values(other, *name), atol=1e-6)  # float32 maps
    negative = toy_maps(store, inputs["dataset"], -distinct_values(COUNT, SIDE))
    turned = evaluate(store, {**inputs, "maps": negative})
    name = ("sensitivity_n", "removed_fraction=0.5")
    np.testing.assert_allclose(values(turned, *name), -values(one, *name), atol=1e-9)


def test_quantus_bug_every_batch_is_scored_whatever_its_size(
    store: Store, inputs: dict[str, Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    """peers.md: SensitivityN scores only the first batch; here rows of all parts have numbers, whatever the cut."""
    whole = evaluate(store, inputs)
    monkeypatch.setattr(stage, "rows_per_part", lambda height, width: 5)
    monkeypatch.setattr(measured_rows, "pass_size", lambda height, width, device: 3)
    parts = evaluate(store, inputs, seed=0, limit=COUNT)  # another key, the same rows
    for name in columns(whole):
        np.testing.assert_allclose(values(parts, *name), values(whole, *name), rtol=1e-3, atol=1e-4)
    assert len(np.unique(values(parts, "sensitivity_n", "removed_fraction=0.1"))) == COUNT


def test_a_logit_score_and_another_seed_change_what_they_should(store: Store, inputs: dict[str, Artifact]) -> None:
    one, logit, seeded = (
        evaluate(store, inputs),
        evaluate(store, inputs, score="logit"),
        evaluate(store, inputs, seed=1),
    )
    assert (values(one, "infidelity", "square") != values(logit, "infidelity", "square")).all()
    assert (values(one, "infidelity", "noise") != values(seeded, "infidelity", "noise")).all()
    np.testing.assert_array_equal(values(one, "sic"), values(logit, "sic"))  # by name of the probability
    np.testing.assert_array_equal(values(one, "sic"), values(seeded, "sic"))


def test_constant_maps_have_a_stated_outcome(store: Store, inputs: dict[str, Artifact]) -> None:
    constant = toy_maps(store, inputs["dataset"], np.full((COUNT, SIDE, SIDE), 0.5, dtype=np.float32))
    found = columns(evaluate(store, {**inputs, "maps": constant}))
    same = {"the map's relevance is the same for every pixel set"}
    assert set(found["sensitivity_n", "removed_fraction=0.1"][1]) == same
    assert set(found["faithfulness_correlation", ""][1]) == same
    assert set(found["infidelity", "square"][1]) == {"ok"}


class Blind(nn.Module):
    """Says the same of every image."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.arange(float(num_classes)))

    def forward(self, images: Tensor) -> Tensor:
        return self.logits.expand(len(images), -1)


class Broken(Blind):
    """Gives NaN."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) * torch.nan


def test_classifiers_that_say_nothing_have_a_stated_outcome(store: Store, inputs: dict[str, Artifact]) -> None:
    def of(name: str) -> dict[str, set[str]]:
        arch = f"tests.stages.test_perturbation_measures.{name}"
        found = columns(evaluate(store, {**inputs, "classifier": toy_classifier(store, arch=arch, params={})}))
        return {metric: set(statuses) for (metric, _), (_, statuses) in found.items()}

    blind, broken = of("Blind"), of("Broken")
    assert blind["sensitivity_n"] == {"the classifier's output is the same for every pixel set"}
    assert blind["sic"] == {"the classifier says no more of the whole image than of the blurred one"}
    assert blind["infidelity"] == {"ok"}
    assert set.union(*broken.values()) == {"the classifier's output is NaN or infinite"}


def test_information_curves_reward_maps_that_show_what_the_network_looks_at(store: Store) -> None:
    """A network that looks at one corner: a map of it reveals all it wants at once, the map's negative at the end."""
    arch = "tests.stages.test_perturbation_measures.Corner"
    dataset = toy_dataset(store)
    corner = np.zeros((COUNT, SIDE, SIDE), dtype=np.float32)
    corner[:, :6, :6] = 1
    inputs = {"dataset": dataset, "classifier": toy_classifier(store, arch=arch, params={})}
    best, worst = (
        evaluate(store, {**inputs, "maps": toy_maps(store, dataset, sign * corner)}, metrics=["sic", "aic"])
        for sign in (1, -1)
    )
    ok = ~np.isnan(values(best, "sic"))
    assert ok.any()
    assert (values(best, "sic")[ok] > values(worst, "sic")[ok] + 0.1).all()
    assert ((values(best, "sic")[ok] <= 1) & (values(worst, "sic")[ok] >= 0)).all()


class Corner(nn.Module):
    """Class 0 by the contrast in the upper left corner, that a blur takes away."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(num_classes))

    def forward(self, images: Tensor) -> Tensor:
        contrast = images[:, :, :6, :6].std(dim=(1, 2, 3))
        return torch.cat([4 * contrast[:, None] - 2, self.bias[1:].expand(len(images), -1)], dim=1)


class InterruptedRunError(Exception):
    """Stands for a kill."""


def test_an_interrupted_run_goes_on_and_has_the_same_digest(
    store: Store, inputs: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "rows_per_part", lambda height, width: 5)
    undisturbed = Store(tmp_path / "undisturbed")
    again = {
        "dataset": toy_dataset(undisturbed), "classifier": toy_classifier(undisturbed),
        "maps": toy_maps(undisturbed, toy_dataset(undisturbed), distinct_values(COUNT, SIDE)),
    }  # fmt: skip
    expected = evaluate(undisturbed, again).digest

    def interrupt(done: int, total: int, unit: str) -> None:
        if done == 10:
            raise InterruptedRunError

    with pytest.raises(InterruptedRunError):
        evaluate(store, inputs, Context(store, progress=interrupt))
    seen: list[int] = []
    artifact = evaluate(store, inputs, Context(store, progress=lambda done, total, unit: seen.append(done)))
    assert artifact.digest == expected
    assert seen == [10, COUNT]


def test_mixed_precision_is_close(store: Store, inputs: dict[str, Artifact]) -> None:
    """bfloat16 has 8 bits, so that drops of 1e-2 keep one or two: squares of them have the same order."""
    full, mixed = evaluate(store, inputs), evaluate(store, inputs, precision="bfloat16")
    assert full.digest != mixed.digest
    ratio = values(mixed, "infidelity", "square").mean() / values(full, "infidelity", "square").mean()
    assert 0.5 < ratio < 2
