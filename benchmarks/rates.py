"""``python -m benchmarks.rates``: how fast this machine feeds a training that fits no memory, as docs/speed.md reckons.

Each rate is of one thread but where it says otherwise, the best of three.
"""

from __future__ import annotations

import argparse
import io
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import torch
from PIL import Image

from benchmarks.harness import machine
from roarline.artifacts.rows import read_rows
from roarline.imaging.ranking import rank_pixels
from roarline.imaging.removal import removal_mask

_SIDE_PX = 224
_JPEG_PX = (500, 375)  # about the median of ImageNet's
_STORED_PX = 256
_TRIES = 3


def main(words: list[str] | None = None) -> int:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rates", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small files: shows that it works, no figures")
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", help="default: a GPU where there is one"
    )
    given = parser.parse_args(words)
    torch.set_num_threads(1)
    print(", ".join(f"{key} {value}" for key, value in machine(given.device).items() if value is not None), end="\n\n")
    print("| what | rate |\n|---|---|")
    for what, rate in rates(given.quick, given.device):
        print(f"| {what} | {rate} |")
    return 0


def rates(quick: bool, device: str) -> list[tuple[str, str]]:
    """(what, rate in words) of disk, decoding, maps, ranks and transfer."""
    found = [_disk(2**24 if quick else 2**30), _decoding(4 if quick else 64), _maps(64 if quick else 2048)]
    found += _ranking(2 if quick else 64)
    found.append(_transfer(2**22 if quick else 2**28, device))
    return found


def _best(run: Callable[[], object], before: Callable[[], object] = lambda: None) -> float:
    """Seconds of the fastest of three runs."""
    seconds = []
    for _ in range(_TRIES):
        before()
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _disk(size: int) -> tuple[str, str]:
    with tempfile.TemporaryDirectory(dir=".") as folder:
        path = Path(folder) / "bytes"
        path.write_bytes(os.urandom(2**20) * (size // 2**20))

        def forget() -> None:
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

        def read() -> None:
            with path.open("rb", buffering=0) as file:
                while file.read(2**22):
                    pass

        return "disk, read in order, not cached", f"{size / _best(read, forget) / 2**20:,.0f} MiB/s"


def _decoding(count: int) -> tuple[str, str]:
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize(
        _JPEG_PX, Image.Resampling.BICUBIC
    )
    packed = io.BytesIO()
    smooth.save(packed, "JPEG", quality=90)

    def decode() -> None:
        for _ in range(count):
            image = Image.open(io.BytesIO(packed.getvalue())).convert("RGB")
            scale = _STORED_PX / min(image.size)
            image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
            np.asarray(image)

    what = f"JPEG of {_JPEG_PX[0]}×{_JPEG_PX[1]} px decoded (Pillow) and resized to {_STORED_PX} px"
    return what, f"{count / _best(decode):,.0f} images/s"


def _maps(count: int) -> tuple[str, str]:
    batch = min(256, count)
    with tempfile.TemporaryDirectory(dir=".") as folder:
        path = Path(folder) / "maps.h5"
        with h5py.File(path, "w") as file:
            maps = file.create_dataset("maps", (count, _SIDE_PX, _SIDE_PX), "f2", chunks=(1, _SIDE_PX, _SIDE_PX))
            for start in range(0, count, batch):
                maps[start : start + batch] = np.random.default_rng(start).random((batch, _SIDE_PX, _SIDE_PX))
        rows = np.random.default_rng(1).permutation(count)

        def read() -> None:
            with h5py.File(path) as file:
                for start in range(0, count, batch):
                    read_rows(file["maps"], rows[start : start + batch])

        seconds = _best(read)
    rate = count * _SIDE_PX**2 * 2 / seconds / 2**20
    return f"float16 maps of {_SIDE_PX} px by rows in any order, from HDF5, cached", f"{rate:,.0f} MiB/s"


def _ranking(count: int) -> list[tuple[str, str]]:
    maps = torch.rand(count, _SIDE_PX, _SIDE_PX, generator=torch.Generator().manual_seed(0))
    ranks = rank_pixels(maps, range(count))
    ranked = count / _best(lambda: rank_pixels(maps, range(count)))
    masked = count / _best(lambda: np.packbits(removal_mask(ranks, _SIDE_PX**2 // 2).numpy(), axis=None))
    return [
        (f"maps of {_SIDE_PX} px ranked", f"{ranked:,.0f} maps/s"),
        ("ranks cut at a fraction and packed to bits", f"{masked:,.0f} maps/s"),
    ]


def _transfer(size: int, device: str) -> tuple[str, str]:
    on_gpu = device.startswith("cuda")
    there = torch.empty(size, dtype=torch.uint8, device=device)
    here = torch.zeros(size, dtype=torch.uint8, pin_memory=on_gpu)

    def copy() -> None:
        there.copy_(here, non_blocking=True)
        if on_gpu:
            torch.cuda.synchronize(device)

    what = "pinned memory to the GPU" if on_gpu else "memory to memory (there is no GPU to copy to)"
    return what, f"{size / _best(copy) / 2**30:.1f} GiB/s"


if __name__ == "__main__":
    raise SystemExit(main())
