"""The section evaluate-localization: what is refused, what is needed, which jobs it plans."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from roarline.config.experiment import Experiment
from roarline.config.localization import EvaluateLocalization
from roarline.execution.plan import build_plan


def experiment(dataset: str = "shapes", **section: Any) -> Experiment:
    return Experiment.model_validate(
        {
            "name": "e", "data": {"dataset": dataset}, "model": {"arch": "small_cnn"}, "train-cls": {"epochs": 1},
            "attribution": {"methods": [{"name": "gradient"}, {"name": "gradcam", "mask": "none"}], "baselines": []},
            "evaluate-localization": section,
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        (["pointing_gme"], "no metric is 'pointing_gme'.*pointing_game"),
        (["morf"], "'morf' is computed by evaluate-perturbation"),
        (["pxap", "pxap"], "holds a metric twice"),
        ([], "at least 1"),
    ],
)
def test_wrong_metrics_are_refused(metrics: list[str], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        EvaluateLocalization(metrics=metrics)


def test_metrics_that_need_ground_truth_are_refused_where_there_is_none() -> None:
    with pytest.raises(ValidationError, match="'pointing_game' needs segmentation or boxes, and data set 'digits' has"):
        experiment("digits", metrics=["pointing_game"])
    with pytest.raises(ValidationError, match="'le' needs boxes"):
        experiment("digits", metrics=["le"])
    assert experiment("digits", metrics=["gini_sparseness"]).evaluate_localization


def test_a_job_a_method_and_others_for_metrics_that_need_maps_of_their_own() -> None:
    plan = build_plan(experiment(metrics=["difull", "pointing_game", "class_specificity"]))
    jobs = plan.of("evaluate-localization")
    assert [job.parameters["metrics"] for job in jobs] == 2 * [["pointing_game"], ["difull"], ["class_specificity"]]
    assert [set(job.inputs) for job in jobs[:3]] == [
        {"dataset", "classifier", "maps"}, {"dataset", "classifier"}, {"dataset", "classifier"}
    ]  # fmt: skip
    assert [job.parameters.get("mask") for job in jobs] == ["min_max", None, "min_max", "none", None, "none"]
    summary = plan.of("aggregate-scores")[0]
    assert {"localization:gradient", "grids:gradcam", "classes:gradient"} <= set(summary.inputs)


def test_settings_of_other_metrics_are_in_no_key() -> None:
    def keys(**section: Any) -> list[str]:
        return [job.key for job in build_plan(experiment(metrics=["pxap"], **section)).of("evaluate-localization")]

    assert keys() == keys(grid={"count": 3}) == keys(class_matrix={"images": 3})
    assert keys() != keys(threshold_step=0.1)


def test_each_metric_takes_the_ground_truth_that_it_judges_by() -> None:
    metrics = ["pointing_game", "roc_auc", "le", "gini_sparseness"]
    section = EvaluateLocalization(metrics=metrics)
    assert section.kinds() == {"pointing_game": "auto", "roc_auc": "auto", "le": "boxes"}
    assert section.kinds("boxes") == {"pointing_game": "boxes", "roc_auc": "auto", "le": "boxes"}
    by_boxes = EvaluateLocalization(metrics=metrics, ground_truth="boxes")
    assert set(by_boxes.kinds().values()) == {"boxes"}
    one = EvaluateLocalization(metrics=metrics, ground_truth={"pointing_game": "segmentation"})
    assert one.kinds("boxes") == {"pointing_game": "segmentation", "roc_auc": "auto", "le": "boxes"}


def test_pointing_games_on_voc_are_by_boxes() -> None:
    section = {"metrics": ["pointing_game", "roc_auc"]}
    (job, _) = build_plan(experiment("voc", **section)).of("evaluate-localization")
    assert job.parameters["ground_truth"] == {"pointing_game": "boxes", "roc_auc": "auto"}
    (job, _) = build_plan(experiment("coco", **section)).of("evaluate-localization")
    assert job.parameters["ground_truth"] == {"pointing_game": "auto", "roc_auc": "auto"}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"roc_auc": "boxes"}, "'roc_auc' is not among the metrics"),
        ({"le": "segmentation"}, "'le' always takes boxes"),
        ({"gini_sparseness": "boxes"}, "'gini_sparseness' needs no ground truth"),
        ({"pxap": "masks"}, "Input should be 'auto', 'segmentation' or 'boxes'"),
    ],
)
def test_wrong_kinds_are_refused(asked: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        EvaluateLocalization(metrics=["pxap", "le", "gini_sparseness"], ground_truth=asked)


def test_the_file_of_the_difficult_subset_is_in_the_key_by_its_content(tmp_path: Path) -> None:
    file, metrics = tmp_path / "difficult.txt", ["pointing_game_difficult"]

    def job(**section: Any) -> Any:
        return build_plan(experiment(metrics=metrics, **section)).of("evaluate-localization")[0]

    assert "no such file" in (build_plan(experiment(metrics=metrics, difficult_subset=str(file))).pending or "")
    file.write_text("a\t1\n")
    first = job(difficult_subset=str(file))
    assert first.local["difficult_subset"] == str(file)
    assert first.parameters["difficult_subset"].startswith("sha256:")
    moved = tmp_path / "moved.txt"
    moved.write_text("a\t1\n")
    assert job(difficult_subset=str(moved)).key == first.key
    moved.write_text("a\t0\n")
    assert job(difficult_subset=str(moved)).key != first.key
    without = build_plan(experiment(metrics=["pxap"], difficult_subset=str(file))).of("evaluate-localization")[0]
    assert "difficult_subset" not in without.parameters
