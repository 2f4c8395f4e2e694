"""What is compared: a peer's case, and roarline's stage on as many images of the same size through the same network."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.extraction import CAM_LAYERS, ExtractionRun
from benchmarks.harness import Options, network
from benchmarks.perturbation import _Run as PerturbationRun
from roarline.config.perturbation import EvaluatePerturbation

Ours = Callable[[], object]
_WINDOW_PX, _STRIDE_PX = 56, 28


@dataclass(frozen=True, eq=False)
class Comparison:
    """One line.

    Attributes:
        what: For people.
        case: Of the worker.
        settings: Of the peer: images, side, network, threads, batch size, and what the case asks for.
        ours: Opens roarline's half.
    """

    what: str
    case: str
    settings: dict[str, Any]
    ours: Callable[[Path], Any]


def comparisons(options: Options) -> Iterator[Comparison]:
    """Every comparison but retraining, on the first network that was asked for."""
    name, quick = options.networks[0], options.quick
    few, many, steps = (2, 2, 3) if quick else (4, 16, 21)  # of pixel flipping: three times a divisor of the pixels
    shared = {
        "network": name, "side_px": options.input_px, "threads": options.threads, "device": options.device,
        "batch_size": 4 if quick else 8,
    }  # fmt: skip

    def perturbation(metrics: list[str], images: int, **settings: Any) -> Callable[[Path], Any]:
        section = EvaluatePerturbation.model_validate({"metrics": metrics, **settings})
        return lambda folder: PerturbationRun(folder, network(name), name, images, section, options)

    def extraction(method: str, params: dict[str, Any], images: int) -> Callable[[Path], Any]:
        return lambda folder: _extraction(folder, name, method, params, images, options)

    flips = {"images": few * 2, "steps": steps}
    yield Comparison(
        f"pixel flipping, {steps} steps", "quantus pixel flipping", shared | flips,
        perturbation(["deletion"], few * 2, steps=steps),
    )  # fmt: skip
    fractions = 3 if quick else 9
    step = 100 // (fractions + 1)
    removed = [index * step / 100 for index in range(1, fractions + 1)]
    yield Comparison(
        f"ROAD, {fractions} fractions (the peer's images are grey)", "quantus road",
        shared | {"images": few, "fractions": fractions},
        perturbation(["road_morf"], few, road={"fractions": removed}),
    )  # fmt: skip
    yield Comparison("gradient", "captum gradient", shared | {"images": many}, extraction("gradient", {}, many))
    yield Comparison(
        f"integrated gradients, {steps} steps", "captum integrated gradients",
        shared | {"images": few, "steps": steps, "batch_size": 1},
        extraction("integrated_gradients", {"steps": steps}, few),
    )  # fmt: skip
    yield Comparison(
        f"occlusion, window {_WINDOW_PX} px, step {_STRIDE_PX} px", "captum occlusion",
        shared | {"images": 2, "window_px": _WINDOW_PX, "stride_px": _STRIDE_PX},
        extraction("occlusion", {"window_px": _WINDOW_PX, "stride_px": _STRIDE_PX}, 2),
    )  # fmt: skip
    layer = CAM_LAYERS[name]
    yield Comparison(
        "Grad-CAM", "grad-cam", shared | {"images": many, "layer": layer}, extraction("gradcam", {"layer": layer}, many)
    )


@contextmanager
def opened(comparison: Comparison) -> Iterator[Ours]:
    """Roarline's half, ready to run."""
    with tempfile.TemporaryDirectory() as folder, comparison.ours(Path(folder)) as run:
        yield run


@contextmanager
def _extraction(
    folder: Path, name: str, method: str, params: dict[str, Any], images: int, options: Options
) -> Iterator[Ours]:
    run = ExtractionRun(folder, network(name), method, params, images, options)
    try:
        yield run
    finally:
        run.close()
