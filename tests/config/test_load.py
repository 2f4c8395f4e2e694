"""The loader: all errors at once, each with file, line, key path and the nearest valid name; safe YAML."""

from __future__ import annotations

from pathlib import Path

import pytest

from roarline.config.experiment import Statistics
from roarline.config.load import load_experiment
from roarline.config.wording import suggest
from roarline.errors import ConfigError

MINIMAL = """\
name: tiny
data: {dataset: digits}
model: {arch: small_cnn}
train-cls: {epochs: 1}
attribution:
  methods:
    - {name: random}
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "experiment.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def errors(tmp_path: Path, text: str, overrides: tuple[str, ...] = ()) -> str:
    with pytest.raises(ConfigError) as caught:
        load_experiment(write(tmp_path, text), overrides)
    return str(caught.value)


def test_minimal_config_has_the_documented_defaults(tmp_path: Path) -> None:
    experiment = load_experiment(write(tmp_path, MINIMAL))
    assert experiment.seed == 0
    assert experiment.train_cls is not None
    assert experiment.train_cls.epochs == 1
    assert experiment.evaluate_roar is None
    assert experiment.runtime.artifacts == "artifacts"


def test_every_error_is_reported_in_one_go_with_its_line(tmp_path: Path) -> None:
    said = errors(
        tmp_path,
        """\
name: tiny
seed: -1
data: {dataset: digts}
model: {arch: small_cnn, params: {widht: 4}}
train-cls:
  epochs: many
  optimizer: {name: adamm}
attribution:
  methods:
    - {name: gradcam, params: {layr: conv2}}
evaluate-roar:
  fractions: [0.1, 1.5]
  mode: [roar]
""",
    )
    assert "experiment.yaml:2: seed" in said
    assert "experiment.yaml:3: data.dataset: no dataset is named 'digts'; did you mean 'digits'?" in said
    assert "experiment.yaml:4: model.params.widht: unknown key; did you mean 'width'?" in said
    assert "experiment.yaml:6: train-cls.epochs: is 'many'" in said
    assert "experiment.yaml:7: train-cls.optimizer.name" in said
    assert "did you mean 'adam'?" in said
    assert "experiment.yaml:10: attribution.methods.0.params.layr: unknown key; did you mean 'layer'?" in said
    assert "experiment.yaml:12: evaluate-roar.fractions.1: is 1.5" in said
    assert "experiment.yaml:13: evaluate-roar.mode: unknown key; did you mean 'modes'?" in said
    assert said.startswith("8 problems")


def test_anchors_and_merge_keys_work(tmp_path: Path) -> None:
    text = MINIMAL.replace("train-cls: {epochs: 1}", "train-cls: &t {epochs: 1, batch_size: 32}")
    text += "evaluate-roar:\n  training: {<<: *t, epochs: 2}\n"
    experiment = load_experiment(write(tmp_path, text))
    assert experiment.evaluate_roar is not None
    assert experiment.evaluate_roar.training is not None
    assert experiment.evaluate_roar.training.epochs == 2
    assert experiment.evaluate_roar.training.batch_size == 32


def test_scientific_notation_without_a_dot_is_a_number(tmp_path: Path) -> None:
    text = MINIMAL.replace("{epochs: 1}", "{epochs: 1, optimizer: {lr: 1e-3}}")
    experiment = load_experiment(write(tmp_path, text))
    assert experiment.train_cls is not None
    assert experiment.train_cls.optimizer.lr == 1e-3


def test_a_key_that_stands_twice_is_an_error(tmp_path: Path) -> None:
    assert "experiment.yaml:9: seed: stands twice" in errors(tmp_path, "seed: 1\n" + MINIMAL + "seed: 2\n")


def test_original_roar_bug_python_tags_in_yaml_run_code(tmp_path: Path) -> None:
    """peers.md: ``yaml.load`` with python tags; here they are refused and run nothing."""
    marker = tmp_path / "ran"
    said = errors(tmp_path, MINIMAL + f"description: !!python/object/apply:os.mkdir ['{marker}']\n")
    assert "not valid YAML" in said
    assert not marker.exists()


@pytest.mark.parametrize("text", ["", "- 1\n", "just text", "name: [unclosed", "name: \x07"])
def test_no_mapping_is_an_error_not_a_traceback(tmp_path: Path, text: str) -> None:
    assert "experiment.yaml" in errors(tmp_path, text)


def test_missing_file_names_a_near_one(tmp_path: Path) -> None:
    write(tmp_path, MINIMAL)
    with pytest.raises(ConfigError, match=r"did you mean .*experiment\.yaml"):
        load_experiment(tmp_path / "experimnt.yaml")


def test_overrides_reach_sections_lists_by_name_and_by_index(tmp_path: Path) -> None:
    experiment = load_experiment(
        write(tmp_path, MINIMAL),
        ["train-cls.epochs=3", "attribution.methods.random.sign=absolute", "evaluate-roar.fractions=[0.5]", "seed=7"],
    )
    assert experiment.train_cls is not None
    assert experiment.train_cls.epochs == 3
    assert experiment.attribution.methods[0].sign == "absolute"
    assert experiment.evaluate_roar is not None
    assert experiment.evaluate_roar.fractions == [0.5]
    assert experiment.seed == 7


@pytest.mark.parametrize("word", ["seed", "=3", "attribution.methods.nope.sign=absolute"])
def test_bad_overrides_are_errors(tmp_path: Path, word: str) -> None:
    assert "--set" in errors(tmp_path, MINIMAL, (word,))


def test_two_methods_of_one_name_are_an_error(tmp_path: Path) -> None:
    assert "share a name: random" in errors(tmp_path, MINIMAL + "    - {name: random}\n")


def test_neither_training_nor_weights_is_an_error(tmp_path: Path) -> None:
    assert "model.weights" in errors(tmp_path, MINIMAL.replace("train-cls: {epochs: 1}\n", ""))


def test_a_users_method_is_found_without_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_maps.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.chdir(tmp_path)
    text = MINIMAL.replace("- {name: random}", "- {name: mine, method: my_maps.edges, params: {knob: 3}}")
    assert load_experiment(write(tmp_path, text)).attribution.methods[0].component == "my_maps.edges"


def test_an_unknown_dotted_path_is_an_error(tmp_path: Path) -> None:
    text = MINIMAL.replace("- {name: random}", "- {name: mine, method: no_such_package_of_mine.edges}")
    assert "module 'no_such_package_of_mine'" in errors(tmp_path, text)


def test_nan_and_infinity_are_refused(tmp_path: Path) -> None:
    assert "train-cls.optimizer.lr" in errors(
        tmp_path, MINIMAL.replace("{epochs: 1}", "{epochs: 1, optimizer: {lr: .nan}}")
    )


def test_an_override_changes_one_place_where_an_anchor_is_used_in_two(tmp_path: Path) -> None:
    text = MINIMAL.replace("train-cls: {epochs: 1}", "train-cls: &t {epochs: 7}") + "evaluate-roar: {training: *t}\n"
    experiment = load_experiment(write(tmp_path, text), ["train-cls.epochs=3"])
    assert experiment.train_cls is not None
    assert experiment.train_cls.epochs == 3
    assert experiment.evaluate_roar is not None
    assert experiment.evaluate_roar.training is not None
    assert experiment.evaluate_roar.training.epochs == 7


def test_an_override_by_index_hits_that_item_among_equal_ones(tmp_path: Path) -> None:
    text = MINIMAL.replace(
        "{dataset: digits}", "{dataset: digits, normalization: {mean: [0.5, 0.5, 0.5], std: [1, 1, 1]}}"
    )
    normalization = load_experiment(write(tmp_path, text), ["data.normalization.mean.2=0.4"]).data.normalization
    assert isinstance(normalization, Statistics)
    assert normalization.mean == [0.5, 0.5, 0.4]


def test_an_anchor_that_holds_itself_is_an_error(tmp_path: Path) -> None:
    assert "anchor holds itself" in errors(tmp_path, "name: &a [*a]\n")


@pytest.mark.parametrize("value", ["2020-01-01", ".nan", "!!binary aGVsbG8="])
def test_free_params_must_be_what_json_can_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    (tmp_path / "my_maps.py").write_text("")
    monkeypatch.chdir(tmp_path)
    text = MINIMAL.replace("- {name: random}", f"- {{name: mine, method: my_maps.edges, params: {{d: {value}}}}}")
    assert "attribution.methods.0.params: holds a date" in errors(tmp_path, text)


def test_a_package_that_fails_at_import_is_named_with_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_package").mkdir()
    (tmp_path / "broken_package" / "__init__.py").write_text("\nraise RuntimeError('boom')\n")
    monkeypatch.chdir(tmp_path)
    text = MINIMAL.replace("- {name: random}", "- {name: mine, method: broken_package.maps.edges}")
    assert "__init__.py:2: RuntimeError: boom" in errors(tmp_path, text)


def test_normalization_needs_as_many_means_as_stds(tmp_path: Path) -> None:
    text = MINIMAL.replace("{dataset: digits}", "{dataset: digits, normalization: {mean: [0.5, 0.5], std: [1, 1]}}")
    assert "expected 1 or 3" in errors(tmp_path, text)


def with_metrics(metrics: str) -> str:
    return MINIMAL + f"evaluate-perturbation:\n  metrics: {metrics}\n"


def test_own_metrics_stand_beside_the_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_metrics.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.chdir(tmp_path)
    text = with_metrics(
        "[srg, my_metrics.flat, {name: mine, metric: my_metrics.mass, params: {knob: 3}, higher_is_better: true}, morf]"
    )
    section = load_experiment(write(tmp_path, text)).evaluate_perturbation
    assert section is not None
    assert section.table_metrics == ["morf", "srg"]
    flat, mine = section.own_metrics
    assert (flat.name, flat.component, flat.higher_is_better) == ("my_metrics.flat", "my_metrics.flat", None)
    assert (mine.name, mine.component, mine.params, mine.higher_is_better) == (
        "mine", "my_metrics.mass", {"knob": 3}, True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("mrof", "metrics.0: no metric is named 'mrof'; did you mean 'morf'?"),
        ("roar_accuracy", "metrics.0: 'roar_accuracy' is computed by evaluate-roar"),
        ("no_such_package_of_mine.flat", "metrics.0: 'no_such_package_of_mine.flat': can't find"),
        ("3", "metrics.0: is 3: input should be a valid string"),
        ("{name: morf}", "metrics.0.name: 'morf' is roarline's own"),
        ("{name: mine, metric: morf}", "metrics.0.metric: 'morf' is roarline's own"),
        ("{name: mine, metric: nowhere}", "metrics.0.metric: no metric is named 'nowhere'"),
        ("{name: mine, metric: my_metrics.flat, unti: px}", "metrics.0.unti: unknown key; did you mean 'unit'?"),
        ("{metric: my_metrics.flat}", "metrics.0.name: is required but missing"),
        ("{name: mine, metric: my_metrics.flat, params: {knob: .nan}}", "metrics.0.params: holds a date"),
        ("my_metrics.flat, my_metrics.flat", "evaluate-perturbation: two metrics share a name: my_metrics.flat"),
    ],
)
def test_a_wrong_metric_is_an_error_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metric: str, said: str
) -> None:
    (tmp_path / "my_metrics.py").write_text("")
    monkeypatch.chdir(tmp_path)
    found = errors(tmp_path, with_metrics(f"[{metric}]"))
    assert found.startswith("1 problem in ")
    line = 8 if "share a name" in said else 9
    assert f"experiment.yaml:{line}: " in found
    assert said in found


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("smooth: {samples: 0}", "attribution.methods.0.smooth.samples: is 0"),
        ("smooth: {sample: 3}", "did you mean 'samples'"),
        ("smooth: {kind: median}", "attribution.methods.0.smooth.kind"),
        ("filter: {kind: blur}", "blur takes sigma_px, max takes window_px"),
        ("filter: {kind: max, window_px: 4}", "expected an odd number"),
        ("filter: {kind: max, window_px: 5, sigma_px: 1}", "blur takes sigma_px, max takes window_px"),
        ("batched: false", "batched: false is for methods of one's own; 'gradient' takes whole batches"),
    ],
)
def test_a_wrong_composition_is_named(tmp_path: Path, written: str, said: str) -> None:
    text = f"""\
name: x
data: {{dataset: digits}}
model: {{arch: small_cnn}}
train-cls: {{}}
attribution:
  methods:
    - {{name: gradient, {written}}}
"""
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_experiment(path)
    assert said in str(caught.value)
    assert f"{path}:7" in str(caught.value)


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("{name: rise, params: {masks: yes}}", "params.masks: is true, expected a number"),
        ("{name: rise, params: {p: no}}", "params.p: is false, expected a number"),
        ("{name: occlusion, params: {window_px: on}}", "params.window_px: is true, expected a number"),
        ("{name: rise, params: {masks: many}}", "params.masks: is 'many'"),
        ("{name: rise, params: {mask: 5}}", "params.mask: unknown key; did you mean 'masks'?"),
        ("{name: integrated_gradients, params: {rule: middle}}", "params.rule: is 'middle', expected one of"),
        ("{name: gradient, smooth: {samples: yes}}", "smooth.samples: is true, expected a number"),
    ],
)
def test_a_methods_wrong_parameter_is_named(tmp_path: Path, method: str, said: str) -> None:
    assert f"attribution.methods.0.{said}" in errors(tmp_path, MINIMAL.replace("{name: random}", method))


def test_truth_values_are_taken_where_they_are_meant(tmp_path: Path) -> None:
    text = MINIMAL.replace("{name: random}", "{name: gradcam, params: {relu: no}}")
    assert load_experiment(write(tmp_path, text)).methods[0].params == {"relu": False}


def test_a_limit_on_maps_and_retraining_exclude_each_other(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(
        "name: x\ndata: {dataset: digits}\nmodel: {arch: small_cnn}\ntrain-cls: {}\nevaluate-roar: {}\n"
        "attribution: {limit: 3, methods: [{name: gradient}]}\n"
    )
    with pytest.raises(ConfigError, match="needs maps of all images"):
        load_experiment(path)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ('{arch: "torchvision:resnet5"}', "3: model.arch: torchvision has no classifier 'resnet5'; did you mean "),
        ('{arch: "torchvision:resnet50", weights: IMAGENET1K_V3}', "did you mean 'IMAGENET1K_V2'"),
        ('{arch: "timm:resnet50"}', "model.arch: 'timm:resnet50' needs the package timm: pip install timm"),
        (
            "{arch: small_cnn, weights: IMAGENET1K_V1}",
            "model.weights: is 'IMAGENET1K_V1': 'small_cnn' has no pub",
        ),
    ],
)
def test_names_of_other_packages_models_are_checked_without_importing_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, said: str
) -> None:
    monkeypatch.setattr("roarline.config.component_errors.has_timm", lambda: False)
    found = errors(tmp_path, MINIMAL.replace("{arch: small_cnn}", model))
    assert found.startswith("1 problem in ")
    assert said in found


def test_timms_weights_are_part_of_its_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("roarline.config.component_errors.has_timm", lambda: True)
    text = MINIMAL.replace("{arch: small_cnn}", '{arch: "timm:resnet50.a1_in1k", weights: WEIGHTS}')
    assert load_experiment(write(tmp_path, text.replace("WEIGHTS", "pretrained"))).model.weights == "pretrained"
    assert "timm's weights are part of the model's name" in errors(tmp_path, text.replace("WEIGHTS", "IMAGENET1K_V1"))


def test_a_right_name_of_torchvision_is_taken(tmp_path: Path) -> None:
    text = MINIMAL.replace("{arch: small_cnn}", '{arch: "torchvision:resnet50", weights: IMAGENET1K_V2}')
    assert load_experiment(write(tmp_path, text)).model.arch == "torchvision:resnet50"


@pytest.mark.parametrize("section", ["evaluate-roar", "evaluate-perturbation"])
def test_fractions_that_tables_would_show_as_one_are_refused(tmp_path: Path, section: str) -> None:
    found = errors(tmp_path, MINIMAL + f"{section}:\n  fractions: [0.3, 0.3000000001, 0.5]\n")
    assert f"experiment.yaml:9: {section}.fractions: holds 0.3 and 0.3000000001, closer than 1e-09" in found
    near = load_experiment(write(tmp_path, MINIMAL + f"{section}: {{fractions: [0.3, 0.300000002, 0.5]}}\n"))
    assert near.evaluate_roar or near.evaluate_perturbation


def test_of_many_known_names_only_the_nearest_are_said() -> None:
    known = [f"name_{index}" for index in range(200)]
    assert suggest("nam_7", known).count("name_") == 4
    assert suggest("nam_7", known[:9]) == "; did you mean 'name_7'? (known: " + ", ".join(known[:9]) + ")"


_SOUND = (
    "name: x\ndata: {dataset: digits}\nmodel: {arch: small_cnn}\ntrain-cls: {}\n"
    "attribution: {methods: [{name: gradient}]}\n"
)


@pytest.mark.parametrize("value", ["2020-13-45", "!!int abc"])
def test_values_that_yaml_itself_refuses_are_one_message(tmp_path: Path, value: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(_SOUND + f"seed: {value}\n")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_experiment(path)
    path.write_text(_SOUND)
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_experiment(path, [f"seed={value}"])


def test_anchors_that_unfold_without_end_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    rows = ["anchors:", "  a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"  a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    path.write_text("\n".join(rows) + "\n" + _SOUND)
    with pytest.raises(ConfigError, match="unfold"):
        load_experiment(path)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("train-cls: {}", "train-cls: {optimizer: {name: sgd, momentum: 0, nesterov: true}}", "needs a momentum"),
        ("train-cls: {}", "train-cls: {loss: binary_cross_entropy, label_smoothing: 0.1}", "label_smoothing"),
        ("{dataset: digits}", "{dataset: digits, resize_px: 4, crop_px: 8}", "crop_px is 8"),
        ("{dataset: digits}", "{dataset: digits, aspect: stretch}", "aspect stretch needs resize_px"),
    ],
)
def test_impossible_values_are_found_before_anything_runs(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(_SOUND.replace(old, new))
    with pytest.raises(ConfigError, match=said):
        load_experiment(path)


def test_the_label_is_a_target_only_where_an_image_has_one(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    several = _SOUND.replace("digits", "shapes")
    path.write_text(several)
    load_experiment(path)
    of_label = several.replace("{methods", "{target: label, methods")
    path.write_text(of_label)
    with pytest.raises(ConfigError, match="may have several"):
        load_experiment(path)
    path.write_text(of_label.replace("{dataset: shapes}", "{dataset: shapes, params: {max_shapes: 1}}"))
    load_experiment(path)


def test_what_sections_need_of_each_other_is_said_with_everything_else(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(_SOUND.replace("train-cls: {}", "evaluate-roar: {}\nevaluate-idsds: {}") + "seeed: 1\n")
    with pytest.raises(ConfigError) as caught:
        load_experiment(path)
    said = str(caught.value)
    assert "4 problems" in said
    assert f"{path}:3: model: needs a train-cls section" in said
    assert f"{path}:4: evaluate-roar: needs a training section" in said
    assert f"{path}:5: evaluate-idsds: needs a training section" in said
    assert "seeed" in said


def test_a_section_without_a_word_has_its_defaults_and_null_leaves_it_out(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(_SOUND.replace("train-cls: {}", "train-cls:\nevaluate-roar:"))
    experiment = load_experiment(path)
    assert experiment.train_cls is not None
    assert experiment.evaluate_roar is not None
    assert load_experiment(path, ["evaluate-roar=null"]).evaluate_roar is None
    path.write_text(_SOUND + "evaluate-roar: null\n")
    assert load_experiment(path).evaluate_roar is None
