"""The stage report: every shape of experiment gives a whole page, and the same one each time."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from roarline.artifacts.files import read_json
from roarline.artifacts.store import Artifact, Store
from roarline.errors import ArtifactError
from roarline.report.inline_svg import InlineFigures
from roarline.stages.evaluate_class_masks import write_matrix, write_rows
from tests.report.make_experiment import Recipe, conflict, make, run_report, summary_columns
from tests.report.read_page import Page, read_page, words
from tests.stages.toy_classifier import make_artifact

_SMALL = Recipe(modes=("roar",), metrics=("morf",), fractions=(0.5,), repeats=1, gallery_images=1)


def _report(store: Store, recipe: Recipe) -> Artifact:
    return run_report(store, make(store, recipe))


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    """What the report is of."""
    return conflict()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe) -> Artifact:
    """A report that tests only look at."""
    return _report(Store(tmp_path_factory.mktemp("report") / "artifacts"), recipe)


def _page(artifact: Artifact) -> Page:
    return read_page(artifact.file("index.html").read_text(encoding="utf-8"))


def test_equal_inputs_give_an_equal_digest_whatever_the_times(tmp_path):
    first, again = _report(Store(tmp_path / "first"), _SMALL), _report(Store(tmp_path / "again"), _SMALL)
    assert again.digest == first.digest
    assert again.file("report.json").read_bytes() == first.file("report.json").read_bytes()
    other_times = {"duration_s": 99.0, "torch": "9.9.9", "started": "2030-01-01T00:00:00"}
    later = _report(Store(tmp_path / "later"), replace(_SMALL, provenance=other_times))
    assert later.digest == first.digest
    assert "9.9.9" in _page(later).text


def test_the_page_is_outside_the_digest_and_the_json_inside(report: Artifact):
    assert report.manifest.files["index.html"].content is None
    assert report.manifest.files["report.json"].content is not None


def test_every_figure_of_the_page_is_a_file_too(report: Artifact):
    files = [name for name in report.manifest.files if name.endswith(".svg")]
    assert "roar-accuracy.svg" in files
    page = report.file("index.html").read_text(encoding="utf-8")
    files_by_name = {name: report.file(name).read_bytes() for name in report.manifest.files if name in files}
    figures = InlineFigures(files_by_name)
    for name in files:
        assert files_by_name[name].lstrip().startswith(b"<?xml")
        inside = figures.figure(name, "").partition(">")[2]
        assert re.sub(r"plot-s?\d+", "", inside) in re.sub(r"plot-s?\d+", "", page)  # the page numbers in its order
        assert report.manifest.files[name].content is None  # another matplotlib may draw other bytes


def test_class_matrices_are_pictures_of_the_page_and_files(tmp_path):
    """What evaluate-localization wrote for one method; the other has none."""
    store = Store(tmp_path)
    job = make(store, _SMALL)
    masked = np.array([[[0.9, 0.1], [0.3, 0.4]], [[0.7, 0.3], [0.5, 0.8]]])  # [image][class][mask]
    has = np.array([[True, True], [True, False]])

    def write(folder: Path) -> None:
        write_rows(folder, ["a", "b"], [0, 1], has, masked, np.zeros((2, 2), dtype=bool), ["class_specificity"])
        write_matrix(folder, ["cat", "dog"], has, masked, np.full((2, 2), 0.6))

    method = next(iter(_SMALL.methods))
    classes = make_artifact(store, "evaluate-localization", {"classes": 2}, write)
    role = {f"classes:{method}": (classes.manifest.stage, classes.manifest.key)}
    report = run_report(store, replace(job, inputs={**job.inputs, **role}))
    (matrix,) = read_json(report.file("report.json"))["class_matrices"]
    assert (matrix["method"], matrix["classes"], matrix["images"]) == (method, ["cat", "dog"], [2, 1])
    np.testing.assert_allclose(matrix["masked"], [[0.8, 0.2], [0.3, 0.4]])
    assert matrix["whole"] == [0.6, 0.6]
    assert report.file(f"{matrix['name']}.svg").read_bytes().startswith(b"<?xml")
    page = report.file("index.html").read_text(encoding="utf-8")
    assert f'aria-label="{method}: probability of cat, dog under the mask of each of them"' in page
    assert "One class's mask" in page.replace("&#39;", "'")


def test_the_json_holds_what_the_page_shows(report: Artifact, recipe: Recipe):
    content = read_json(report.file("report.json"))
    page = words(_page(report).text)
    for passage in content["passages"]:
        for paragraph in passage["paragraphs"]:
            assert words(paragraph.replace("`", "")) in page.replace("\xa0", " ")
    assert {panel["name"] for panels in content["retraining"].values() for panel in panels} == {
        "roar-accuracy", "roar-leakage", "kar-accuracy", "kar-leakage",
    }  # fmt: skip
    tile = content["gallery"][0]["tiles"][0]
    assert len(tile["map"]) == len(tile["overlay"]) == len(tile["removed"]) == 64
    assert len(content["scores"]) == len(summary_columns(recipe)["method"])


def test_only_retraining(store: Store):
    page = _page(_report(store, replace(_SMALL, metrics=())))
    assert "ROAR: remove and retrain" in page.text
    assert "Without retraining" not in page.text
    assert "MoRF" not in page.text


def test_only_perturbation(store: Store):
    page = _page(_report(store, replace(_SMALL, modes=())))
    assert "remove and retrain" not in page.text
    assert "Without retraining" in page.text


def test_no_evaluation_at_all(store: Store):
    page = _page(_report(store, replace(_SMALL, modes=(), metrics=())))
    assert "asked for no evaluation" in page.text
    assert "Gallery" in page.text


def test_no_gallery(store: Store):
    artifact = _report(store, replace(_SMALL, gallery_images=0))
    assert read_json(artifact.file("report.json"))["gallery"] == []
    assert "Gallery" not in _page(artifact).text


def test_more_gallery_images_than_there_are(store: Store):
    content = read_json(_report(store, replace(_SMALL, gallery_images=50)).file("report.json"))
    assert len(content["gallery"]) == 16


def test_several_labels_an_image(store: Store):
    recipe = replace(_SMALL, multi_label=True, channels=3, gallery_images=8)
    artifact = _report(store, recipe)
    for item in read_json(artifact.file("report.json"))["gallery"]:
        assert len(item["labels"]) == 2
        assert item["target"] in item["labels"]
        assert all(0 <= score["probability"] <= 1 for score in item["likeliest"])
    text = words(_page(artifact).text)
    assert "share of right decisions over all images and classes" in text
    levels = read_json(artifact.file("report.json"))["retraining"]["roar"][0]["levels"]
    assert "always the more frequent answer" in levels[1]["label"]


def test_large_colour_images_stay_small_on_the_page(store: Store):
    real = ("integrated_gradients", "gradient", "smoothgrad", "smoothgrad_squared", "vargrad", "guided_backprop")
    methods = {name: name for name in (*real, "input_x_gradient", "sobel", "random", "constant", "centre_gaussian")}
    methods |= {f"another_{name}": name for name in real[:4]}
    recipe = Recipe(methods=methods, size_px=224, channels=3, gallery_images=8, repeats=1)
    artifact = run_report(store, make(store, recipe))
    # 15 methods of pure noise, the worst case for pictures; 0.5 MB are figures of how far to trust the ranking.
    assert artifact.file("index.html").stat().st_size < 6.5e6


def test_failures_are_rows(store: Store):
    recipe = replace(_SMALL, failures={("morf", "gradient"): "the probability is 0 before anything is removed"})
    artifact = _report(store, recipe)
    failure = read_json(artifact.file("report.json"))["failures"]
    assert failure == [
        {
            "method": "gradient", "metric": "morf", "setting": "", "count": 2,
            "status": "the probability is 0 before anything is removed", "examples": ["sample/008", "sample/009"],
        }
    ]  # fmt: skip
    text = words(_page(artifact).text)
    assert "gradient morf 2 the probability is 0 before anything is removed sample/008, sample/009" in text
    assert "None: every one" not in text


def test_names_are_text_and_never_markup(store: Store):
    hostile = '"><script>alert(1)</script>'
    recipe = replace(
        _SMALL,
        methods={f"m{hostile}": "gradient", "random": "random"},
        class_names=(f"c{hostile}", "<img src=x onerror=alert(1)>", "{{ 7 * 7 }}", "&amp;"),
        title=f"t{hostile}",
        description="<style>body{display:none}</style>",
        gallery_images=4,
    )
    page = _page(_report(store, recipe))
    assert page.tags.count("script") == 1
    assert page.tags.count("style") == 1
    assert all(address.startswith("data:") for _, address in page.resources)
    for name in (f"m{hostile}", *recipe.class_names, f"t{hostile}", recipe.description):
        assert name in page.text


def test_missing_provenance_is_no_obstacle(store: Store):
    assert "unknown" in _page(_report(store, replace(_SMALL, provenance={}))).text


def test_a_missing_map_is_an_error_that_names_the_sample(store: Store, monkeypatch: pytest.MonkeyPatch):
    import tests.report.make_experiment as fabric

    whole = fabric.map_rows

    def without_one(recipe: Recipe, method: str):
        rows = whole(recipe, method)
        if method != "gradient":
            return rows
        return type(rows)(rows.sample_ids[:-1], rows.targets[:-1], rows.maps[:-1], rows.logits[:-1])

    monkeypatch.setattr(fabric, "map_rows", without_one)
    job = make(store, replace(_SMALL, gallery_images=16))
    with pytest.raises(ArtifactError, match=r"no map for sample 'sample/023'"):
        run_report(store, job)


def test_a_changed_input_is_found(store: Store):
    job = make(store, _SMALL)
    path = store.path(*job.inputs["summary"]) / "scores.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match=r"scores.parquet: has \d+ bytes, the manifest says"):
        run_report(store, job)
