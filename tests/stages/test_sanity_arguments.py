"""evaluate-sanity does what its configuration says: arguments other than the defaults, against other libraries.

Maps of a network that lost its weights are those that extract-attribution-maps makes of a classifier with such weights;
what they have in common is computed by scikit-image, scipy and numpy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.stats import entropy, spearmanr
from skimage.feature import hog
from skimage.metrics import structural_similarity

from roarline.artifacts.classifier import CURVE_FILE, WEIGHTS_FILE, ClassifierCard
from roarline.artifacts.keys import artifact_key
from roarline.artifacts.maps import MAPS_FILE, MapsFile
from roarline.artifacts.store import Artifact, Store
from roarline.artifacts.tables import SCORES_FILE, read_parquet
from roarline.config.sanity import EvaluateSanity
from roarline.execution.run_job import run_job
from roarline.models.load import load_classifier
from roarline.models.randomisation import random_state
from roarline.report.scores import Method, Score, Scores
from roarline.seeds import derive_seed
from roarline.stages import evaluate_sanity as stage
from roarline.stages import extract_attribution_maps
from roarline.stages.job import Context
from roarline.stages.sanity_columns import CASCADING, EFFICIENT, INDEPENDENT, RANDOM_LOGIT, SMOOTH
from roarline.stages.sanity_section import sanity_section
from tests.stages.toy_classifier import job_for, make_artifact, toy_classifier, toy_dataset
from tests.stages.toy_maps import distinct_values, toy_maps

SIDE, COUNT, CLASSES, SEED = 16, 4, 3, 2
WINDOW_PX, DRAWS, BINS, REPEATS = 5, 3, 7, 2
SIMILARITIES = ["ssim", "spearman", "spearman_abs", "hog"]
SECTION = EvaluateSanity(
    depth=1, bins=BINS, normalisation="min_max", window_px=WINDOW_PX, chance_draws=DRAWS, repeats=REPEATS
).model_dump(mode="json")
COMPARISON = {name: SECTION[name] for name in ("similarities", "normalisation", "window_px", "chance_draws", "limit")}
COPIES = {"samples": 3, "noise": 0.4}
METHOD = {
    "method": "gradient", "params": {}, "batched": True, "channels": "sum", "precision": "float32", "seed": SEED,
    "threads": 1,
}  # fmt: skip
PARAMETERS = {
    **COMPARISON, **METHOD, **{name: SECTION[name] for name in ("order", "depth", "repeats", "bins")},
    "metrics": [CASCADING, INDEPENDENT, SMOOTH, EFFICIENT, RANDOM_LOGIT], "noisy_copies": COPIES, "sign": "absolute",
}  # fmt: skip
ROWS = [(f"image/{row:04d}", row % CLASSES) for row in range(COUNT)]
HEAD, BLOCKS = ("head",), ("blocks.0.0", "blocks.0.1", "blocks.1.0", "blocks.1.1")
Found = dict[tuple[str, str], list[float]]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("arguments"))


@pytest.fixture(scope="module")
def inputs(store: Store) -> dict[str, Artifact]:
    dataset = toy_dataset(store, count=COUNT, side=SIDE, classes=CLASSES)
    classifier = toy_classifier(store, side=SIDE, classes=CLASSES, arch="tests.stages.deep_network.build", params={})
    maps = toy_maps(store, dataset, distinct_values(COUNT, SIDE), rows=ROWS)
    return {"dataset": dataset, "classifier": classifier, "maps": maps}


def evaluate(store: Store, inputs: Mapping[str, Artifact], parameters: Mapping[str, Any]) -> Found:
    """(metric, setting) to the values of all rows."""
    job = job_for(stage.STAGE, parameters, inputs)
    run_job(job, Context(store))
    table, found = read_parquet(store.open(job.stage, job.key).file(SCORES_FILE)), Found()
    assert set(table["status"]) == {"ok"}
    for metric, setting, value in zip(table["metric"], table["setting"], table["value"], strict=True):
        found.setdefault((metric, setting), []).append(value)
    return found


@pytest.fixture(scope="module")
def found(store: Store, inputs: dict[str, Artifact]) -> Found:
    """What one run gives."""
    return evaluate(store, inputs, PARAMETERS)


def maps_without(
    store: Store, inputs: Mapping[str, Artifact], lost: Sequence[str], repeat: int, **how: Any
) -> np.ndarray:
    """Maps [B, H, W] that extraction makes with a classifier of which some modules lost their weights."""
    model, card = load_classifier(inputs["classifier"])
    state = model.state_dict()
    for name in lost:
        module = model.get_submodule(name)
        learned = {key: value.detach() for key, value in module.named_parameters(recurse=False)}
        drawn = random_state(module, learned, derive_seed(SEED, stage.STAGE, "weights", name, repeat))
        state |= {f"{name}.{key}": value for key, value in drawn.items()}

    def write(folder: Path) -> None:
        save_file(state, folder / WEIGHTS_FILE)
        ClassifierCard(**vars(card)).write(folder)
        (folder / CURVE_FILE).write_text("epoch\n")

    classifier = make_artifact(store, "train-cls", {"lost": list(lost), "repeat": repeat}, write)
    parameters = {**METHOD, "split": "test", "dtype": "float32", "target": "predicted", **how}
    told = {"dataset": inputs["dataset"], "classifier": classifier, "targets": inputs["maps"]}
    job = job_for(extract_attribution_maps.STAGE, parameters, told)
    run_job(job, Context(store))
    with MapsFile(store.open(job.stage, job.key).file(MAPS_FILE)) as file:
        assert list(zip(file.sample_ids, file.targets.tolist(), strict=True)) == ROWS
        return file.maps(range(COUNT)).astype(float)


def alike(one_HW: np.ndarray, other_HW: np.ndarray, similarity: str) -> float:
    """How alike two maps are, magnitudes where it reads maps as pixels are ranked by them."""
    if similarity == "spearman":
        return float(spearmanr(one_HW.ravel(), other_HW.ravel()).statistic)
    one, other = abs(one_HW), abs(other_HW)
    if similarity == "spearman_abs":
        return float(spearmanr(one.ravel(), other.ravel()).statistic)
    one, other = ((values - values.min()) / (values.max() - values.min()) for values in (one, other))
    if similarity == "ssim":  # both reach from 0 to 1
        return float(structural_similarity(one, other, win_size=WINDOW_PX, data_range=1.0))
    cell = SIDE // 3
    features = (hog(values, pixels_per_cell=(cell, cell)) for values in (one, other))
    return float(np.corrcoef(*features)[0, 1])


def by_chance(one_HW: np.ndarray, other_HW: np.ndarray, similarity: str, metric: str, repeat: int, row: int) -> float:
    """Mean over displacements of the other map."""
    if similarity.startswith("spearman"):
        return 0.0
    found = []
    for draw in range(DRAWS):
        seed = derive_seed(SEED, stage.STAGE, "displacement", metric, repeat, draw, *ROWS[row])
        generator = torch.Generator().manual_seed(seed)
        shift = [int(torch.randint(SIDE, (), generator=generator)) for _ in range(2)]
        found.append(alike(one_HW, np.roll(other_HW, shift, axis=(0, 1)), similarity))
    return float(np.mean(found))


def check(found: Found, place: tuple[str, str], expected: Sequence[float]) -> None:
    """Float32 gradients of other batches: a rank or two may change, a value may fall into the next bin of HOG."""
    assert found[place] == pytest.approx(list(expected), abs=2e-4), place


def test_depth_says_which_layers_lose_their_weights_together(found: Found) -> None:
    layers = [setting for metric, setting in found if metric == CASCADING and "layer=" in setting and "hog" in setting]
    assert layers == ["layer=1 head, hog", "layer=2 blocks, hog"]


def test_similarities_are_those_of_maps_of_classifiers_with_such_weights(
    store: Store, inputs: dict[str, Artifact], found: Found
) -> None:
    """Normalisation and window too; means over both repeats."""
    learned = maps_without(store, inputs, (), 0)
    for metric, place, lost in (
        (CASCADING, "layer=1 head", HEAD), (CASCADING, "all randomised", (*HEAD, *BLOCKS)),
        (INDEPENDENT, "layer=2 blocks", BLOCKS),
    ):  # fmt: skip
        others = [maps_without(store, inputs, lost, repeat) for repeat in range(REPEATS)]
        for similarity in SIMILARITIES:
            expected = [
                np.mean([alike(learned[row], other[row], similarity) for other in others]) for row in range(COUNT)
            ]
            check(found, (metric, f"{place}, {similarity}"), expected)


@pytest.mark.parametrize("metric", [CASCADING, SMOOTH])
def test_chance_is_the_mean_over_so_many_displacements(
    store: Store, inputs: dict[str, Artifact], found: Found, metric: str
) -> None:
    """And smooth_randomisation averages over so many copies with so much noise: extraction does the same."""
    how = {"smooth": {**COPIES, "kind": "mean"}} if metric == SMOOTH else {}
    learned = maps_without(store, inputs, (), 0, **how)
    others = [maps_without(store, inputs, (*HEAD, *BLOCKS), repeat, **how) for repeat in range(REPEATS)]
    for similarity in SIMILARITIES:
        last, above = [], []
        for row in range(COUNT):
            pairs = [(learned[row], other[row]) for other in others]
            here = [alike(*pair, similarity) for pair in pairs]
            chance = [by_chance(*pair, similarity, metric, repeat, row) for repeat, pair in enumerate(pairs)]
            last.append(np.mean(here))
            above.append(np.mean(here) - np.mean(chance))
        check(found, (metric, f"all randomised, {similarity}"), last)
        check(found, (metric, f"above chance, {similarity}"), above)


def test_the_rise_of_entropy_is_that_of_histograms_of_so_many_bins(
    store: Store, inputs: dict[str, Artifact], found: Found
) -> None:
    learned = maps_without(store, inputs, (), 0)
    others = [maps_without(store, inputs, (*HEAD, *BLOCKS), repeat) for repeat in range(REPEATS)]

    def of(values_HW: np.ndarray) -> float:
        return float(entropy(np.histogram(abs(values_HW), bins=BINS)[0]))

    for row in range(COUNT):
        before = of(learned[row])
        expected = np.mean([(of(other[row]) - before) / before for other in others])
        # One pixel of 256 in the next bin moves an entropy of about 1.5 by less than 0.02.
        assert found[EFFICIENT, ""][row] == pytest.approx(expected, abs=0.02)
    assert np.abs(found[EFFICIENT, ""]).max() > 0.05


def test_another_class_is_compared_in_the_same_way(store: Store, inputs: dict[str, Artifact], found: Found) -> None:
    """Of three classes the other one is one of two; its map is displaced, the row's is not."""
    learned = maps_without(store, inputs, (), 0)
    of_class = {}
    for shift in (1, 2):
        rows = [(sample_id, (target + shift) % CLASSES) for sample_id, target in ROWS]
        maps = toy_maps(store, inputs["dataset"], distinct_values(COUNT, SIDE), rows=rows)
        parameters = {**METHOD, "split": "test", "dtype": "float32", "target": "predicted"}
        told = {"dataset": inputs["dataset"], "classifier": inputs["classifier"], "targets": maps}
        job = job_for(extract_attribution_maps.STAGE, parameters, told)
        run_job(job, Context(store))
        with MapsFile(store.open(job.stage, job.key).file(MAPS_FILE)) as file:
            of_class[shift] = file.maps(range(COUNT)).astype(float)
    for row in range(COUNT):
        steps = np.random.default_rng(derive_seed(SEED, stage.STAGE, RANDOM_LOGIT, *ROWS[row])).integers(1, CLASSES)
        other = of_class[int(steps)][row]
        for similarity in SIMILARITIES:
            here = alike(learned[row], other, similarity)
            chance = by_chance(learned[row], other, similarity, RANDOM_LOGIT, 0, row)
            assert found[RANDOM_LOGIT, similarity][row] == pytest.approx(here, abs=2e-4)
            assert found[RANDOM_LOGIT, f"above chance, {similarity}"][row] == pytest.approx(here - chance, abs=2e-4)


def test_data_randomisation_compares_in_the_same_way(store: Store, inputs: dict[str, Artifact]) -> None:
    first, second = distinct_values(COUNT, SIDE), distinct_values(COUNT, SIDE, seed=1)
    second = second + np.roll(first, 1, axis=2)  # akin to the first where it was moved by a column
    told = {
        "dataset": inputs["dataset"], "maps": inputs["maps"],
        "shuffled_maps": toy_maps(store, inputs["dataset"], second, rows=ROWS),
    }  # fmt: skip
    shared = {**COMPARISON, "sign": "absolute", "seed": SEED, "threads": 1, "metrics": ["data_randomisation"]}
    found = evaluate(store, told, shared)
    pairs = list(zip(first.astype(float), second.astype(float), strict=True))
    for similarity in SIMILARITIES:
        here = [alike(*pair, similarity) for pair in pairs]
        chance = [by_chance(*pair, similarity, "data_randomisation", 0, row) for row, pair in enumerate(pairs)]
        # the same maps on both sides; scikit-image adds up HOG's magnitudes in float32
        assert found["data_randomisation", similarity] == pytest.approx(here, abs=1e-7)
        above = [a - b for a, b in zip(here, chance, strict=True)]
        assert found["data_randomisation", f"above chance, {similarity}"] == pytest.approx(above, abs=1e-7)


def test_the_section_says_the_order_and_what_the_shuffled_network_learned_in_its_last_epoch(store: Store) -> None:
    def publish(of: str, inputs: Mapping[str, Artifact], files: Mapping[str, str]) -> Artifact:
        roles = {role: artifact.manifest.key for role, artifact in inputs.items()}
        key = artifact_key(of, 1, {"of": "section"}, roles)
        with store.writer(of, 1, key, of, {"of": "section"}, dict(inputs)) as writer:
            assert writer is not None
            for name, text in files.items():
                (writer.out / name).write_text(text)
        return store.open(of, key)

    curve = "epoch,train_accuracy,validation_accuracy\n1,0.25,0.5\n2,0.75,0.1\n"
    classifier = publish("train-cls", {}, {CURVE_FILE: curve})
    shuffled = publish("extract-attribution-maps", {"classifier": classifier}, {"none.txt": ""})
    labels = publish("evaluate-sanity", {"shuffled_maps": shuffled}, {"none.txt": ""})
    methods = [Method("gradcam", "gradcam", "positive", "sum", {}, baseline=False)]
    row = Score(
        "gradcam", "data_randomisation", "ssim", 0.5, 0.4, 0.6, 10, 0, False, "", None, None, None, None, "ok",
    )  # fmt: skip
    section = sanity_section({"order": "bottom_up"}, {"labels:gradcam": labels}, methods, Scores([row]))
    assert (section.order, section.shuffled_accuracy) == ("bottom_up", 0.75)
    assert sanity_section({"order": "top_down"}, {}, methods, Scores([row])).shuffled_accuracy is None
    assert sanity_section(None, {"labels:gradcam": labels}, methods, Scores([row])).columns == ()
