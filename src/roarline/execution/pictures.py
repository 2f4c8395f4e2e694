"""What the commands that draw finished maps do. Imports no torch before there is work that needs it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from roarline.artifacts.store import Store
from roarline.config.metrics import METRICS
from roarline.config.wording import suggest
from roarline.errors import UserInputError
from roarline.execution.experiment_view import write_view
from roarline.execution.plan import Plan
from roarline.execution.prepared import load, obtain_data, run_jobs


def gallery(configs: Sequence[Path], overrides: Sequence[str], output: Path, images: int, *, overlaid: bool) -> None:
    """`roarline gallery`: make the maps that are missing, then draw those of all configs in one picture.

    Raises:
        UserInputError: The experiments are of different images or classifiers.
    """
    columns: dict[str, tuple[str, Plan, Store]] = {}
    loaded = [load(config, overrides) for config in configs]
    plans = [(obtain_data(plan), store) for plan, store in loaded]
    first = plans[0][0]
    for (plan, store), config in zip(plans, configs, strict=True):
        for stage in ("prepare-data", "train-cls"):
            if plan.of(stage)[0].key != first.of(stage)[0].key:
                raise UserInputError(f"{config}: its {stage} differs from that of {configs[0]}; compare them apart")
        for role, (_, key) in plan.of("report")[0].inputs.items():
            if role.startswith("maps:") and key not in {known for known, _, _ in columns.values()}:
                columns.setdefault(role.removeprefix("maps:"), (key, plan, store))
    for plan, store in plans:
        run_jobs(plan, store, "extract-attribution-maps")
        write_view(plan, store)
    from roarline.stages.gallery import Shown, draw_gallery

    experiment, dataset = first.experiment, first.of("prepare-data")[0]
    shown = []
    for name, (key, plan, store) in columns.items():
        settings = next(m for m in plan.of("report")[0].parameters["methods"] if m["name"] == name)
        parameters = {**settings["params"], **{k: v for k in ("smooth", "filter") if (v := settings.get(k))}}
        shown.append(Shown(name, settings["sign"], parameters, store.open("extract-attribution-maps", key)))
    rows, count = draw_gallery(
        plans[0][1].open("prepare-data", dataset.key), shown, output, title=experiment.description or experiment.name,
        images=images, seed=experiment.seed, data_root=experiment.data.root, overlaid=overlaid,
    )  # fmt: skip
    print(f"gallery: {output} ({rows} images, {count} methods)")


def cases(
    config: Path, overrides: Sequence[str], output: Path, *, metric: str, setting: str | None, method: str, count: int
) -> None:
    """`roarline cases`: make the scores that are missing, then draw the best and the worst test images.

    Raises:
        UserInputError: The config doesn't score that method by that metric.
    """
    plan, store = load(config, overrides)
    plan = obtain_data(plan)
    report = plan.of("report")[0]
    methods = {described["name"]: described for described in report.parameters["methods"]}
    if method not in methods:
        raise UserInputError(f"{config}: no method is named {method!r}{suggest(method, list(methods))}")
    if metric not in METRICS:
        raise UserInputError(f"no metric is {metric!r}{suggest(metric, list(METRICS))}")
    roles = [role for role in (f"scores:{method}", f"localization:{method}") if role in report.inputs]
    scored = {report.inputs[role][0]: report.inputs[role] for role in roles}
    stage = METRICS[metric].stage
    if stage not in scored:
        raise UserInputError(f"{config}: {metric} is computed by {stage}, which this config doesn't ask for")
    from roarline.report.case_sheet import check_output

    check_output(output)
    run_jobs(plan, store, stage)
    write_view(plan, store)
    from roarline.stages.cases import Look, Question, draw_best_and_worst

    experiment = plan.experiment
    drawn, failed = draw_best_and_worst(
        store.open("prepare-data", plan.of("prepare-data")[0].key),
        store.open(*report.inputs[f"maps:{method}"]),
        store.open(*scored[stage]),
        Question(method, metric, setting, METRICS[metric].higher_is_better),
        Look(experiment.name, methods[method]["sign"], count, experiment.seed, experiment.data.root),
        output,
    )
    print(f"cases: {output} ({drawn} best and {drawn} worst" + (f"; {failed} rows have no score)" if failed else ")"))
