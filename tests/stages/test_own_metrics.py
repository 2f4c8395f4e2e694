"""Metrics of the user's own: what they are given, what is written, and what is refused by name."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from roarline.artifacts.curves import CURVES_FILE
from roarline.artifacts.dataset import DATASET_FILE, DatasetFile
from roarline.artifacts.store import Artifact, Store
from roarline.artifacts.tables import SCORES_FILE, read_parquet
from roarline.config.perturbation import EvaluatePerturbation
from roarline.data.loading import normalise
from roarline.errors import MethodError, MetricError, RoarlineError
from roarline.execution.run_job import run_job
from roarline.models.load import load_classifier
from roarline.stages import evaluate_perturbation as stage
from roarline.stages import own_metrics
from roarline.stages.job import Context
from tests.stages.toy_classifier import job_for, toy_classifier, toy_dataset
from tests.stages.toy_maps import distinct_values, toy_maps

SIDE, COUNT = 16, 12


def logit_times_map(model: nn.Module, images: Tensor, targets: Tensor, maps: Tensor, scale: float = 1.0) -> Tensor:
    """Every argument matters: the target's logit times the map's mean."""
    return scale * model(images).gather(1, targets[:, None])[:, 0].detach() * maps.mean(dim=(1, 2))


def slope(model: nn.Module, images: Tensor, targets: Tensor, maps: Tensor) -> np.ndarray:
    """Needs gradients of the images; returns an array."""
    images.requires_grad_()
    model(images).gather(1, targets[:, None]).sum().backward()
    assert images.grad is not None
    return images.grad.abs().sum(dim=(1, 2, 3)).numpy()


def nan_for_dark_corners(model: nn.Module, images: Tensor, targets: Tensor, maps: Tensor) -> Tensor:
    return torch.where(images[:, 0, 0, 0] > 0, 1.0, torch.nan)


def draws(model: nn.Module, images: Tensor, targets: Tensor, maps: Tensor) -> Tensor:
    noise = torch.rand(len(images)) + np.random.rand() + random.random()  # noqa: NPY002 (as users' code does)
    return noise.double()


def spoils_its_arguments(model: nn.Module, images: Tensor, targets: Tensor, maps: Tensor) -> Tensor:
    images.zero_()
    targets.zero_()
    return maps.zero_().sum(dim=(1, 2))


def one_for_all(model: nn.Module, images: Tensor, targets: Tensor, maps: Tensor) -> Tensor:
    return maps.mean()


def words(model: nn.Module, images: Tensor, targets: Tensor, maps: Tensor) -> Any:
    return ["good"] * len(images)


def raises(model: nn.Module, images: Tensor, targets: Tensor, maps: Tensor) -> Tensor:
    raise ZeroDivisionError("of its own")


def changes_the_model(model: nn.Module, images: Tensor, targets: Tensor, maps: Tensor) -> Tensor:
    with torch.no_grad():
        next(model.parameters()).mul_(2)
    return maps.sum(dim=(1, 2))


@pytest.fixture
def inputs(store: Store) -> dict[str, Artifact]:
    """Twelve images, a network, tie-free maps."""
    dataset = toy_dataset(store)
    return {
        "dataset": dataset,
        "classifier": toy_classifier(store),
        "maps": toy_maps(store, dataset, distinct_values(COUNT, SIDE)),
    }


def own(function: Any, name: str | None = None, **params: Any) -> dict[str, Any]:
    path = f"{__name__}.{function.__name__}"
    return {"name": name or function.__name__, "metric": path, "dotted_path": path, "params": params}


def evaluate(store: Store, inputs: dict[str, Artifact], *metrics: dict[str, Any], **changes: Any) -> Artifact:
    parameters = {
        **EvaluatePerturbation().model_dump(mode="json"), "sign": "signed", "seed": 0, "threads": 1, "metrics": [],
        "own_metrics": list(metrics), **changes,
    }  # fmt: skip
    job = job_for(stage.STAGE, parameters, inputs)
    run_job(job, Context(store))
    return store.open(job.stage, job.key)


def values(artifact: Artifact, metric: str) -> np.ndarray:
    table = read_parquet(artifact.file(SCORES_FILE))
    rows = zip(table["metric"], table["setting"], table["value"], strict=True)
    return np.array([value for name, setting, value in rows if (name, setting) == (metric, "")], dtype=float)


def test_a_metric_gets_model_images_targets_and_maps_and_its_params(
    store: Store, inputs: dict[str, Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_metrics, "pass_size", lambda height, width, device: 5)  # three calls
    found = values(evaluate(store, inputs, own(logit_times_map, scale=3.0)), "logit_times_map")
    model, card = load_classifier(inputs["classifier"])
    with DatasetFile(inputs["dataset"].file(DATASET_FILE)) as dataset:
        images = normalise(torch.from_numpy(dataset.pixels(range(COUNT))), card.mean, card.std)
    expected = 3 * model(images)[:, 0].detach().numpy() * distinct_values(COUNT, SIDE).mean(axis=(1, 2))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)  # float32 networks in other batches


def test_maps_are_read_as_pixels_are_ranked(store: Store, inputs: dict[str, Artifact]) -> None:
    signed = toy_maps(store, inputs["dataset"], distinct_values(COUNT, SIDE) - np.float32(0.5))
    magnitudes = toy_maps(store, inputs["dataset"], np.abs(distinct_values(COUNT, SIDE) - np.float32(0.5)))
    one = evaluate(store, {**inputs, "maps": signed}, own(logit_times_map), sign="absolute")
    assert one.digest == evaluate(store, {**inputs, "maps": magnitudes}, own(logit_times_map)).digest


def test_a_metric_may_take_gradients_of_the_images(store: Store, inputs: dict[str, Artifact]) -> None:
    assert (values(evaluate(store, inputs, own(slope)), "slope") > 0).all()


def test_own_metrics_stand_beside_the_tables(store: Store, inputs: dict[str, Artifact]) -> None:
    alone, both = evaluate(store, inputs, own(slope)), evaluate(store, inputs, own(slope), metrics=["morf"])
    assert CURVES_FILE not in alone.manifest.files
    assert set(read_parquet(both.file(SCORES_FILE))["metric"]) == {"morf", "slope"}
    np.testing.assert_array_equal(values(alone, "slope"), values(both, "slope"))
    np.testing.assert_array_equal(values(both, "morf"), values(evaluate(store, inputs, metrics=["morf"]), "morf"))


def test_a_metric_that_spoils_its_arguments_spoils_no_other(store: Store, inputs: dict[str, Artifact]) -> None:
    alone = evaluate(store, inputs, own(logit_times_map), metrics=["morf"])
    after = evaluate(store, inputs, own(spoils_its_arguments), own(logit_times_map), metrics=["morf"])
    for name in ("morf", "logit_times_map"):
        np.testing.assert_array_equal(values(after, name), values(alone, name))


def test_draws_come_from_the_seed_and_leave_the_global_generators_as_they_were(
    store: Store, inputs: dict[str, Artifact]
) -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state(), random.getstate()
    first = evaluate(store, inputs, own(draws))
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert before[1] == random.getstate()
    torch.manual_seed(6)
    random.seed(6)
    again = evaluate(store, inputs, own(draws), own(slope))  # another artifact, the same draws
    np.testing.assert_array_equal(values(first, "draws"), values(again, "draws"))
    assert (values(first, "draws") != values(evaluate(store, inputs, own(draws), seed=1), "draws")).all()


def test_a_value_that_is_nan_is_a_row_with_a_status(store: Store, inputs: dict[str, Artifact]) -> None:
    table = read_parquet(evaluate(store, inputs, own(nan_for_dark_corners)).file(SCORES_FILE))
    with DatasetFile(inputs["dataset"].file(DATASET_FILE)) as dataset:
        dark = dataset.pixels(range(COUNT))[:, 0, 0, 0] / 255 <= 0.5
    assert 0 < dark.sum() < COUNT
    assert [value is None for value in table["value"]] == dark.tolist()
    assert table["status"] == ["the metric's value is NaN or infinite" if bad else "ok" for bad in dark]


@pytest.mark.parametrize(
    ("function", "error", "said"),
    [
        (one_for_all, MetricError, r"'one_for_all': returned shape \[\] .*'image/0000', expected \[12\]"),
        (words, MetricError, "'words': returned a list .*'image/0000'"),
        (raises, MetricError, "'raises': failed at .*'image/0000': ZeroDivisionError: of its own"),
        (changes_the_model, MethodError, "changes_the_model.*: changed the model itself"),
    ],
)
def test_a_bad_metric_is_refused_by_name(
    store: Store, inputs: dict[str, Artifact], function: Any, error: type[RoarlineError], said: str
) -> None:
    with pytest.raises(error, match=said) as caught:
        evaluate(store, inputs, own(function))
    assert caught.value.exit_code == 2


def test_params_that_the_metric_does_not_take_are_refused(store: Store, inputs: dict[str, Artifact]) -> None:
    with pytest.raises(MetricError, match="unexpected keyword argument 'knob'"):
        evaluate(store, inputs, own(logit_times_map, knob=3))
