"""The benchmark of the sampling methods runs, counts their passes, and sets TorchRay's way beside RISE."""

import torch

from benchmarks.harness import Options
from benchmarks.sampling import _ImageAtATime, measure
from roarline.attribution.rise import rise_maps, rise_scores
from roarline.imaging.shifted_grids import ShiftedGrids


def test_a_quick_run_measures_rise_occlusion_and_torchrays_way() -> None:
    found = list(measure(Options(quick=True, input_px=32, networks=("mobilenet_v2",), threads=1)))
    assert [(line.setting, line.goal) for line in found] == [("rise", 0.9), ("occlusion", 0.9), ("rise", None)]
    assert found[0].passes == 21
    assert found[1].passes == 1 + 10**2  # windows of 5 px every 3 px
    assert found[2].hot_path == "rise: time of TorchRay's way ÷ ours"
    assert all(line.efficiency > 0 for line in found)


def test_what_stands_for_torchray_computes_rise() -> None:
    """The same draws give the same maps as roarline's, so that the ratio compares like with like."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()).eval()
    peer = _ImageAtATime(model, 1, 20, Options(input_px=28))
    with torch.no_grad():
        theirs = peer._map(peer._images)
    grids = (torch.rand(20, 1, 7, 7, generator=torch.Generator().manual_seed(0)) < 0.5).float()[:, 0]
    shifts = torch.randint(4, (20, 2), generator=torch.Generator().manual_seed(0))
    drawn = ShiftedGrids(grids, shifts, (28, 28), "whole_px")
    ours = rise_maps(rise_scores(model, peer._images, drawn, "sigmoid"), drawn)[0]
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-5)  # float32 coordinates of the enlarged grid
