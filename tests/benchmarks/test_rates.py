"""The rates that docs/speed.md reckons with are printed, one line each."""

from __future__ import annotations

import pytest
import torch

from benchmarks import rates
from benchmarks.rates import main


def test_a_quick_run_prints_a_table(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(str(tmp_path))
    assert main(["--quick"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert len(lines) == 1 + 6
    assert all(any(character.isdigit() for character in line.split("|")[2]) for line in lines[1:])


@pytest.mark.parametrize(("there", "device"), [(True, "cuda"), (False, "cpu")])
def test_transfer_is_to_the_gpu_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], there: bool, device: str
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    monkeypatch.setattr(rates, "machine", lambda where: asked.append(where) or {})
    monkeypatch.setattr(rates, "rates", lambda quick, where: asked.append(where) or [])
    assert main([]) == 0
    assert asked == [device, device]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_it_is_copied_from_pinned_memory() -> None:
    what, rate = rates._transfer(2**24, "cuda")
    assert what == "pinned memory to the GPU"
    assert float(rate.split()[0]) > 1  # GiB/s: PCIe 3 × 4 makes 3
