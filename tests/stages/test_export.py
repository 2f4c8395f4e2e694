"""export: what was written is what the artifact holds, under names that every system takes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import load_file

from roarline.artifacts.dataset import DatasetContent, DatasetFile, write_dataset
from roarline.artifacts.keys import artifact_key
from roarline.artifacts.store import Artifact, Store
from roarline.artifacts.tables import read_csv
from roarline.errors import UserInputError
from roarline.report.pictures import heat_map
from roarline.stages.export import export, file_name
from roarline.stages.job import Job
from tests.report.make_experiment import Recipe, make, map_rows, summary_columns
from tests.stages.toy_classifier import make_artifact, toy_classifier
from tests.stages.toy_explainer import toy_explainer

_RECIPE = Recipe(modes=("roar",), metrics=("morf",), fractions=(0.5,), repeats=1)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Job]:
    """A store with everything but the report."""
    store = Store(tmp_path_factory.mktemp("export") / "artifacts")
    return store, make(store, _RECIPE)


def _artifact(experiment: tuple[Store, Job], role: str) -> Artifact:
    store, job = experiment
    return store.open(*job.inputs[role])


def test_maps_are_exported_raw_and_as_pictures(experiment: tuple[Store, Job], tmp_path: Path):
    said = list(export(_artifact(experiment, "maps:gradient"), tmp_path, limit=5))
    rows = map_rows(_RECIPE, "gradient")
    with np.load(tmp_path / "maps.npz", allow_pickle=False) as saved:
        np.testing.assert_array_equal(saved["maps"], rows.maps[:5])
        assert saved["maps"].dtype == np.float32
        assert saved["sample_ids"].tolist() == rows.sample_ids[:5]
        np.testing.assert_array_equal(saved["targets"], rows.targets[:5])
    pictures = sorted((tmp_path / "heat_maps").iterdir())
    assert len(pictures) == 5
    for row, path in enumerate(pictures):
        assert re.fullmatch(rf"sample_00?{8 + row}-[0-9a-f]{{10}}_class{rows.targets[row]}.png", path.name)
        # 8 px are shown as 32 px squares; one pixel of each is the map's own colour.
        shown = np.asarray(Image.open(path))
        assert shown.shape == (256, 256, 3)
        np.testing.assert_array_equal(shown[::32, ::32], heat_map(rows.maps[row], signed=True))
    assert any("the first 5 of 16 maps" in line for line in said)


def test_maps_are_read_as_they_were_evaluated_or_as_asked(experiment: tuple[Store, Job], tmp_path: Path):
    """The sign is no part of a map's key, and the method's default need not be what an experiment asked for."""
    store, _ = experiment
    values = map_rows(_RECIPE, "gradient").maps[0]
    maps = _published(store, "extract-attribution-maps", "5" * 64, {"method": "gradient"}, {}, "maps.h5", experiment)

    def shown(folder: str, **asked: Any) -> tuple[np.ndarray, str]:
        said = list(export(maps, tmp_path / folder, limit=1, **asked))
        (picture,) = (tmp_path / folder / "heat_maps").iterdir()
        return np.asarray(Image.open(picture))[::32, ::32], next(line for line in said if "sign" in line)

    for folder, asked, sign, why in (
        ("plain", {}, "signed", "the method's default"), ("asked", {"sign": "absolute"}, "absolute", "as asked"),
    ):  # fmt: skip
        picture, line = shown(folder, **asked)
        expected = heat_map(np.abs(values), signed=False) if sign == "absolute" else heat_map(values, signed=True)
        np.testing.assert_array_equal(picture, expected)
        assert f"sign {sign}" in line
        assert why in line
    for number, sign in enumerate(("positive", "squared")):
        _published(store, "evaluate-localization", f"{number}" * 64, {"sign": sign, "mask": "none"}, {"maps": maps})
        _, line = shown(f"evaluated {number}")
        assert ("sign positive, as masks with none (as they were evaluated)" in line) == (number == 0)
    assert "--sign and --mask choose one" in line


def _published(
    store: Store, stage: str, key: str, parameters: dict[str, Any], inputs: dict[str, Artifact],
    copied: str | None = None, experiment: tuple[Store, Job] | None = None,
) -> Artifact:  # fmt: skip
    with store.writer(stage, 1, key, "by hand", parameters, inputs) as writer:
        assert writer is not None
        if copied and experiment:
            (writer.out / copied).write_bytes(_artifact(experiment, "maps:gradient").file(copied).read_bytes())
        else:
            (writer.out / "empty").write_bytes(b"")
    return store.open(stage, key)


def test_without_their_data_set_maps_have_no_masked_images(experiment: tuple[Store, Job], tmp_path: Path):
    # The fabricated maps name no inputs.
    said = list(export(_artifact(experiment, "maps:gradient"), tmp_path, limit=2))
    assert any("no masked images" in line for line in said)
    assert not (tmp_path / "masked").exists()


def test_masked_images_keep_the_most_relevant_pixels(experiment: tuple[Store, Job], tmp_path: Path):
    store, _ = experiment
    maps, dataset = _artifact(experiment, "maps:gradient"), _artifact(experiment, "dataset")
    key = "f" * 64
    with store.writer(
        "extract-attribution-maps", 1, key, "joined", {"method": "gradient", "seed": 0}, {"dataset": dataset}
    ) as writer:
        assert writer is not None
        (writer.out / "maps.h5").write_bytes(maps.file("maps.h5").read_bytes())
    joined = store.open("extract-attribution-maps", key)
    list(export(joined, tmp_path, limit=3, kept_fraction=0.25))
    rows = map_rows(_RECIPE, "gradient")
    with DatasetFile(dataset.file("dataset.h5")) as file:
        pixels = file.pixels([8, 9, 10])[:, 0]
    pictures = sorted((tmp_path / "masked").iterdir())
    assert len(pictures) == 3
    for row, path in enumerate(pictures):
        shown = np.asarray(Image.open(path))[::32, ::32, 0]
        kept = np.zeros(64, dtype=bool)
        kept[np.argsort(-rows.maps[row].ravel())[:16]] = True
        np.testing.assert_array_equal(shown.ravel()[kept], pixels[row].ravel()[kept])
        assert (shown.ravel()[~kept] == 128).all()  # the mean colour, 0.5


@pytest.mark.parametrize(("kept_fraction", "left"), [(0.0, 0), (1.0, 64)])
def test_nothing_and_everything_can_be_kept(
    experiment: tuple[Store, Job], tmp_path: Path, kept_fraction: float, left: int
):
    store, _ = experiment
    dataset = _artifact(experiment, "dataset")
    key = f"{left:064d}"[::-1]
    with store.writer("extract-attribution-maps", 1, key, "joined", {"method": "gradient"}, {"dataset": dataset}) as w:
        assert w is not None
        (w.out / "maps.h5").write_bytes(_artifact(experiment, "maps:gradient").file("maps.h5").read_bytes())
    list(export(store.open("extract-attribution-maps", key), tmp_path, limit=1, kept_fraction=kept_fraction))
    with DatasetFile(dataset.file("dataset.h5")) as file:
        pixels = file.pixels([8])[0, 0]
    (path,) = (tmp_path / "masked").iterdir()
    shown = np.asarray(Image.open(path))[::32, ::32, 0]
    np.testing.assert_array_equal(shown, pixels if left else np.full((8, 8), 128))


def test_the_summary_becomes_csv(experiment: tuple[Store, Job], tmp_path: Path):
    list(export(_artifact(experiment, "summary"), tmp_path))
    table = read_csv(tmp_path / "scores.csv")
    columns = summary_columns(_RECIPE)
    assert table["method"] == columns["method"]
    assert [float(value) for value in table["value"]] == columns["value"]


def test_scores_become_csv_with_their_curves(experiment: tuple[Store, Job], tmp_path: Path):
    list(export(_artifact(experiment, "scores:gradient"), tmp_path))
    assert len(read_csv(tmp_path / "scores.csv")["value"]) == 16
    curves = read_csv(tmp_path / "curves.csv")
    assert len(curves["score"]) == 16 * 11
    assert curves["fraction"][:3] == ["0.0", "0.1", "0.2"]
    assert curves["sample_id"][:12] == ["sample/008"] * 11 + ["sample/009"]
    assert float(curves["score"][0]) == 1.0


def test_a_retrained_cell_becomes_csv(experiment: tuple[Store, Job], tmp_path: Path):
    list(export(_artifact(experiment, "cell:0"), tmp_path))
    cell = read_csv(tmp_path / "cell.csv")
    assert (cell["mode"], cell["removed_fraction"], cell["test_accuracy"]) == (["roar"], ["0.5"], ["0.75"])
    assert read_csv(tmp_path / "predictions.csv")["predicted"] == ["0", "2"]
    assert (tmp_path / "curve.csv").exists()


def test_a_classifier_becomes_a_state_dict_and_how_to_load_it(experiment: tuple[Store, Job], tmp_path: Path):
    said = list(export(_artifact(experiment, "classifier"), tmp_path))
    assert load_file(tmp_path / "weights.safetensors")["head.bias"].shape == (4,)
    assert said[-1].startswith("load it with safetensors.torch.load_file(")
    assert "small_cnn(width=16) with 4 classes" in said[-1]


def test_a_data_set_becomes_a_list_of_samples(experiment: tuple[Store, Job], tmp_path: Path):
    list(export(_artifact(experiment, "dataset"), tmp_path))
    table = read_csv(tmp_path / "samples.csv")
    assert table["split"] == ["train"] * 8 + ["test"] * 16
    assert table["label"][:5] == ["zero", "one", "two", "three", "zero"]


def test_several_labels_are_listed_together(store: Store, tmp_path: Path):
    job = make(store, Recipe(modes=(), metrics=(), multi_label=True, methods={"random": "random"}))
    list(export(store.open(*job.inputs["dataset"]), tmp_path / "out"))
    assert read_csv(tmp_path / "out" / "samples.csv")["label"][:3] == ["", "one two", "two three"]


def test_an_explainers_files_and_whose_it_is(store: Store, tmp_path: Path):
    classifier = toy_classifier(store)
    said = list(export(toy_explainer(store, classifier), tmp_path / "out"))
    assert said[-1].startswith(f"weights of a nn_explainer for classifier {classifier.manifest.key[:16]} (small_cnn)")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"explainer.json", "weights.safetensors"}


def test_an_unknown_stage_is_refused(store: Store, tmp_path: Path):
    with store.writer("evaluate-sanity", 1, "a" * 64, "x", {}, {}) as writer:
        assert writer is not None
        (writer.out / "x.json").write_text("{}")
    with pytest.raises(UserInputError, match="'evaluate-sanity' can't be exported; those of prepare-data"):
        list(export(store.open("evaluate-sanity", "a" * 64), tmp_path))


@given(st.text(max_size=400))
def test_file_names_are_safe_for_any_sample_id(sample_id: str):
    name = file_name(sample_id, 3)
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name)
    assert len(name) < 200


@given(st.text(max_size=20), st.text(max_size=20))
def test_different_sample_ids_have_different_file_names(first: str, second: str):
    assert (file_name(first) == file_name(second)) == (first == second)


@pytest.mark.parametrize("sample_id", ["../../etc/passwd", "/etc/passwd", "a/b", "..", "", "a\0b", "CON ", "x" * 500])
def test_hostile_sample_ids_stay_in_the_folder(sample_id: str):
    assert "/" not in file_name(sample_id)
    assert not file_name(sample_id).startswith(".")


@pytest.mark.parametrize("place", ["a file", "a file/below", "/proc/roarline"])
def test_a_folder_that_can_not_be_written_is_the_users_error(experiment: tuple[Store, Job], tmp_path: Path, place: str):
    (tmp_path / "a file").write_text("kept")
    with pytest.raises(UserInputError, match=r"can't write here \(.*give another folder with --output") as caught:
        list(export(_artifact(experiment, "maps:gradient"), tmp_path / place))
    assert caught.value.exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["a file"]


@pytest.mark.parametrize("root", [None, "nowhere"])
def test_indexed_data_need_their_folder_and_nothing_is_written_without(
    experiment: tuple[Store, Job], tmp_path: Path, root: str | None
):
    store, _ = experiment

    def write(folder: Path) -> None:
        content = DatasetContent(
            "birds", ["wren"], multi_label=False, sample_ids=["a"], split=np.array([2]), labels=np.array([0]),
            mean=None, std=None, image_size=(8, 8), files=["a.png"], file_offset=np.array([-1]),
            file_size=np.array([9]), file_sha256=["0" * 64],
        )  # fmt: skip
        write_dataset(folder / "dataset.h5", content)

    dataset = make_artifact(store, "prepare-data", {"of": str(root)}, write)
    key = artifact_key("extract-attribution-maps", 1, {}, {"dataset": dataset.manifest.key})
    with store.writer("extract-attribution-maps", 1, key, "indexed", {"method": "gradient"}, {"dataset": dataset}) as w:
        assert w is not None
        (w.out / "maps.h5").write_bytes(_artifact(experiment, "maps:gradient").file("maps.h5").read_bytes())
    folder = tmp_path / root if root else None
    with pytest.raises(UserInputError, match=r"images of data set 'birds' are files .*--data-root"):
        list(export(store.open("extract-attribution-maps", key), tmp_path / "out", data_root=folder))
    assert not (tmp_path / "out").exists()
