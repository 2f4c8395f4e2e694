"""The table of data sets: name, parameters, ground truth, source. Imports no torch.

To add a data set: write one file in ``roarline/data/`` and one line in ``DATASETS``.
"""

from __future__ import annotations

from pydantic import Field, model_validator

from roarline.config.component import DatasetComponent, NoParams, Params


class DigitsParams(Params):
    """scikit-learn's 1,797 handwritten digits of 8×8 px."""

    test_fraction: float = Field(0.25, gt=0, lt=1, description="share held out for testing, stratified, from the seed")


class ShapesParams(Params):
    """Coloured shapes on a textured background, drawn from the seed, with exact boxes and segmentation."""

    size_px: int = Field(32, ge=16, le=1024, description="side of the square image")
    train: int = Field(2000, ge=1, description="images in the training and validation splits together")
    test: int = Field(500, ge=1, description="images in the test split")
    min_shapes: int = Field(1, ge=1, description="fewest shapes an image")
    max_shapes: int = Field(3, ge=1, description="most shapes an image; 1 makes the data set single-label")
    noise: float = Field(0.08, ge=0, le=0.5, description="strength of waves and of grain, of the value range")

    @model_validator(mode="after")
    def _fewest_below_most(self) -> ShapesParams:
        if self.min_shapes > self.max_shapes:
            raise ValueError(f"min_shapes {self.min_shapes} is above max_shapes {self.max_shapes}")
        return self


_DATA = "roarline.data"

DATASETS: dict[str, DatasetComponent] = {
    "digits": DatasetComponent(
        f"{_DATA}.digits:read",
        DigitsParams,
        "Handwritten digits, 8×8 px, shipped with scikit-learn",
        "Alpaydin and Kaynak 1998, UCI optdigits",
        fingerprint=f"{_DATA}.fingerprint:digits",
        embedded=True,
    ),
    "shapes": DatasetComponent(
        f"{_DATA}.shapes:read",
        ShapesParams,
        "Drawn shapes with exact boxes and segmentation, multi-label",
        "roarline",
        fingerprint=f"{_DATA}.fingerprint:drawn",
        embedded=True,
        ground_truth=("boxes", "segmentation"),
    ),
    "image_folder": DatasetComponent(
        f"{_DATA}.image_folder:read",
        NoParams,
        "train[/val]/test folders of class folders, or a tar of such",
        "",
        fingerprint=f"{_DATA}.fingerprint:folder_or_tar",
    ),
    "cifar10": DatasetComponent(
        f"{_DATA}.cifar:read_cifar10",
        NoParams,
        "CIFAR-10, 60,000 images of 32×32 px, downloaded where there is a network",
        "Krizhevsky 2009",
        fingerprint=f"{_DATA}.fingerprint:cifar10",
        obtain=f"{_DATA}.cifar:obtain_cifar10",
    ),
    "cifar100": DatasetComponent(
        f"{_DATA}.cifar:read_cifar100",
        NoParams,
        "CIFAR-100, 60,000 images of 32×32 px, downloaded where there is a network",
        "Krizhevsky 2009",
        fingerprint=f"{_DATA}.fingerprint:cifar100",
        obtain=f"{_DATA}.cifar:obtain_cifar100",
    ),
    "imagenet": DatasetComponent(
        f"{_DATA}.imagenet:read",
        NoParams,
        "ILSVRC-2012 in the usual train/val layout of wnid folders",
        "Russakovsky et al. 2015, arXiv 1409.0575",
        fingerprint=f"{_DATA}.fingerprint:imagenet",
    ),
}
