"""``python -m benchmarks``: measure the hot paths and print the table.

To add a hot path: one file here with ``measure(options) -> Iterator[Measurement]``, and one line in ``HOT_PATHS``.
"""

from __future__ import annotations

import argparse
import importlib
import sys

import torch

from benchmarks.harness import Measurement, Options, machine
from benchmarks.tables import notes, save, table
from roarline.execution.allocator import keep_freed_memory

HOT_PATHS = {
    "perturbation": "benchmarks.perturbation",
    "extraction": "benchmarks.extraction",
    "shelf": "benchmarks.shelf",
    "sampling": "benchmarks.sampling",
    "optimising": "benchmarks.optimising",
    "training": "benchmarks.training",
    "grid": "benchmarks.grid",
    "gpu": "benchmarks.gpu",
    "explainers": "benchmarks.explainers",
    "localization": "benchmarks.localization",
    "imputation": "benchmarks.imputation",
    "comparisons": "benchmarks.comparisons",
    "executors": "benchmarks.executors",
    "growth": "benchmarks.growth",
}
_ON_GPU = ("mobilenet_v2", "resnet50")


def main(words: list[str] | None = None) -> int:
    """Run the measurements that were asked for; 1 where one misses its goal."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.partition("\n")[0])
    parser.add_argument("hot_paths", nargs="*", metavar="HOT_PATH", help=f"default: all ({', '.join(HOT_PATHS)})")
    parser.add_argument("--quick", action="store_true", help="one turn of small runs: shows that it works, no figures")
    parser.add_argument("--save", action="store_true", help="write the result to benchmarks/results/ as JSON")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of torch")
    parser.add_argument(
        "--networks", nargs="+", help="torchvision names; default: mobilenet_v2; on a GPU resnet50, too"
    )
    parser.add_argument("--alternations", type=int, default=Options.alternations)
    parser.add_argument("--profile", action="store_true", help="also print where the time of each hot path goes")
    parser.add_argument(
        "--whole", action="store_true", help="grid: all 153 cells in every turn, the better part of an hour"
    )
    given = parser.parse_args(words)
    unknown = [name for name in given.hot_paths if name not in HOT_PATHS]
    if unknown:
        parser.error(f"no hot path is named {unknown[0]!r}; there are {', '.join(HOT_PATHS)}")
    options = Options(
        device=given.device, threads=given.threads, quick=given.quick,
        networks=tuple(given.networks or (_ON_GPU if given.device.startswith("cuda") else Options.networks)),
        alternations=given.alternations, profile=given.profile, whole=given.whole,
    )  # fmt: skip
    torch.set_num_threads(options.threads)
    keep_freed_memory()  # as in a worker, for both sides
    measurements: list[Measurement] = []
    for name in given.hot_paths or HOT_PATHS:
        for measurement in importlib.import_module(HOT_PATHS[name]).measure(options):
            measurements.append(measurement)
            print(
                f"{measurement.hot_path} {measurement.network}: efficiency {measurement.efficiency:.2f}",
                file=sys.stderr,
            )
    print(
        ", ".join(f"{key} {value}" for key, value in machine(options.device).items() if value is not None), end="\n\n"
    )
    print(table(measurements))
    if told := notes(measurements):
        print(f"\n{told}")
    if given.save:
        print(f"\nsaved: {save(measurements, options).name}")
    return 1 if any(m.missed for m in measurements) and not options.quick else 0


if __name__ == "__main__":
    raise SystemExit(main())
