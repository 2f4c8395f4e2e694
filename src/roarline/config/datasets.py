"""The table of data sets: name, parameters, ground truth, source. Imports no torch.

To add a data set: write one file in ``roarline/data/`` and one line in ``DATASETS``.
"""

from __future__ import annotations

from roarline.config.component import DatasetComponent, NoParams
from roarline.config.dataset_params import (
    CocoParams,
    CubParams,
    DigitsParams,
    ImageFolderParams,
    ImageNetParams,
    ListedFolderParams,
    PetParams,
    ShapesParams,
    VocParams,
    WsolParams,
)

_DATA = "roarline.data"

DATASETS: dict[str, DatasetComponent] = {
    "digits": DatasetComponent(
        f"{_DATA}.digits:read",
        DigitsParams,
        "Handwritten digits, 8×8 px, shipped with scikit-learn",
        "Alpaydin and Kaynak 1998, UCI optdigits",
        fingerprint=f"{_DATA}.fingerprint:digits",
        side_px=8,
        embedded=True,
    ),
    "shapes": DatasetComponent(
        f"{_DATA}.shapes:read",
        ShapesParams,
        "Drawn shapes with exact boxes and segmentation, multi-label",
        "roarline",
        fingerprint=f"{_DATA}.fingerprint:drawn",
        embedded=True,
        multi_label=lambda params: params.max_shapes > 1,
        ground_truth=("boxes", "segmentation"),
    ),
    "image_folder": DatasetComponent(
        f"{_DATA}.image_folder:read",
        ImageFolderParams,
        "train[/val]/test folders of class folders, or a tar of such, perhaps with a table of boxes",
        "",
        fingerprint=f"{_DATA}.fingerprint:folder_or_tar",
        ground_truth=("boxes",),
    ),
    "cifar10": DatasetComponent(
        f"{_DATA}.cifar:read_cifar10",
        NoParams,
        "CIFAR-10, 60,000 images of 32×32 px, downloaded where there is a network",
        "Krizhevsky 2009",
        fingerprint=f"{_DATA}.fingerprint:cifar10",
        side_px=32,
        obtain=f"{_DATA}.cifar:obtain_cifar10",
    ),
    "cifar100": DatasetComponent(
        f"{_DATA}.cifar:read_cifar100",
        NoParams,
        "CIFAR-100, 60,000 images of 32×32 px, downloaded where there is a network",
        "Krizhevsky 2009",
        fingerprint=f"{_DATA}.fingerprint:cifar100",
        side_px=32,
        obtain=f"{_DATA}.cifar:obtain_cifar100",
    ),
    "imagenet": DatasetComponent(
        f"{_DATA}.imagenet:read",
        ImageNetParams,
        "ILSVRC-2012 in wnid folders or as published, with its XMLs or a table of boxes",
        "Russakovsky et al. 2015, arXiv 1409.0575",
        fingerprint=f"{_DATA}.fingerprint:imagenet",
        ground_truth=("boxes",),
    ),
    "voc": DatasetComponent(
        f"{_DATA}.voc:read",
        VocParams,
        "PASCAL VOC 2007 or 2012, multi-label, with difficult flags",
        "Everingham et al. 2010, IJCV 88",
        fingerprint=f"{_DATA}.fingerprint:annotated",
        multi_label=lambda params: True,
        ground_truth=("boxes", "segmentation"),
        pointed_at="boxes",
    ),
    "coco": DatasetComponent(
        f"{_DATA}.coco:read",
        CocoParams,
        "MS COCO 2014 or 2017, multi-label",
        "Lin et al. 2014, arXiv 1405.0312",
        fingerprint=f"{_DATA}.fingerprint:coco",
        multi_label=lambda params: True,
        ground_truth=("boxes", "segmentation"),
    ),
    "cub": DatasetComponent(
        f"{_DATA}.cub:read",
        CubParams,
        "Caltech-UCSD Birds-200-2011, one box an image, masks where they lie beside it",
        "Wah et al. 2011, Caltech CNS-TR-2011-001",
        fingerprint=f"{_DATA}.fingerprint:annotated",
        ground_truth=("boxes", "segmentation"),
    ),
    "pet": DatasetComponent(
        f"{_DATA}.pet:read",
        PetParams,
        "Oxford-IIIT Pet, 37 breeds, with trimaps and head boxes",
        "Parkhi et al. 2012, CVPR",
        fingerprint=f"{_DATA}.fingerprint:annotated",
        ground_truth=("boxes", "segmentation"),
    ),
    "food101": DatasetComponent(
        f"{_DATA}.food101:read",
        NoParams,
        "Food-101, 101 dishes",
        "Bossard et al. 2014, ECCV",
        fingerprint=f"{_DATA}.fingerprint:annotated",
    ),
    "listed_folder": DatasetComponent(
        f"{_DATA}.listed_folder:read",
        ListedFolderParams,
        "Class folders with lists of splits, as Birdsnap has them, perhaps with boxes",
        "Berg et al. 2014, CVPR (Birdsnap)",
        fingerprint=f"{_DATA}.fingerprint:annotated",
        ground_truth=("boxes",),
    ),
    "wsol": DatasetComponent(
        f"{_DATA}.wsol:read",
        WsolParams,
        "Any image folder with wsolevaluation's metadata (OpenImages), boxes or masks",
        "Choe et al. 2020, arXiv 2001.07437",
        fingerprint=f"{_DATA}.fingerprint:annotated",
        ground_truth=("boxes", "segmentation"),
    ),
}
