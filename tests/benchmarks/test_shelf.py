"""The benchmark of the other gradient and CAM methods covers them all, and counts the passes that each needs."""

from benchmarks.harness import Options
from benchmarks.shelf import cases, measure
from roarline.config.methods import METHODS


def test_a_quick_run_measures_every_method() -> None:
    found = list(measure(Options(quick=True, input_px=64, networks=("mobilenet_v2",), threads=1)))
    lines = {m.setting: m for m in found}
    assert all(m.efficiency > 0 and m.goal == 0.85 for m in found)
    assert lines["score_cam"].passes == 65  # one image, 64 channels and itself
    # Half of MobileNetV2's multiplications are of convolutions that read values of both signs.
    assert lines["lrp, epsilon_plus"].passes == 8 + 12
    assert lines["ablation_cam"].pass_kind == "pass: 8 forward, 512 forward from features"
    assert lines["deeplift"].pass_kind.startswith("pass: 8 forward + backward to the input")


def test_no_gradient_or_cam_method_is_left_out() -> None:
    measured = {case.method for case in cases(1.0, 0.0)} | {
        "gradient", "guided_backprop", "gradcam", "integrated_gradients", "smoothgrad",
    }  # fmt: skip
    same_passes = {"smoothgrad_squared", "vargrad"}  # as smoothgrad's
    start, stop = list(METHODS).index("gradient"), list(METHODS).index("occlusion")
    assert set(list(METHODS)[start:stop]) <= measured | same_passes
