"""The table of operations against torch's own counter; the networks are built, the table imports no torch."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from roarline.config.model_costs import forward_flop
from roarline.config.models import MODELS
from roarline.models.build import build


@pytest.mark.parametrize("side_px", [8, 33])
@pytest.mark.parametrize(
    ("arch", "params"),
    [
        *((arch, {}) for arch in MODELS),
        ("small_cnn", {"width": 5}),
        ("narrow_resnet8", {"width": 6, "stem_stride": 2, "pooling": "max"}),
    ],
)
def test_every_network_of_the_table_costs_what_torch_counts(arch, params, side_px):
    with torch.device("meta"):
        model = build(arch, params, 7, input_size=None, seed=0)
        images = torch.empty(1, 3, side_px, side_px)
    with FlopCounterMode(display=False) as counter:
        model.eval()(images)
    assert forward_flop(arch, params, side_px, num_classes=7) == counter.get_total_flops()


def test_other_networks_are_unknown():
    assert forward_flop("torchvision:resnet50", {}, 224) is None
