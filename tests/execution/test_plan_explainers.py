"""Jobs of train-explainer: who reads them, and what is in their keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from roarline.config.load import load_experiment
from roarline.errors import ConfigError, UserInputError
from roarline.execution.plan import build_plan
from roarline.execution.planned import PENDING, Plan

TEXT = """\
name: learned
data: {dataset: shapes, params: {size_px: 20, train: 20, test: 4}}
model: {arch: small_cnn}
train-cls: {epochs: 1, loss: binary_cross_entropy}
train-explainer:
  - name: masks
    explainer: nn_explainer
    params: {network: {backbone: light, width: 4}}
    training: {epochs: 1}
attribution:
  target: every-label
  baselines: []
  methods:
    - {name: gradient}
    - {name: learned, explainer: masks}
"""
DEEPLAB = "train-explainer.0.params={network: {weights: %s}}"


def plan(tmp_path: Path, *overrides: str, more: str = "") -> Plan:
    path = tmp_path / "learned.yaml"
    path.write_text(TEXT + more)
    return build_plan(load_experiment(path, overrides))


def key(given: Plan) -> str:
    (job,) = given.of("train-explainer")
    return job.key


def test_the_method_reads_the_explainer_and_the_others_dont(tmp_path: Path) -> None:
    given = plan(tmp_path, more="evaluate-localization: {}\nevaluate-roar: {fractions: [0.5], repeats: 1}\n")
    (explainer,) = given.of("train-explainer")
    assert explainer.inputs.keys() == {"dataset", "classifier"}
    for job in given.of("extract-attribution-maps"):
        assert ("explainer" in job.inputs) == (job.parameters["method"] == "explainer")
    splits = {job.parameters["split"] for job in given.of("extract-attribution-maps") if "explainer" in job.inputs}
    assert splits == {"train", "validation", "test"}
    (scores,) = (job for job in given.of("evaluate-localization") if job.label.endswith(" learned"))
    assert scores.parameters["mask"] == "none"  # its maps are masks


def test_whoever_calls_the_method_anew_reads_the_explainer_as_well(tmp_path: Path) -> None:
    given = plan(
        tmp_path,
        more="evaluate-localization: {metrics: [grid_pointing_game, class_specificity]}\n"
        "evaluate-sanity: {metrics: [cascading_randomisation, data_randomisation]}\n"
        "evaluate-perturbation: {metrics: [max_sensitivity]}\n",
    )
    learned = [job for job in given.jobs if job.stage.startswith("evaluate-") and " learned" in job.label]
    assert len(learned) == 5
    assert [job.label for job in learned if "explainer" not in job.inputs] == [
        "evaluate-sanity learned, shuffled labels"
    ]
    of_shuffled = [job for job in given.jobs if job.label == "train-explainer masks, shuffled labels"]
    # shuffled labels have a network of their own, and that network an explainer, which learns from the same labels
    assert [job.parameters["shuffle_labels"] for job in of_shuffled] == [True]


@pytest.mark.parametrize(
    "override",
    [
        "train-explainer.0.params.network.width=8",
        "train-explainer.0.params.losses={entropy: 2.0}",
        "train-explainer.0.training.epochs=2",
        "train-explainer.0.training.batch_size=7",
        "train-explainer.0.images_per_class=3",
        "train-explainer.0.threads=1",
        "train-explainer.0.explainer=self_explainer",
        "train-cls.epochs=2",
        "seed=1",
    ],
)
def test_all_that_changes_the_result_changes_the_key(tmp_path: Path, override: str) -> None:
    assert key(plan(tmp_path, override)) != key(plan(tmp_path))


@pytest.mark.parametrize(
    "override", ["train-explainer.0.params.losses={entropy: 1.0}", "runtime.device=cpu", "train-explainer.0.name=other"]
)
def test_what_changes_nothing_is_in_no_key(tmp_path: Path, override: str) -> None:
    names = ["attribution.methods.learned.explainer=other"] if "name=other" in override else []
    assert key(plan(tmp_path, override, *names)) == key(plan(tmp_path))


def test_an_infiller_of_ones_own_is_in_the_key_by_its_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    masker = "train-explainer.0={name: masks, explainer: fix_masker, params: {losses: {infill: {infiller: %s}}}}"
    one_label = "data.params.max_shapes=1"
    seen = set()
    for text in ("def fill(images, kept): return images", "def fill(images, kept): return 0 * images"):
        (tmp_path / "own_infiller.py").write_text(text)
        given = plan(tmp_path, one_label, masker % "own_infiller.fill")
        assert given.of("train-explainer")[0].parameters["infiller"]["dotted_path"] == "own_infiller.fill"
        seen.add(key(given))
    assert len(seen) == 2
    assert "infiller" not in plan(tmp_path, one_label, masker % "blur").of("train-explainer")[0].parameters
    with pytest.raises(UserInputError, match="own_infilller"):
        plan(tmp_path, one_label, masker % "own_infilller.fill")


def test_weights_to_start_from_are_in_the_key_by_content(tmp_path: Path) -> None:
    missing = plan(tmp_path, DEEPLAB % (tmp_path / "a.pth"))
    assert missing.of("train-explainer")[0].parameters["params"]["network"]["weights"] == PENDING
    assert "train-explainer.masks.params.network.weights" in (missing.pending or "")
    for name in ("a.pth", "b.pth"):
        (tmp_path / name).write_bytes(b"the same")
    first, second = (plan(tmp_path, DEEPLAB % (tmp_path / name)) for name in ("a.pth", "b.pth"))
    assert key(first) == key(second) != key(plan(tmp_path, DEEPLAB % "IMAGENET1K_V1"))
    assert first.of("train-explainer")[0].local["weights"] == str(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train-explainer.0.explainer=nn_explaner", "no explainer is named 'nn_explaner'; did you mean 'nn_explainer'"),
        ("train-explainer.0.params.losses={entropie: 1}", "unknown key; did you mean 'entropy'"),
        ("train-explainer.0.params.losses={smallest_area: 0.5}", "smallest_area is 0.5, more than largest_area 0.3"),
        ("train-explainer.0.params.network.weights=IMAGENET1K_V1", "backbone light starts at random"),
        (
            "attribution.methods.learned.explainer=maks",
            ":15: attribution.methods.1.explainer: 'learned' names explainer ",
        ),
        ("attribution.methods.learned={name: nn_explainer}", "it is an explainer: train it in train-explainer"),
        ("attribution.methods.learned.params={steps: 3}", "explainer stands alone"),
        ("attribution.methods.learned.explainer=null", "no method is named 'learned'"),
        ("attribution.methods.learned={name: explainer}", "give explainer: the name of an entry of train-explainer"),
        (
            "evaluate-roar={modes: [recursive_roar]}",
            "evaluate-roar.modes: recursive_roar asks each retrained network",
        ),
    ],
)
def test_refuses(tmp_path: Path, override: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan(tmp_path, override)
    assert said in str(caught.value)


MASKER = "train-explainer.0={name: masks, explainer: ca_masker%s}"


@pytest.mark.parametrize(
    ("training", "said"),
    [
        ("early_stopping: {patience: 3}", "training.early_stopping: ca_masker keeps its last epoch"),
        ("gradient_accumulation: 2", "training.gradient_accumulation: ca_masker steps several optimisers"),
        ("precision: float16", "float16 needs a scaled loss, which the steps of ca_masker don't have; use bfloat16"),
    ],
)
def test_what_own_steps_cannot_do_is_refused(tmp_path: Path, training: str, said: str) -> None:
    one_label = ["data.params.max_shapes=1", "train-cls.loss=cross_entropy"]
    with pytest.raises(ConfigError) as caught:
        plan(tmp_path, *one_label, MASKER % f", training: {{{training}}}")
    assert said in str(caught.value)
    plan(tmp_path, *one_label, MASKER % ", training: {precision: bfloat16}")


def test_a_masker_is_refused_where_images_may_have_several_labels(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ca_masker draws one mask for an image's one label, and images of this"):
        plan(tmp_path, MASKER % "")
    plan(tmp_path, MASKER % "", "data.params.max_shapes=1")


@pytest.mark.parametrize("dataset", ["voc", "coco"])
def test_the_label_of_images_that_may_have_several_is_no_target(tmp_path: Path, dataset: str) -> None:
    with pytest.raises(ConfigError, match=f"images of {dataset} may have several: use predicted or every-label$"):
        plan(tmp_path, f"data={{dataset: {dataset}, root: here}}", "attribution.target=label")


def test_two_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "learned.yaml"
    entry = TEXT[TEXT.index("  - name: masks") : TEXT.index("attribution:")]
    path.write_text(TEXT.replace(entry, entry + entry))
    with pytest.raises(ConfigError, match=r"train-explainer\.1\.name: two entries share the name 'masks'"):
        load_experiment(path, [])
