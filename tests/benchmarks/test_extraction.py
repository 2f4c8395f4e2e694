"""The benchmark of extraction runs, and counts the passes that each method needs."""

from benchmarks.extraction import measure
from benchmarks.harness import Options


def test_a_quick_run_measures_every_family_and_captum_beside_it() -> None:
    found = list(measure(Options(quick=True, input_px=64, networks=("mobilenet_v2",), threads=1)))
    lines = {(m.hot_path, m.setting): m for m in found}
    methods = {"gradient", "guided_backprop", "gradcam", "integrated_gradients", "smoothgrad"}
    assert {setting for path, setting in lines if path == "extraction"} == methods
    assert {setting for path, setting in lines if path == "captum"} == {"gradient", "gradcam", "integrated_gradients"}
    assert lines["extraction", "gradient"].passes == 8
    assert lines["extraction", "integrated_gradients"].passes == 16  # one image at 16 steps
    assert lines["extraction", "gradcam"].pass_kind == "forward + backward to features"
    assert all(m.efficiency > 0 and m.goal == (0.85 if m.hot_path == "extraction" else None) for m in found)
