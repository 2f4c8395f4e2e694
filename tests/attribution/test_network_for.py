"""Which network a method sees: one with batch normalisation folded, unless somebody may look at its layers."""

from torch import nn

from roarline.attribution.call import MethodCall, find_method, network_for


def test_only_methods_of_the_table_that_read_no_layer_see_all_of_it_folded() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten()).eval()
    own = MethodCall("own", lambda model, images, targets: images)
    for method, folded in ((find_method("gradient", {}), True), (find_method("explainer", {}), False), (own, False)):
        assert (network_for(method, model, (3, 4, 4)) is not model) == folded
