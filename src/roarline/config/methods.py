"""The table of attribution methods: name, parameters, cost, source. Imports no torch.

To add a method: write one function in ``roarline/attribution/`` and one line in ``METHODS``.
"""

from __future__ import annotations

from pydantic import Field

from roarline.config.component import MethodComponent, NoParams, Params


class ConstantParams(Params):
    """One value everywhere: a map without information, so that only tie-breaking ranks its pixels."""

    value: float = 1.0


class CentreGaussianParams(Params):
    """A Gaussian at the image's centre."""

    sigma: float = Field(0.25, gt=0, description="standard deviation as a fraction of the shorter side")


class IntegratedGradientsParams(Params):
    """A straight path from a constant baseline to the image."""

    steps: int = Field(50, ge=1, description="points on the path")
    baseline: float = Field(0.0, description="baseline value in normalised space (0 is the mean colour)")
    rule: str = Field("gausslegendre", pattern="^(gausslegendre|riemann_middle|riemann_trapezoid)$")
    multiply_by_inputs: bool = True


class NoisyParams(Params):
    """Gradients of noisy copies of the image."""

    samples: int = Field(25, ge=1, description="noisy copies an image")
    noise: float = Field(
        0.15, ge=0, description="noise standard deviation as a fraction of the image's own value range"
    )


class GradCamParams(Params):
    """Grad-CAM at one layer."""

    layer: str = Field(description="dotted module name, e.g. layer4; a module called twice is read at its last call")
    relu: bool = Field(True, description="clamp the map at 0, as published")
    weights: str = Field("pooled", pattern="^(pooled|elementwise)$", description="pooled: spatial mean of the gradient")


_ATTRIBUTION = "roarline.attribution"

METHODS: dict[str, MethodComponent] = {
    "random": MethodComponent(
        f"{_ATTRIBUTION}.controls:random",
        NoParams,
        "Uniform noise, fixed for each image",
        "control of Hooker et al. 2019",
        passes="0",
        keeps_activations=False,
        baseline=True,
    ),
    "constant": MethodComponent(
        f"{_ATTRIBUTION}.controls:constant",
        ConstantParams,
        "The same value everywhere",
        "control",
        passes="0",
        keeps_activations=False,
        baseline=True,
    ),
    "centre_gaussian": MethodComponent(
        f"{_ATTRIBUTION}.controls:centre_gaussian",
        CentreGaussianParams,
        "A Gaussian at the image's centre",
        "control",
        passes="0",
        keeps_activations=False,
        baseline=True,
    ),
    "sobel": MethodComponent(
        f"{_ATTRIBUTION}.controls:sobel",
        NoParams,
        "Edge strength of the image itself",
        "control of Hooker et al. 2019",
        passes="0",
        keeps_activations=False,
        baseline=True,
    ),
    "ground_truth": MethodComponent(
        f"{_ATTRIBUTION}.controls:ground_truth",
        NoParams,
        "The perfect mask: the target's objects, from segmentation or boxes",
        "control",
        passes="0",
        keeps_activations=False,
        baseline=True,
    ),
    "gradient": MethodComponent(
        f"{_ATTRIBUTION}.gradient:gradient",
        NoParams,
        "Gradient of the target's logit",
        "Simonyan et al. 2014, arXiv 1312.6034",
        passes="1 forward + 1 backward",
        one_pass=True,
        channels="max_abs",
    ),
    "input_x_gradient": MethodComponent(
        f"{_ATTRIBUTION}.gradient:input_x_gradient",
        NoParams,
        "Input times gradient",
        "Shrikumar et al. 2016, arXiv 1605.01713",
        passes="1 forward + 1 backward",
        one_pass=True,
    ),
    "integrated_gradients": MethodComponent(
        f"{_ATTRIBUTION}.integrated:integrated_gradients",
        IntegratedGradientsParams,
        "Gradients averaged along a path from a baseline",
        "Sundararajan et al. 2017, arXiv 1703.01365",
        passes="steps × (1 forward + 1 backward)",
    ),
    "smoothgrad": MethodComponent(
        f"{_ATTRIBUTION}.noise:smoothgrad",
        NoisyParams,
        "Mean gradient of noisy copies",
        "Smilkov et al. 2017, arXiv 1706.03825",
        passes="samples × (1 forward + 1 backward)",
        channels="max_abs",
    ),
    "smoothgrad_squared": MethodComponent(
        f"{_ATTRIBUTION}.noise:smoothgrad_squared",
        NoisyParams,
        "Mean squared gradient of noisy copies",
        "Hooker et al. 2019, arXiv 1806.10758",
        passes="samples × (1 forward + 1 backward)",
    ),
    "vargrad": MethodComponent(
        f"{_ATTRIBUTION}.noise:vargrad",
        NoisyParams,
        "Variance of the gradients of noisy copies",
        "Adebayo et al. 2018, arXiv 1810.03307",
        passes="samples × (1 forward + 1 backward)",
    ),
    "guided_backprop": MethodComponent(
        f"{_ATTRIBUTION}.guided:guided_backprop",
        NoParams,
        "Gradient with only positive signals through every ReLU",
        "Springenberg et al. 2015, arXiv 1412.6806",
        passes="1 forward + 1 backward",
        one_pass=True,
        channels="max_abs",
    ),
    "gradcam": MethodComponent(
        f"{_ATTRIBUTION}.cam:gradcam",
        GradCamParams,
        "Activations weighted by their pooled gradients",
        "Selvaraju et al. 2017, arXiv 1610.02391",
        passes="1 forward + 1 backward to the layer",
        keeps_activations=False,
        needs_layer=True,
        one_pass=True,
    ),
}
