"""Parameters of the data sets. Imports no torch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from roarline.config.component import Params

_COMPAT = "original repeats what the original code gets wrong, for comparisons with its numbers; see docs/datasets.md"


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


class ImageFolderParams(Params):
    """Folders of class folders."""

    boxes: str | None = Field(
        None, description="table of object boxes below the root, e.g. boxes.csv: columns file,x0,y0,x1,y1 (and split)"
    )


class ImageNetParams(Params):
    """ILSVRC-2012."""

    boxes: str | None = Field(
        None,
        description="below the root: a folder with the XMLs, e.g. Annotations/CLS-LOC/val, or a table of boxes, e.g. "
        "boxes.csv: columns file,x0,y0,x1,y1 (and label)",
    )


class VocParams(Params):
    """PASCAL VOC."""

    year: Literal["2007", "2012"] = Field("2007", description="of VOCdevkit/VOC<year>")
    images: Literal["all", "segmented"] = Field(
        "all", description="all: the lists of ImageSets/Main; segmented: those of ImageSets/Segmentation"
    )
    difficult_labels: bool = Field(True, description="objects flagged difficult count as labels of their image")
    compat: Literal["corrected", "original"] = Field("corrected", description=_COMPAT)


class CocoParams(Params):
    """MS COCO."""

    year: Literal["2014", "2017"] = Field("2017", description="of the images and annotations")
    train: str | None = Field(
        None, description="annotation file; default: instances_train<year>.json where it is there"
    )
    validation: str | None = Field(None, description="annotation file; default: drawn from the training split")
    test: str | None = Field(None, description="annotation file; default: instances_val<year>.json")
    unannotated: Literal["leave_out", "keep"] = Field(
        "leave_out", description="images without an object; keep: with no label at all"
    )
    soft_masks: bool | None = Field(
        None,
        description="masks keep the grey values of bilinear resizing, as ground truth in [0, 1]; default: as compat",
    )
    compat: Literal["corrected", "original"] = Field("corrected", description=_COMPAT)

    @model_validator(mode="before")
    @classmethod
    def _soft_as_published(cls, values: Any) -> Any:
        """In the parameters, and so in the key, only where masks are soft."""
        original = isinstance(values, dict) and values.get("compat") == "original"
        return {**values, "soft_masks": True} if original and values.get("soft_masks") is None else values

    @property
    def annotation_files(self) -> dict[str, str]:
        """Split to the file name of its annotations."""
        names = {
            "train": self.train or f"instances_train{self.year}.json",
            "validation": self.validation,
            "test": self.test or f"instances_val{self.year}.json",
        }
        return {split: name for split, name in names.items() if name is not None}


class CubParams(Params):
    """Caltech-UCSD Birds-200-2011."""

    segmentation: str | None = Field(
        None, description="folder below the root with the masks of segmentations.tgz, e.g. segmentations"
    )


class PetParams(Params):
    """Oxford-IIIT Pet."""

    boxes: Literal["head", "body"] = Field(
        "head", description="head: as published, for part of trainval; body: around the trimap's foreground"
    )
    test: Literal["test", "heads"] = Field(
        "test", description="heads: the images with a head box are the test split, and all others are for training"
    )


class ListedFolderParams(Params):
    """Class folders and lists of images."""

    images: str = Field("images", description="folder of the class folders, below the root")
    train: str | None = Field(None, description="list of training images; default: all that no other list names")
    validation: str | None = Field(None, description="list of validation images; default: drawn from training images")
    test: str = Field("test_images.txt", description="list of test images, a path below `images` a line")
    boxes: str | None = Field(
        None, description="table of boxes below the root: file,x0,y0,x1,y1, or Birdsnap's images.txt"
    )


class WsolParams(Params):
    """Image folders with wsolevaluation's metadata."""

    metadata: str = Field("metadata", description="folder below the root that holds train, val and test")
    images: str = Field("", description="folder below the root in which the image ids are paths")
    masks: str = Field("", description="folder below the root in which the mask paths of localization.txt are")
    class_names: str | None = Field(None, description="file below the root, a class name a line; default: numbers")
    compat: Literal["corrected", "original"] = Field("corrected", description=_COMPAT)
