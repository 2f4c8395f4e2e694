"""MaxBoxAcc at a thousand thresholds against thresholding a thousand times, as wsolevaluation does, with OpenCV.

Here "bare" is no network: it is one map thresholded, its contours found, the largest one's box (or all boxes) compared
with the ground truth, at each of the thresholds. Half of the maps are smooth as a CAM is, half as fine as a gradient's.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from scipy import ndimage

from benchmarks.harness import Measurement, Options, alternate
from roarline.evaluation.box_overlap import iou_matrix
from roarline.evaluation.max_box_accuracy import boxes_right, thresholds

GOAL = 4.0
_STEP = 0.001
_OVERLAPS = {"largest": (0.5,), "all": (0.3, 0.5, 0.7)}


def measure(options: Options) -> Iterator[Measurement]:
    """Both versions of MaxBoxAcc."""
    count = 2 if options.quick else 20
    maps = random_maps(count, options.input_px)
    side = options.input_px
    box = np.array([[side // 4, side // 4, side // 2, side // 2]])

    for which, overlaps in _OVERLAPS.items():

        def ours(which: str = which, overlaps: tuple[float, ...] = overlaps) -> None:
            for map_HW in maps:
                boxes_right(map_HW, box, step=_STEP, overlaps=overlaps, which=which, compat="original")  # type: ignore[arg-type]

        def bare(passes: int, which: str = which, overlaps: tuple[float, ...] = overlaps) -> None:
            for index in range(passes):
                one_threshold_at_a_time(maps[index % count], box, which, overlaps)

        setting = f"step {_STEP:g}, {options.input_px} px"
        measurement = Measurement(
            "localization", f"boxes, {which}", setting, count, count, "thresholding", "OpenCV", GOAL
        )
        yield alternate(measurement, ours, bare, options)


def random_maps(count: int, side: int) -> list[np.ndarray]:
    """float64 [side, side] in [0, 1]: one of 7 × 7 cells enlarged, one of fine noise, in turns."""
    generator, maps = np.random.default_rng(0), []
    for index in range(count):
        if index % 2 == 0:
            map_HW = cv2.resize(generator.random((7, 7)), (side, side), interpolation=cv2.INTER_LINEAR)
        else:
            map_HW = ndimage.gaussian_filter(np.abs(generator.standard_normal((side, side))), 1.0)
        maps.append((map_HW - map_HW.min()) / (map_HW.max() - map_HW.min()))
    return maps


def one_threshold_at_a_time(
    map_HW: np.ndarray, boxes_G4: np.ndarray, which: str, overlaps: tuple[float, ...]
) -> np.ndarray:
    """bool [D, T], as ``boxes_right`` with ``compat="original"``."""
    height, width = map_HW.shape
    grey, best = (map_HW * 255).astype(np.uint8), []
    for tau in thresholds(_STEP):
        _, above = cv2.threshold(grey, int(tau * grey.max()), 255, cv2.THRESH_BINARY)
        contours, _ = cv2.findContours(above, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
        if which == "largest" and contours:
            contours = (max(contours, key=cv2.contourArea),)
        found = [cv2.boundingRect(contour) for contour in contours]
        boxes = [[x, y, min(x + w, width - 1), min(y + h, height - 1)] for x, y, w, h in found] or [[0, 0, 0, 0]]
        best.append(iou_matrix(np.array(boxes), boxes_G4).max())
    return np.array([np.array(best) >= overlap for overlap in overlaps])
