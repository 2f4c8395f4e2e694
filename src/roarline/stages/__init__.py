"""One file a stage: reads artifacts, computes, writes artifacts. This table imports no torch."""

from __future__ import annotations

from roarline.stages.job import StageSpec

STAGES: dict[str, StageSpec] = {
    "prepare-data": StageSpec(
        1, "roarline.stages.prepare_data:run", "Pack or index the raw images, labels, splits and ground truth"
    ),
    "train-cls": StageSpec(1, "roarline.stages.train_cls:run", "Train (or load) the classifier"),
    "train-explainer": StageSpec(
        1, "roarline.stages.train_explainer:run", "Train networks that draw the classifier's masks"
    ),
    "extract-attribution-maps": StageSpec(
        5, "roarline.stages.extract_attribution_maps:run", "Compute attribution maps and write them to HDF5"
    ),
    "evaluate-roar": StageSpec(
        1,
        "roarline.stages.evaluate_roar:run",
        "Remove pixels and retrain: ROAR, KAR, recursive ROAR, leakage probe",
        stacked="roarline.stages.stacked_cells:run",
    ),
    "evaluate-f-fidelity": StageSpec(
        1,
        "roarline.stages.evaluate_f_fidelity:run",
        "F-Fidelity: random gaps, seen by a network that was fine-tuned on gaps",
    ),
    "evaluate-idsds": StageSpec(
        1,
        "roarline.stages.evaluate_idsds:run",
        "Single patches deleted, seen by a network that was fine-tuned on that",
    ),
    "evaluate-perturbation": StageSpec(
        2,
        "roarline.stages.evaluate_perturbation:run",
        "MoRF, LeRF, insertion, deletion, ROAD, IROF, patches; probes; without retraining",
    ),
    "evaluate-localization": StageSpec(
        2,
        "roarline.stages.evaluate_localization:run",
        "Pointing games, relevance on objects, boxes, segmentation; complexity of maps",
    ),
    "evaluate-sanity": StageSpec(
        1,
        "roarline.stages.evaluate_sanity:run",
        "Maps of networks with random weights, of shuffled labels, of other classes: do they change?",
    ),
    "aggregate-scores": StageSpec(
        5,
        "roarline.stages.aggregate_scores:run",
        "Scores with intervals, differences to random, ranks; tests, agreement, stability",
    ),
    "report": StageSpec(7, "roarline.stages.report:run", "One self-contained page with plots and heat maps"),
}
