"""The benchmark of retraining measures what it says."""

from dataclasses import replace

import torch

from benchmarks.harness import Options
from benchmarks.training import QUICK_CASES, BareSteps, measure
from roarline.models.build import build


def test_a_quick_run_gives_a_ratio_for_each_network():
    measurements = list(measure(Options(quick=True, threads=1)))
    assert [m.network for m in measurements] == ["resnet8", "small_cnn"]
    for measurement, case in zip(measurements, QUICK_CASES, strict=True):
        assert measurement.passes == case.images * case.epochs * case.stack
        assert measurement.efficiency > 0


def test_bare_steps_train():
    case = replace(QUICK_CASES[1], stack=1)
    bare = BareSteps(case, build(case.arch, case.params, 10, input_size=None, seed=0), "cpu")
    before = bare._model.conv1.weight.detach().clone()
    bare(3 * case.batch_size)
    assert not torch.equal(before, bare._model.conv1.weight)
