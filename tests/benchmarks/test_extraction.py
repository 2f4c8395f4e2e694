"""The benchmark of extraction runs, and counts the passes that each method needs."""

from pathlib import Path

import pytest

from benchmarks.extraction import ExtractionRun, Sizes, goal, measure, of_it_publishing
from benchmarks.harness import Measurement, Options, network
from roarline.artifacts.maps import MAPS_FILE, MapsFile
from roarline.artifacts.store import Store


def test_a_quick_run_measures_every_family_and_captum_beside_it() -> None:
    found = list(measure(Options(quick=True, input_px=64, networks=("mobilenet_v2",), threads=1)))
    lines = {(m.hot_path, m.setting): m for m in found}
    methods = {"gradient", "guided_backprop", "gradcam", "integrated_gradients", "smoothgrad"}
    apart = {f"{method}: of it publishing, timed apart" for method in methods}
    assert {setting for path, setting in lines if path == "extraction"} == methods | apart
    assert {setting for path, setting in lines if path == "captum"} == {"gradient", "gradcam", "integrated_gradients"}
    assert lines["extraction", "gradient"].passes == 8
    assert lines["extraction", "integrated_gradients"].passes == 16  # one image at 16 steps
    assert lines["extraction", "gradcam"].pass_kind == "forward + backward to features"
    assert all(
        m.efficiency > 0 and m.goal == (0.85 if m.setting in methods and m.hot_path != "captum" else None)
        for m in found
    )
    assert all(
        lines["extraction", f"{name}: of it publishing, timed apart"].efficiency > lines["extraction", name].efficiency
        for name in methods
    )


def test_every_run_publishes_an_artifact_of_all_rows(tmp_path: Path) -> None:
    options = Options(quick=True, input_px=32, threads=1)
    run = ExtractionRun(tmp_path, network("squeezenet1_1"), "gradient", {}, 3, options)
    run()
    run()
    run.close()
    found = list(Store(tmp_path / "artifacts").artifacts())
    assert len(found) == len(run.publishing_s) == 2
    for artifact in found:
        assert not [problem for problem in artifact.problems() if "recipe" not in problem]  # its key stands for none
        with MapsFile(artifact.file(MAPS_FILE)) as maps:
            assert len(maps) == 3
    assert all(seconds > 0 for seconds in run.publishing_s)
    line = Measurement("extraction", "net", "gradient", 3, 3, "", "", 0.85, [1.0], [0.5])
    apart = of_it_publishing(line, run, options)
    assert (apart.goal, apart.ours_s, apart.bare_s) == (None, run.publishing_s[1:], [0.5])


@pytest.mark.parametrize(("device", "most", "asked"), [("cpu", 300, 0.85), ("cuda", 10_000, 0.9)])
def test_a_gpu_has_more_to_do_and_a_higher_goal(device: str, most: int, asked: float) -> None:
    options = Options(device=device)
    sizes = Sizes.of(options)
    assert most / 3 < max(sizes.images, sizes.many) <= most
    assert goal(options) == asked
    assert sizes.few * 16 >= sizes.images  # integrated gradients and SmoothGrad make 16 passes an image
