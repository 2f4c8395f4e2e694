"""Profiles name what took the time, and overlapping kernels count once."""

from __future__ import annotations

import pytest
import torch

from benchmarks.harness import Measurement, Options, alternate
from benchmarks.profiles import covered, profiled


def test_spans_that_overlap_count_once() -> None:
    assert covered([]) == 0
    assert covered([(5, 6), (0, 2), (1, 3), (1, 2), (5, 6)]) == 4  # 0 to 3 and 5 to 6


def test_a_profile_names_the_operations() -> None:
    assert "aten::mm" in profiled(lambda: torch.ones(8, 8) @ torch.ones(8, 8), "cpu")


@pytest.mark.parametrize("profile", [True, False])
def test_a_hot_path_is_profiled_once_and_beside_its_turns(profile: bool, capsys: pytest.CaptureFixture[str]) -> None:
    runs: list[int] = []

    def ours() -> None:
        runs.append(len(runs))
        torch.ones(4, 4) @ torch.ones(4, 4)

    line = Measurement("path", "net", "all", 1, 1, "", "", None)
    alternate(line, ours, lambda passes: None, Options(quick=True, profile=profile))
    assert len(runs) == 2 + profile  # one untimed, one turn
    assert len(line.ours_s) == 1
    assert ("aten::mm" in capsys.readouterr().err) is profile


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_the_share_of_time_in_which_it_computed_is_told() -> None:
    large = torch.ones(4096, 4096, device="cuda")
    said = profiled(lambda: [large @ large for _ in range(20)], "cuda")
    share = int(said.rsplit(": ", 1)[1].removesuffix("%."))
    assert 10 < share <= 100
