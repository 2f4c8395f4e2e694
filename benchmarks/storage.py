"""``python -m benchmarks.storage``: what maps cost on disk, what float16 does to the order of pixels, and the writer.

Three tables. *Files*: size and speed of each dtype and compression, as the stage writes its parts and readers read
them. *Order*: float16 against float32, as Spearman's correlation of a map's values, and as the share of removed pixels
that are others than float32 removes, ties broken as everywhere. Both of maps of a small network, trained here, on drawn
images. *Writer*: the stage with a network that costs next to nothing, where writing would show if it held up the rest,
its parts written ÷ not written; joining the parts and the digests of publishing come after, and are timed apart.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn

from benchmarks.extraction import ExtractionRun
from benchmarks.harness import Options, machine, timed
from roarline.artifacts import map_parts
from roarline.artifacts.digest import content_digest
from roarline.artifacts.files import file_sha256
from roarline.artifacts.maps import MAPS_FILE, MapRows, MapsFile, join_parts, write_part
from roarline.artifacts.store import Store
from roarline.config.experiment import Experiment
from roarline.execution.plan import build_plan
from roarline.execution.run_job import run_job
from roarline.imaging.ranking import rank_pixels, removal_count
from roarline.stages.job import Context

FRACTIONS = (0.1, 0.5, 0.9)
DTYPES = ("float32", "float16")
COMPRESSIONS = ("none", "lz4", "gzip")
_METHODS: list[dict[str, Any]] = [
    {"name": "gradient"},
    {"name": "integrated_gradients", "params": {"steps": 8}},
    {"name": "gradcam", "params": {"layer": "conv3"}},
]
_FILE_MIB = 64


class Cheap(nn.Module):
    """A network that costs next to nothing."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=4, padding=1)
        self.linear = nn.Linear(4, classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.conv(images).relu().mean((2, 3)))
        return logits


def make_maps(side_px: int, images: int, train: int, epochs: int) -> dict[str, np.ndarray]:
    """Maps float32 [images, side, side] of each method, of a small network after some epochs on so many images."""
    config = {
        "name": "storage",
        "data": {"dataset": "shapes", "params": {"size_px": side_px, "train": train, "test": images, "max_shapes": 1}},
        "model": {"arch": "small_cnn", "params": {"width": 16}},
        "train-cls": {"epochs": epochs, "batch_size": 32, "optimizer": {"name": "adam", "lr": 5e-3}},
        "attribution": {"methods": _METHODS, "baselines": []},
    }
    plan = build_plan(Experiment.model_validate(config))
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        for job in plan.needed_by("extract-attribution-maps"):
            run_job(job, Context(store))
        for job in plan.of("extract-attribution-maps"):
            with MapsFile(store.open(job.stage, job.key).file(MAPS_FILE)) as maps:
                found[str(job.parameters["method"])] = maps.maps(range(len(maps)))
    return found


def files_table(maps: dict[str, np.ndarray], turns: int) -> list[list[str]]:
    """Size, and speeds in MiB of float32 maps a second, of a part."""
    rows = [["method", "dtype", "compression", "size ÷ float32, plain", "written, MiB/s", "read, MiB/s"]]
    for method, values in maps.items():
        repeated = np.tile(values, (-(-_FILE_MIB * 2**20 // values.nbytes), 1, 1)) if turns > 1 else values
        ids = [str(row) for row in range(len(repeated))]
        for dtype in DTYPES:
            part = MapRows(ids, np.arange(len(ids)), repeated.astype(dtype), np.zeros((len(ids), 1), np.float32))
            for compression in COMPRESSIONS:
                size, wrote, read = _write_and_read(part, compression, turns)
                mib = repeated.nbytes / 2**20
                rows.append(
                    [
                        method,
                        dtype,
                        compression,
                        f"{size / repeated.nbytes:.2f}",
                        f"{mib / wrote:.0f}",
                        f"{mib / read:.0f}",
                    ]
                )
    return rows


def order_table(maps: dict[str, np.ndarray]) -> list[list[str]]:
    """What float16 changes: the worst and the median map's correlation, and the mean share of other pixels removed."""
    rows = [
        [
            "method",
            "Spearman, median",
            "Spearman, lowest",
            *(f"other pixels of the first {f:.0%} removed" for f in FRACTIONS),
        ]
    ]
    for method, values in maps.items():
        rounded = values.astype(np.float16).astype(np.float32)
        same = [
            float(stats.spearmanr(a.ravel(), b.ravel()).statistic)
            for a, b in zip(values, rounded, strict=True)
            if np.ptp(a) > 0  # a Grad-CAM map may be 0 all over, which has no order
        ]
        shares = [f"{share:.4%}" for share in other_pixels(values, rounded)]
        rows.append([method, f"{statistics.median(same):.9f}", f"{min(same):.9f}", *shares])
    return rows


def other_pixels(one_BHW: np.ndarray, other_BHW: np.ndarray) -> list[float]:
    """For each fraction, the mean share of the pixels that one set of maps removes and the other doesn't."""
    seeds = list(range(len(one_BHW)))
    one, other = (rank_pixels(torch.from_numpy(maps), seeds) for maps in (one_BHW, other_BHW))
    shares = []
    for fraction in FRACTIONS:
        count = removal_count(fraction, one[0].numel())
        shares.append(float(((one < count) & (other >= count)).sum() / (count * len(one))))
    return shares


def writer_table(sides_and_images: Sequence[tuple[int, int]], turns: int, threads: int) -> list[list[str]]:
    """Seconds of extraction with its parts written and not, and of what comes after."""
    rows = [
        [
            "maps", "MiB", "computed, not written, s", "computed and written, s", "ratio", "joined, s",
            "digests of publishing, s",
        ]
    ]  # fmt: skip
    for side, images in sides_and_images:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(_writer_row(Path(folder), side, images, turns, threads))
    return rows


def _writer_row(folder: Path, side: int, images: int, turns: int, threads: int) -> list[str]:
    model = Cheap(1000).eval().requires_grad_(False)
    run = ExtractionRun(folder, model, "gradient", {}, images, Options(input_px=side, threads=threads))
    parts, path = folder / "parts", folder / MAPS_FILE
    without: list[float] = []
    written: list[float] = []
    for turn in range(turns + 1):
        for written_now in (False, True) if turn % 2 else (True, False):
            shutil.rmtree(parts, ignore_errors=True)
            with mock.patch.object(map_parts, "_write_whole", map_parts._write_whole if written_now else _discard):
                seconds = timed(lambda: run.extract(parts), "cpu")
            if turn:  # the first is a warm-up
                (written if written_now else without).append(seconds)
    shutil.rmtree(parts)
    run.extract(parts)
    joined = _median(lambda: join_parts(path, sorted(parts.glob("*.h5")), {}), turns)
    digests = _median(lambda: (content_digest(path), file_sha256(path)), turns)
    run.close()
    ratio = statistics.median(a / b for a, b in zip(without, written, strict=True))
    mib = path.stat().st_size / 2**20
    return [
        f"{images} of {side} px", f"{mib:.0f}", f"{statistics.median(without):.2f}",
        f"{statistics.median(written):.2f}", f"{ratio:.2f}", f"{joined:.2f}", f"{digests:.2f}",
    ]  # fmt: skip


def _discard(path: Path, batches: Sequence[MapRows], compression: str) -> None:
    """Instead of writing."""


def _write_and_read(part: MapRows, compression: str, turns: int) -> tuple[int, float, float]:
    with tempfile.TemporaryDirectory() as folder:
        path, joined = Path(folder) / "part.h5", Path(folder) / MAPS_FILE
        wrote = _median(lambda: write_part(path, part, compression), turns)
        join_parts(joined, [path], {}, compression)

        def read() -> None:
            with MapsFile(joined) as maps:
                maps.maps(range(len(maps)))

        return joined.stat().st_size, wrote, _median(read, turns)


def _median(run: Callable[[], object], turns: int) -> float:
    return statistics.median(timed(run, "cpu") for _ in range(turns))


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [rows[0], ["---"] * len(rows[0]), *rows[1:]])


def main(words: list[str] | None = None) -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.storage", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small and once: shows that it works, no figures")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch")
    given = parser.parse_args(words)
    torch.set_num_threads(given.threads)
    turns = 1 if given.quick else 5
    maps = make_maps(16, 8, 32, 1) if given.quick else make_maps(64, 128, 1000, 4)
    sizes = [(32, 16)] if given.quick else [(224, 512), (32, 16384)]
    print(", ".join(f"{key} {value}" for key, value in machine("cpu").items() if value is not None))
    for rows in (files_table(maps, turns), order_table(maps), writer_table(sizes, turns, given.threads)):
        print("\n" + markdown(rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
