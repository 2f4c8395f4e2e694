"""Which engine trains the cells of a grid, and how many share a stack: rules on device and model size. No torch here.

The engine is part of every cell's key: it follows from the configuration (and, where ``runtime.device`` leaves that
open, from whether there is a GPU), never from a measurement. docs/speed.md has the measurements behind the rule.
"""

from __future__ import annotations

from roarline.config.datasets import DATASETS
from roarline.config.experiment import Data, Experiment
from roarline.config.load import parse_params
from roarline.config.model_costs import forward_flop
from roarline.execution.devices import on_gpu
from roarline.execution.stacks import STACKED

# A step whose forward pass has fewer operations than this spends its time on calls rather than on arithmetic.
_SMALL_STEP_FLOP = {"cpu": 64e6, "gpu": 2e9}
_STACK = {"cpu": 5, "gpu": 32}


def engine_of(experiment: Experiment) -> str:
    """``single`` or ``stacked``: as the configuration says, or by the size of a training step.

    ``auto``: stacked where the forward pass of a batch is known to have fewer than 64 million floating point operations
    (2 billion on a GPU), each multiplication and each addition counted; single for larger networks, and where the
    size of the network or of its images can't be known beforehand.
    """
    roar = experiment.evaluate_roar
    training = (roar.training if roar else None) or experiment.train_cls
    if roar is None or training is None or roar.engine != "auto":
        return roar.engine if roar else "single"
    if training.precision == "float16" or training.gradient_accumulation > 1:
        return "single"
    side_px = known_side_px(experiment.data)
    flop = None if side_px is None else forward_flop(experiment.model.arch, experiment.model.params, side_px)
    small = flop is not None and flop * training.batch_size < _SMALL_STEP_FLOP[_kind(experiment)]
    return STACKED if small else "single"


def stack_size(experiment: Experiment) -> int:
    """How many cells share a stack at most; fewer where their images don't fit the device, which the stage sees to.

    5 on a CPU, where more gain nothing and leave a second worker without work at the end; 32 on a GPU.
    """
    return _STACK[_kind(experiment)]


def known_side_px(data: Data) -> int | None:
    """The side of the images as networks see them, where the configuration tells it."""
    if data.crop_px or data.resize_px:
        return data.crop_px or data.resize_px
    component = DATASETS.get(data.dataset)
    if component is None:
        return None
    params = parse_params("dataset", data.dataset, component.params, data.params)
    side = getattr(params, "size_px", component.side_px)
    return None if side is None else int(side)


def _kind(experiment: Experiment) -> str:
    return "gpu" if on_gpu(experiment.runtime) else "cpu"
