"""The benchmark of methods that optimise a mask runs, and counts the passes that each needs."""

from __future__ import annotations

from benchmarks.harness import Options
from benchmarks.optimising import measure


def test_a_quick_run_measures_every_method_and_extremal_masks_an_image_at_a_time() -> None:
    small = Options(quick=True, threads=1, networks=("squeezenet1_1",), input_px=56)
    found = {(m.hot_path, m.setting): m for m in measure(small)}
    assert set(found) == {
        ("optimising", "meaningful_perturbation, seed"),
        ("optimising", "meaningful_perturbation, paper"),
        ("optimising", "extremal_perturbation"),
        ("optimising", "igos_plus_plus"),
        ("time an image at a time ÷ ours", "extremal_perturbation"),
    }
    assert all(m.efficiency > 0 for m in found.values())
    assert found["optimising", "meaningful_perturbation, seed"].passes == 8  # one step of a quick pass
    assert found["optimising", "extremal_perturbation"].passes == 16  # 2 steps of 2 images of 4 areas
    kinds = found["optimising", "igos_plus_plus"].pass_kind
    assert kinds.startswith("pass: 16 forward + backward")  # 4 scores at 4 points
    forward = int(kinds.split()[-2])
    assert forward % 16 == 0  # the loss before, and every try of the line search
    assert 32 <= forward <= 16 * (1 + 12)
