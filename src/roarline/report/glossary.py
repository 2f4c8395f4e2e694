"""Sentences that explain the tests themselves; those that name numbers read them off the summary.

Markup as in ``text``.
"""

from __future__ import annotations

from collections.abc import Iterator

from roarline.config.localization_metrics import LOCALIZATION_METRICS
from roarline.report.findings import Facts
from roarline.report.formatting import fraction_percent, join, percent


def definitions(facts: Facts) -> Iterator[str]:
    """What each test that was run does, and which direction is good."""
    if facts.has("roar_accuracy"):
        yield (
            "ROAR, remove and retrain (arXiv 1806.10758): the pixels that a method calls most relevant are replaced in "
            "all images, and a new network is trained on what is left. If the method found what matters, the new "
            "network does badly: lower accuracy is better."
        )
    if facts.has("kar_accuracy"):
        yield (
            "KAR, keep and retrain, removes the least relevant pixels instead. What is kept should be enough to "
            "recognise the class: higher accuracy is better."
        )
    if facts.has("recursive_roar_accuracy"):
        yield (
            "Recursive ROAR (arXiv 2110.08412) removes fraction by fraction: each time the maps are made anew, by the "
            "network that was just retrained, of the images as it saw them; what is gone stays gone. A clue that only "
            "stood in for another is found in this way, too: lower accuracy is better."
        )
    if facts.has("recursive_roar_relative_area"):
        yield (
            "The relative area (RACU) is the area between random's curve and the method's, as a share of that between "
            "random's curve and what is left where everything is removed: 0 is random's own, higher is better."
        )
    if facts.has("ffid_plus"):
        yield (
            "F-Fidelity (arXiv 2410.02970) fine-tunes the classifier once on images with random gaps, and then puts "
            "random gaps into what a map calls relevant (FFid+, a large loss is better) and into all else (FFid−, a "
            "small loss is better). Gaps are never larger than those that the network was fine-tuned on."
        )
    if facts.has("idsds"):
        yield (
            "IDSDS (arXiv 2407.11910) fine-tunes the classifier once on images that lack a patch, deletes every patch "
            "in turn, and takes the rank correlation of what that costs with the sum of the map in the patch: 1 is "
            "best, 0 what knowing nothing gives."
        )
    if facts.has("morf") or facts.has("lerf"):
        yield (
            "MoRF and LeRF (arXiv 1509.06321) retrain nothing: they show the classifier itself images from which the "
            "most (MoRF) or least (LeRF) relevant pixels vanish step by step, and take the area under its score. Lower "
            "is better for MoRF, higher for LeRF"
            + ("; SRG is LeRF minus MoRF, higher is better (arXiv 2401.06654)." if facts.has("srg") else ".")
        )
    if facts.has("insertion") or facts.has("deletion"):
        yield (
            "Insertion and deletion (arXiv 1806.07421) do the same in fine steps, most relevant pixels first: "
            "insertion reveals them on a degraded image (higher is better), deletion takes them away (lower is better)."
        )
    if any(facts.has(metric) for metric in ("road_morf", "road_lerf", "road_combined")):
        yield (
            "ROAD (arXiv 2202.00449) does as MoRF and LeRF do, but imputes each removed pixel from its neighbours, "
            "plus a little noise, so that the shape of what was removed gives less away: MoRF lower, LeRF higher, and "
            "half of LeRF minus MoRF (combined) higher is better."
        )
    if facts.has("irof") or facts.has("region_perturbation") or facts.has("aopc"):
        yield (
            "IROF (arXiv 2003.08747) removes superpixels, region perturbation (arXiv 1509.06321) square patches, AOPC "
            "pixels, the most relevant first. Each measures how far the score falls: higher is better."
        )
    if facts.has("morf_deviation") or facts.has("lerf_deviation"):
        yield (
            "The deviations are the relative change of the probability at the removed fractions: high for the most "
            "relevant pixels (MoRF), low for the least relevant (LeRF)."
        )
    if facts.has("sensitivity_n") or facts.has("faithfulness_correlation"):
        yield (
            "Sensitivity-n (arXiv 1711.06104) and the faithfulness correlation (arXiv 2005.00631) remove random sets "
            "of pixels: does the relevance of a set go along with what its removal costs? A correlation, higher is "
            "better; a constant map has none."
        )
    if facts.has("infidelity"):
        yield (
            "Infidelity (arXiv 1901.09392) asks how far the relevance of random squares, or of noise, is from what "
            "they cost the classifier, in squares of its score: lower is better."
        )
    if facts.has("max_sensitivity") or facts.has("avg_sensitivity"):
        yield (
            "Max- and average sensitivity (arXiv 1901.09392) ask the method again about the image under noise that "
            "nobody sees: by how much of its norm does the map change? Lower is better; a map that never looks at the "
            "image has 0."
        )
    if facts.has("aic") or facts.has("sic"):
        yield (
            "AIC and SIC (arXiv 1906.02825) make the most relevant pixels of a blurred image sharp, and draw accuracy "
            "(AIC) or probability (SIC) over the size of the compressed image: the area is higher where the classifier "
            "knows early."
        )
    if any(facts.has(metric) for metric in LOCALIZATION_METRICS):
        yield (
            "Localization compares maps with where the objects of the target's class are, by segmentation or boxes; "
            "complexity looks at the maps alone. Images without such an object are listed under failures."
        )
    for metric, path in facts.own_metrics.items():
        rows = facts.scores.overall(metric)
        direction = next((row.higher_is_better for row in rows.values()), None)
        better = {True: "higher is better", False: "lower is better", None: "methods are not ranked by it"}[direction]
        yield f"`{metric}` is this experiment's own metric, computed by `{path}`: {better}."


def limits(facts: Facts) -> Iterator[str]:
    """What each test that was run can and can't say."""
    if facts.has("roar_accuracy") or facts.has("kar_accuracy"):
        yield (
            "ROAR and KAR retrain, so they say where information about the class lies for networks of this kind, not "
            "what this one trained network looks at. A method that is faithful to the network can still score badly "
            "where other pixels, or the shape of the hole, hold the same information. Smooth and blurry maps are known "
            "to fare well (arXiv 2304.13836)."
        )
        yield from _yardstick(facts)
    if any(facts.has(metric) for metric in ("morf", "lerf", "insertion", "deletion")):
        yield (
            "MoRF, LeRF, insertion and deletion ask this very network, but with images unlike any it was trained on: a "
            "falling score may mean that the pixels mattered, or only that holes confuse the network."
        )


def _yardstick(facts: Facts) -> Iterator[str]:
    """What random removal costs, from the lowest to the highest fraction."""
    reference = facts.scores.reference("roar_accuracy")
    rows = facts.scores.by_fraction("roar_accuracy").get(facts.random or "", [])
    if reference is None or not rows:
        return
    points = [
        f"{percent(row.value or 0.0)} with {fraction_percent(row.removed_fraction or 0.0)}"
        for row in ([rows[0], rows[-1]] if len(rows) > 1 else rows)
    ]
    yield (
        f"Random removal is the yardstick: retrained networks reach {join(points)} of the pixels removed at random; "
        f"with nothing removed they reach {percent(reference.value or 0.0)}, and guessing gets {percent(facts.chance)}."
    )
