"""Names read from torchvision's source are those that torchvision itself gives."""

from __future__ import annotations

import subprocess
import sys

from roarline.config.published_models import is_weights_path, torchvision_classifiers


def test_names_and_weights_are_torchvisions_own() -> None:
    import torchvision.models as zoo

    found = torchvision_classifiers()
    assert sorted(found) == sorted(zoo.list_models(module=zoo))
    for name, weights in found.items():
        known = list(zoo.get_model_weights(name).__members__)  # aliases such as DEFAULT among them
        assert sorted(weights) == sorted(known), name


def test_reading_them_imports_neither_torch_nor_torchvision() -> None:
    code = (
        "import sys; from roarline.config.published_models import torchvision_classifiers;"
        "assert 'IMAGENET1K_V2' in torchvision_classifiers()['resnet50'];"
        "assert not {'torch', 'torchvision'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_path_has_a_slash_or_a_suffix() -> None:
    assert is_weights_path("weights/resnet")
    assert is_weights_path("resnet.safetensors")
    assert not is_weights_path("IMAGENET1K_V2")
