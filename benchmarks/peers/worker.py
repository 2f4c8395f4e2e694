"""``python -m benchmarks.peers.worker CASE SETTINGS``: the peers' half. A JSON line when it is ready, and one a run.

Runs in the peers' environment; what a peer prints goes to standard error. A peer that isn't there or fails is said in
the line's ``problem``.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, TextIO

Run = Callable[[], object]
Settings = dict[str, Any]


def main() -> None:
    """Set the case up, run it once untimed, then once for each line of standard input."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the libraries print
    case, settings = sys.argv[1], json.loads(sys.argv[2])
    try:
        run, passes, packages = CASES[case](settings)
        run()
        _say(answers, passes=passes(), versions={name: version(name) for name in packages})
        for _ in sys.stdin:
            start = time.perf_counter()
            run()
            _say(answers, seconds=time.perf_counter() - start)
    except ModuleNotFoundError as error:
        _say(answers, problem=f"{error.name} is not installed")
    except Exception as error:  # noqa: BLE001 - whatever a peer raises is what there is to say about it
        _say(answers, problem=f"{type(error).__name__}: {error}".splitlines()[0][:200])


def _say(answers: TextIO, **what: Any) -> None:
    print(json.dumps(what), file=answers, flush=True)


class _Counted:
    """A network, random images [N, C, H, W] and maps [N, H, W], and how many images went through it."""

    def __init__(self, settings: Settings, channels: int = 3) -> None:
        import torch
        from torch import Tensor, nn

        from benchmarks.harness import network

        torch.set_num_threads(settings["threads"])
        self.seen, self.settings = 0, settings
        side, count, device = settings["side_px"], settings["images"], settings["device"]
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randn(count, channels, side, side, generator=generator)
        self.maps = torch.randn(count, side, side, generator=generator)
        model = network(settings["network"])

        class Grey(nn.Module):
            """Grey images for a network of colour images."""

            def __init__(self) -> None:
                super().__init__()
                self.network = model

            def forward(self, images: Tensor) -> Tensor:
                logits: Tensor = self.network(images.expand(-1, 3, -1, -1))
                return logits

        def count_images(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            self.seen += len(args[0])

        self.model = (model if channels == 3 else Grey().eval()).to(device)
        self._hook = self.model.register_forward_pre_hook(count_images)

    def passes(self) -> int:
        """Images of the run so far; from now on they aren't counted."""
        self._hook.remove()
        return self.seen

    def in_batches(self, attribute: Callable[[Any, Any], object]) -> Run:
        """For the class that the network predicts."""
        import torch

        def run() -> None:
            for images in self.images.to(self.settings["device"]).split(self.settings["batch_size"]):
                with torch.no_grad():
                    predicted = self.model(images).argmax(dim=1)
                attribute(images.clone().requires_grad_(), predicted)

        return run


def _quantus(settings: Settings, metric: str) -> tuple[Run, Callable[[], int], list[str]]:
    import quantus

    road = metric == "ROAD"
    setup = _Counted(settings, channels=1 if road else 3)  # ROAD of this version indexes beyond an RGB image
    x, a = setup.images.numpy(), setup.maps[:, None].numpy()
    y = (setup.images[:, 0, 0, 0] * 0).long().numpy()
    features = x[0].size
    if road:
        step = 100 // (settings["fractions"] + 1)
        call = quantus.ROAD(
            percentages=list(range(step, 100, step))[: settings["fractions"]], disable_warnings=True,
            display_progressbar=False,
        )  # fmt: skip
    else:
        call = quantus.PixelFlipping(
            features_in_step=-(-features // settings["steps"]), perturb_baseline="mean",
            disable_warnings=True, display_progressbar=False,
        )  # fmt: skip

    def run() -> None:
        call(
            model=setup.model, x_batch=x, y_batch=y, a_batch=a, device=settings["device"],
            batch_size=settings["batch_size"], channel_first=True, softmax=True,
        )  # fmt: skip

    return run, setup.passes, ["quantus"]


def _captum(settings: Settings, method: str) -> tuple[Run, Callable[[], int], list[str]]:
    import captum.attr

    setup = _Counted(settings)
    if method == "gradient":
        saliency = captum.attr.Saliency(setup.model)
        run = setup.in_batches(lambda images, targets: saliency.attribute(images, target=targets, abs=False))
    elif method == "integrated_gradients":
        path = captum.attr.IntegratedGradients(setup.model)
        run = setup.in_batches(
            lambda images, targets: path.attribute(images, target=targets, n_steps=settings["steps"])
        )
    else:
        windows = captum.attr.Occlusion(setup.model)
        window, stride = settings["window_px"], settings["stride_px"]
        run = setup.in_batches(
            lambda images, targets: windows.attribute(
                images.detach(), target=targets, sliding_window_shapes=(3, window, window), strides=(3, stride, stride)
            )
        )
    return run, setup.passes, ["captum"]


def _grad_cam(settings: Settings) -> tuple[Run, Callable[[], int], list[str]]:
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    setup = _Counted(settings)
    cam = GradCAM(model=setup.model, target_layers=[setup.model.get_submodule(settings["layer"])])

    def attribute(images: Any, targets: Any) -> None:
        cam(input_tensor=images, targets=[ClassifierOutputTarget(int(target)) for target in targets])

    return setup.in_batches(attribute), setup.passes, ["grad-cam"]


def _extremal(settings: Settings) -> tuple[Run, Callable[[], int], list[str]]:
    from benchmarks.one_image_at_a_time import extremal_masks
    from roarline.imaging.unfolded_masks import UnfoldedMasks

    setup = _Counted(settings)
    images, masks = setup.images.to(settings["device"]), UnfoldedMasks(settings["side_px"], settings["side_px"])

    def run() -> None:
        for target, image in enumerate(images.split(1)):
            extremal_masks(setup.model, image, target, settings["areas"], settings["steps"], masks)

    return run, setup.passes, ["torch"]


def _plain_roar(settings: Settings) -> tuple[Run, Callable[[], int], list[str]]:
    from benchmarks.peers.plain_roar import PlainCell

    cell = PlainCell(settings)
    return cell, lambda: cell.images_trained, ["torch", "pillow"]


CASES: dict[str, Callable[[Settings], tuple[Run, Callable[[], int], list[str]]]] = {
    "quantus pixel flipping": lambda settings: _quantus(settings, "PixelFlipping"),
    "quantus road": lambda settings: _quantus(settings, "ROAD"),
    "captum gradient": lambda settings: _captum(settings, "gradient"),
    "captum integrated gradients": lambda settings: _captum(settings, "integrated_gradients"),
    "captum occlusion": lambda settings: _captum(settings, "occlusion"),
    "grad-cam": _grad_cam,
    "extremal perturbation, an image at a time": _extremal,
    "plain roar": _plain_roar,
}

if __name__ == "__main__":
    main()
