"""The table of attribution methods: name, parameters, cost, source. Imports no torch.

To add a method: write one function in ``roarline/attribution/`` and one line in ``METHODS``.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from roarline.config.backprop_params import (
    ContrastiveExcitationParams,
    DeepLiftParams,
    ExcitationParams,
    GradientShapParams,
    LayerParams,
    LrpParams,
)
from roarline.config.cam_params import (
    AblationCamParams,
    CamParams,
    EigenCamParams,
    GradCamParams,
    HiResCamParams,
    ScoreCamParams,
)
from roarline.config.component import MethodComponent, NoParams, Params
from roarline.config.mask_params import (
    ExtremalPerturbationParams,
    IgosParams,
    IgosPlusPlusParams,
    MeaningfulPerturbationParams,
)
from roarline.config.sampling_params import (
    GreedyDeletionParams,
    HsicParams,
    KernelShapParams,
    LimeParams,
    OcclusionParams,
    RiseParams,
    SobolParams,
)


class ConstantParams(Params):
    """One value everywhere: a map without information, so that only tie-breaking ranks its pixels."""

    value: float = Field(1.0, description="of every pixel")


class CentreGaussianParams(Params):
    """A Gaussian at the image's centre."""

    sigma: float = Field(0.25, gt=0, description="standard deviation as a fraction of the shorter side")


class IntegratedGradientsParams(Params):
    """A straight path from a constant baseline to the image."""

    steps: int = Field(50, ge=1, description="points on the path")
    baseline: float = Field(0.0, description="baseline value in normalised space (0 is the mean colour)")
    rule: Literal["gausslegendre", "riemann_middle", "riemann_trapezoid"] = Field(
        "gausslegendre", description="where the points lie and what they weigh"
    )
    multiply_by_inputs: bool = Field(True, description="by the image's distance from the baseline, so that maps add up")


class NoisyParams(Params):
    """Gradients of noisy copies of the image."""

    samples: int = Field(25, ge=1, description="noisy copies an image")
    noise: float = Field(
        0.15, ge=0, description="noise standard deviation as a fraction of the image's own value range"
    )


_ATTRIBUTION = "roarline.attribution"

METHODS: dict[str, MethodComponent] = {
    "random": MethodComponent(
        f"{_ATTRIBUTION}.controls:random",
        NoParams,
        "Uniform noise, fixed for each image and target class",
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
    "deconvnet": MethodComponent(
        f"{_ATTRIBUTION}.guided:deconvnet",
        NoParams,
        "Gradient with only positive signals through every ReLU, whatever its input",
        "Zeiler and Fergus 2014, arXiv 1311.2901",
        passes="1 forward + 1 backward",
        one_pass=True,
        channels="max_abs",
    ),
    "guided_gradcam": MethodComponent(
        f"{_ATTRIBUTION}.guided:guided_gradcam",
        LayerParams,
        "Guided backpropagation times Grad-CAM",
        "Selvaraju et al. 2017, arXiv 1610.02391, section 3.2",
        passes="1 forward + 1 backward + 1 backward to the layer",
        needs_layer=True,
        one_pass=True,
        channels="max_abs",
    ),
    "gradient_shap": MethodComponent(
        f"{_ATTRIBUTION}.gradient_shap:gradient_shap",
        GradientShapParams,
        "Gradients between the image and random training images (expected gradients)",
        "Lundberg and Lee 2017, arXiv 1705.07874; Erion et al. 2021, arXiv 1906.10670",
        passes="samples × (1 forward + 1 backward)",
    ),
    "deeplift": MethodComponent(
        f"{_ATTRIBUTION}.deeplift:deeplift",
        DeepLiftParams,
        "Contributions to the logit's difference from a baseline's (Rescale rule); not of attention and layer "
        "normalisation",
        "Shrikumar et al. 2017, arXiv 1704.02685",
        passes="1 forward + 1 backward, and 1 forward of one baseline a batch",
        one_pass=True,
    ),
    "lrp": MethodComponent(
        f"{_ATTRIBUTION}.lrp:lrp",
        LrpParams,
        "Relevance, layer by layer: LRP-epsilon or a composite of rules",
        "Bach et al. 2015, PLOS ONE 10(7); Kohlbrenner et al. 2020, arXiv 1910.09840",
        passes="epsilon: 1 forward + 1 backward; epsilon_plus: 2 forward + 1 backward; epsilon_alpha2_beta1: "
        "3 forward + 2 backward; of convolutions whose input may be negative one forward + backward more",
        one_pass=True,
    ),
    "linear_approximation": MethodComponent(
        f"{_ATTRIBUTION}.linear_approximation:linear_approximation",
        LayerParams,
        "Activations times their gradients",
        "Kindermans et al. 2016, arXiv 1611.07270",
        passes="1 forward + 1 backward to the layer",
        keeps_activations=False,
        needs_layer=True,
        one_pass=True,
    ),
    "excitation_backprop": MethodComponent(
        f"{_ATTRIBUTION}.excitation:excitation_backprop",
        ExcitationParams,
        "Winner-take-all probabilities of a layer's cells",
        "Zhang et al. 2016, arXiv 1608.00507",
        passes="1 forward + 1 forward and backward from the layer on",
        keeps_activations=False,
        needs_layer=True,
        one_pass=True,
    ),
    "contrastive_excitation_backprop": MethodComponent(
        f"{_ATTRIBUTION}.excitation:contrastive_excitation_backprop",
        ContrastiveExcitationParams,
        "Winner-take-all probabilities less those of the negated classifier",
        "Zhang et al. 2016, arXiv 1608.00507, section 3.3",
        passes="1 forward + 1 forward and backward from the layer on + 1 backward from the contrast layer on",
        keeps_activations=False,
        needs_layer=True,
        one_pass=True,
    ),
    # Class activation maps
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
    "gradcam_plus_plus": MethodComponent(
        f"{_ATTRIBUTION}.cam:gradcam_plus_plus",
        CamParams,
        "Activations weighted by their corrected positive gradients",
        "Chattopadhyay et al. 2018, arXiv 1710.11063",
        passes="1 forward + 1 backward to the layer",
        keeps_activations=False,
        needs_layer=True,
        one_pass=True,
    ),
    "hirescam": MethodComponent(
        f"{_ATTRIBUTION}.cam:hirescam",
        HiResCamParams,
        "Activations times gradients, cell by cell",
        "Draelos and Carin 2020, arXiv 2011.08891",
        passes="1 forward + 1 backward to the layer",
        keeps_activations=False,
        needs_layer=True,
        one_pass=True,
    ),
    "layercam": MethodComponent(
        f"{_ATTRIBUTION}.cam:layercam",
        CamParams,
        "Activations times positive gradients, cell by cell",
        "Jiang et al. 2021, IEEE TIP 30",
        passes="1 forward + 1 backward to the layer",
        keeps_activations=False,
        needs_layer=True,
        one_pass=True,
    ),
    "xgradcam": MethodComponent(
        f"{_ATTRIBUTION}.cam:xgradcam",
        CamParams,
        "Activations weighted by gradients, averaged by activation",
        "Fu et al. 2020, arXiv 2008.02312",
        passes="1 forward + 1 backward to the layer",
        keeps_activations=False,
        needs_layer=True,
        one_pass=True,
    ),
    "score_cam": MethodComponent(
        f"{_ATTRIBUTION}.cam_score:score_cam",
        ScoreCamParams,
        "Channels weighted by the score of the image seen through them",
        "Wang et al. 2020, arXiv 1910.01279",
        passes="1 + channels of the layer (or max_channels) forward",
        keeps_activations=False,
        needs_layer=True,
        one_pass=True,
    ),
    "ablation_cam": MethodComponent(
        f"{_ATTRIBUTION}.cam_ablation:ablation_cam",
        AblationCamParams,
        "Channels weighted by what the logit loses without them",
        "Desai and Ramaswamy 2020, WACV",
        passes="1 forward + channels of the layer (or max_channels) × forward from the layer on",
        keeps_activations=False,
        needs_layer=True,
        one_pass=True,
    ),
    "eigen_cam": MethodComponent(
        f"{_ATTRIBUTION}.cam:eigen_cam",
        EigenCamParams,
        "First principal direction of the activations, whatever the class",
        "Muhammad and Yeasin 2020, arXiv 2008.00299",
        passes="1 forward",
        keeps_activations=False,
        needs_layer=True,
        one_pass=True,
    ),
    # Perturbation: scores of altered images
    "occlusion": MethodComponent(
        f"{_ATTRIBUTION}.occlusion:occlusion",
        OcclusionParams,
        "Drop of the score where a window covers the image",
        "Zeiler and Fergus 2014, arXiv 1311.2901",
        passes="1 forward a window (169 with the defaults at 224 px)",
        keeps_activations=False,
    ),
    "rise": MethodComponent(
        f"{_ATTRIBUTION}.rise:rise",
        RiseParams,
        "Random masks weighted by the score of what they let through",
        "Petsiuk et al. 2018, arXiv 1806.07421",
        passes="masks × 1 forward, for all targets of an image together",
        keeps_activations=False,
    ),
    "lime": MethodComponent(
        f"{_ATTRIBUTION}.superpixel_surrogates:lime",
        LimeParams,
        "Ridge regression of the score on which superpixels are shown",
        "Ribeiro et al. 2016, arXiv 1602.04938",
        passes="samples × 1 forward",
        keeps_activations=False,
    ),
    "kernel_shap": MethodComponent(
        f"{_ATTRIBUTION}.superpixel_surrogates:kernel_shap",
        KernelShapParams,
        "Shapley values of superpixels by weighted least squares",
        "Lundberg and Lee 2017, arXiv 1705.07874",
        passes="(samples + 1) × 1 forward",
        keeps_activations=False,
    ),
    "sobol": MethodComponent(
        f"{_ATTRIBUTION}.global_sensitivity:sobol",
        SobolParams,
        "Total-order Sobol indices of grid cells",
        "Fel et al. 2021, arXiv 2111.04138",
        passes="designs · (cells² + 2) × 1 forward, for all targets of an image together",
        keeps_activations=False,
    ),
    "hsic": MethodComponent(
        f"{_ATTRIBUTION}.global_sensitivity:hsic",
        HsicParams,
        "Statistical dependence of the score on grid cells (HSIC)",
        "Novello et al. 2022, arXiv 2206.06219",
        passes="samples × 1 forward, for all targets of an image together",
        keeps_activations=False,
    ),
    "greedy_deletion": MethodComponent(
        f"{_ATTRIBUTION}.greedy:greedy_deletion",
        GreedyDeletionParams,
        "Ceiling: grid cells taken one by one, each time the one that matters most",
        "the greedy form of TRACE, 2024",
        passes="cells² · (cells² + 1) / 2 × 1 forward, fewer with candidates",
        keeps_activations=False,
    ),
    # Perturbation: masks that are optimised
    "meaningful_perturbation": MethodComponent(
        f"{_ATTRIBUTION}.meaningful:meaningful_perturbation",
        MeaningfulPerturbationParams,
        "The smallest smooth mask that takes the target's probability with it",
        "Fong and Vedaldi 2017, arXiv 1704.03296",
        passes="iterations × (1 forward + 1 backward); start: disc takes 35 forward more",
    ),
    "extremal_perturbation": MethodComponent(
        f"{_ATTRIBUTION}.extremal:extremal_perturbation",
        ExtremalPerturbationParams,
        "For each area the smooth mask that the target responds to most",
        "Fong et al. 2019, arXiv 1910.08485",
        passes="areas × iterations × (1 forward + 1 backward), for dual twice; + 1 forward an area to select",
    ),
    "igos": MethodComponent(
        f"{_ATTRIBUTION}.igos:igos",
        IgosParams,
        "A mask optimised along integrated gradients, with line search",
        "Qi et al. 2020, AAAI 34",
        passes="iterations × integration steps × (1 forward + 1 backward, and 2 to 10 forward of the line search)",
    ),
    "igos_plus_plus": MethodComponent(
        f"{_ATTRIBUTION}.igos:igos_plus_plus",
        IgosPlusPlusParams,
        "A deleting and an inserting mask optimised along integrated gradients",
        "Khorram et al. 2021, arXiv 2012.15783",
        passes="4 × iterations × integration steps × (1 forward + 1 backward, and 2 to 13 forward of the line search)",
    ),
    # Learned: an explainer of train-explainer; a method says which by `explainer: NAME`
    "explainer": MethodComponent(
        f"{_ATTRIBUTION}.explainer:learned_mask",
        NoParams,
        "The mask that a trained explainer draws, see `roarline list explainers`; named by explainer: NAME",
        "Stalder et al. 2022, arXiv 2205.11266; Phang et al. 2020, arXiv 2010.09750",
        passes="1 forward of the explainer, for all targets of an image together",
        keeps_activations=False,
    ),
}
