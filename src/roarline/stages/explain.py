"""explain: one image, one method, one picture: the image, its heat map, the overlay, and its most relevant pixels."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from roarline.artifacts.files import make_output_folder
from roarline.artifacts.maps import MapRows, check_rows
from roarline.artifacts.store import Artifact, Store
from roarline.attribution.call import PREDICTED, attribute, find_method
from roarline.attribution.surroundings import Surroundings
from roarline.config.experiment import EXPLAINER
from roarline.config.load import parse_params
from roarline.config.methods import METHODS
from roarline.data.decoding import decode, resized, to_array
from roarline.data.loading import normalise
from roarline.errors import DataError, ModelError, UserInputError
from roarline.imaging.ranking import rank_pixels, removal_count
from roarline.imaging.reduction import reduce_channels
from roarline.imaging.removal import remove
from roarline.models.build import build
from roarline.models.load import load_classifier
from roarline.models.load_explainer import load_explainer
from roarline.report.explanation import Explanation, check_format, draw
from roarline.report.gallery import plane
from roarline.report.pictures import as_picture
from roarline.seeds import derive_seed
from roarline.stages.surroundings import masks_of

_TORCHVISION = "torchvision:"
_NEAR_NAMES, _TITLE_LENGTH = 3, 48


@dataclass(frozen=True)
class Classifier:
    """A network and how an image becomes its input.

    Attributes:
        resize_px: The shorter side is resized to this (bilinear, antialiased); None: until the image covers input_size.
        input_size: (H, W) of the centre that is then cut; None: the image as it is.
        mean, std: Of the normalisation of [0, 1] pixel values.
        crops_only: The centre is cut from the image as it is.
        stretched: Both sides are resized to resize_px.
        artifact: That it was read from; None where it comes from elsewhere.
    """

    name: str
    model: nn.Module
    class_names: Sequence[str]
    multi_label: bool
    resize_px: int | None
    input_size: tuple[int, int] | None
    mean: Sequence[float]
    std: Sequence[float]
    crops_only: bool = False
    stretched: bool = False
    artifact: Artifact | None = None

    def prepare(self, image: Image.Image) -> Tensor:
        """Network input [1, 3, H, W] of one RGB image."""
        resize_px = min(image.size) if self.crops_only else self.resize_px
        fitted = _fit(image, resize_px, self.input_size, self.stretched)
        return normalise(torch.from_numpy(to_array(fitted).copy())[None], self.mean, self.std)

    def restore(self, images_BCHW: Tensor) -> np.ndarray:
        """Picture uint8 [H, W, 3] of the first normalised image."""
        mean, std = (torch.tensor(values).reshape(-1, 1, 1) for values in (self.mean, self.std))
        return as_picture((images_BCHW[0].cpu() * std + mean).numpy())


@dataclass(frozen=True)
class ExplainResult:
    """What was explained.

    Attributes:
        target: Class that the map speaks of.
        probability: Of that class, in [0, 1].
        map_HW: float32, channels reduced.
        output: The picture.
    """

    target: int
    class_name: str
    probability: float
    predicted: int
    map_HW: np.ndarray
    output: Path
    summary: str


def explain(
    image: Path,
    classifier: str,
    method: str | None,
    *,
    store: Store,
    explainer: str | None = None,
    target: str | None = None,
    params: Mapping[str, Any] | None = None,
    batched: bool = True,
    weights: Path | None = None,
    output: Path = Path("explanation.png"),
    device: str = "cpu",
    kept_fraction: float = 0.2,
) -> ExplainResult:
    """Explain one image and draw it.

    Args:
        image: An image file.
        classifier: Folder of a ``classifier`` artifact, or ``torchvision:NAME``.
        method: A name of the table or a dotted path; None with ``explainer``.
        store: Where artifacts lie.
        explainer: Instead of a method: folder of an ``explainer`` artifact, which draws the map.
        target: Class index or name; None: the predicted class.
        params: Of the method.
        batched: False: the user's method is called with one image [1, C, H, W] and one label.
        weights: ``torchvision:NAME`` only: a file of weights; None: torchvision's default ones.
        output: PNG, PDF or SVG, by its suffix.
        kept_fraction: Share of the pixels that the last picture keeps.

    Raises:
        RoarlineError: The image, classifier, method, target or output can't be used; the message says why.
    """
    check_format(output)
    make_output_folder(output.parent)
    if (method is None) == (explainer is None) or (explainer is not None and params):
        raise UserInputError("give --method with its parameters, or --explainer, which has them in its artifact")
    method = method or EXPLAINER
    component = METHODS.get(method)
    settings = dict(params or {})
    if component is not None:
        settings = parse_params("method", method, component.params, settings).model_dump(mode="json")
    subject = _load(classifier, store, weights)
    images = subject.prepare(decode(_read(image), str(image))).to(device)
    chosen = PREDICTED if target is None else find_class(target, subject.class_names)
    network, drawn_by = (None, method) if explainer is None else _explainer(explainer, subject, images, store)
    result = attribute(
        subject.model.to(device),
        images,
        torch.tensor([chosen], device=device),
        find_method(method, settings, batched=batched),
        seed_of=lambda row, label: derive_seed(0, "explain", method, image.name, label),
        sample_ids=[image.name],
        surroundings=Surroundings(
            shared_seed=derive_seed(0, "explain", method, "shared"),
            mean=subject.mean,
            std=subject.std,
            explainer=masks_of(network.to(device)) if network is not None else None,
        ),
    )
    channels = component.channels if component else "sum"
    maps = reduce_channels(result.maps, channels) if result.maps.ndim == 4 else result.maps
    label = int(result.targets[0])
    map_HW = maps[0].float().cpu().numpy()
    check_rows(MapRows([image.name], np.array([label]), map_HW[None], result.logits.float().cpu().numpy()), method)

    ranked = torch.from_numpy(plane(map_HW, component.sign if component else "signed"))[None]
    ranks = rank_pixels(ranked, [derive_seed(0, "ties", image.name)])
    removed = map_HW.size - removal_count(kept_fraction, map_HW.size)
    kept = remove(images.cpu(), ranks, removed, torch.zeros(1, 1, 1, 1), order="least_relevant_first")
    logits = result.logits[0].float().cpu()
    probabilities = torch.sigmoid(logits) if subject.multi_label else torch.softmax(logits, dim=0)
    predicted = int(logits.argmax())
    explained, best = (_say(subject.class_names, index, float(probabilities[index])) for index in (label, predicted))
    draw(
        Explanation(
            title=f"{_short(image.name)}: {explained}" + ("" if label == predicted else f"\npredicted: {best}"),
            subtitle=f"{drawn_by}{_in_words(settings)} on {subject.name}",
            method=drawn_by,
            picture=subject.restore(images),
            map_HW=map_HW,
            masked=subject.restore(kept),
            kept_fraction=kept_fraction,
        ),
        output,
    )
    other = "the predicted class" if label == predicted else f"the network predicts {best}"
    return ExplainResult(
        label, subject.class_names[label], float(probabilities[label]), predicted, map_HW, output,
        summary=f"{image.name}: {explained}, {other}; {drawn_by} on {subject.name}",
    )  # fmt: skip


def find_class(target: str, class_names: Sequence[str]) -> int:
    """A class by index or name (upper and lower case count the same).

    Raises:
        UserInputError: There is no such class, or several of that name.
    """
    if target.lstrip("-").isdigit():
        if not 0 <= int(target) < len(class_names):
            raise UserInputError(f"target {target}: the classifier has classes 0 to {len(class_names) - 1}")
        return int(target)
    lowered = [name.lower() for name in class_names]
    found = [index for index, name in enumerate(lowered) if name == target.lower()]
    if len(found) > 1:
        indices = " and ".join(map(str, found))
        raise UserInputError(f"target {target!r}: classes {indices} bear this name; give the index")
    if found:
        return found[0]
    near = difflib.get_close_matches(target.lower(), lowered, n=_NEAR_NAMES, cutoff=0.5)
    hint = f"; did you mean {' or '.join(repr(class_names[lowered.index(name)]) for name in near)}?" if near else ""
    raise UserInputError(f"target {target!r}: the classifier has no class of this name{hint}")


def _explainer(explainer: str, subject: Classifier, images: Tensor, store: Store) -> tuple[nn.Module, str]:
    """The network of an explainer artifact, and which explainer it is."""
    artifact = Artifact(store, Path(explainer))
    if artifact.manifest.stage != "train-explainer":
        raise UserInputError(
            f"{explainer}: made by {artifact.manifest.stage}, expected an explainer of train-explainer"
        )
    if subject.artifact is None:
        raise UserInputError(
            f"--explainer {explainer} goes with the classifier artifact it was trained for, not with {subject.name}"
        )
    network, card = load_explainer(
        artifact,
        subject.model,
        classifier_artifact=subject.artifact,
        class_names=subject.class_names,
        input_size=(int(images.shape[-2]), int(images.shape[-1])),
    )
    return network, card.explainer


def _load(classifier: str, store: Store, weights: Path | None) -> Classifier:
    if classifier.startswith(_TORCHVISION):
        return _load_torchvision(classifier, weights)
    if weights is not None:
        raise UserInputError("--weights goes with torchvision:NAME; a classifier artifact has its own")
    artifact = Artifact(store, Path(classifier))
    if artifact.manifest.stage != "train-cls":
        raise UserInputError(f"{classifier}: made by {artifact.manifest.stage}, expected a classifier of train-cls")
    model, card = load_classifier(artifact)
    size = (card.input_size[0], card.input_size[1]) if card.input_size else None
    return Classifier(
        card.arch, model, card.class_names, card.multi_label, card.resize_px, size, card.mean, card.std,
        crops_only=card.crop_px is not None and card.resize_px is None, stretched=bool(card.stretched),
        artifact=artifact,
    )  # fmt: skip


def _load_torchvision(arch: str, weights: Path | None) -> Classifier:
    """The network with the constants that torchvision publishes beside its weights."""
    import torchvision.models as zoo

    name = arch.removeprefix(_TORCHVISION)
    if name not in zoo.list_models(module=zoo):
        near = difflib.get_close_matches(name, zoo.list_models(module=zoo), n=_NEAR_NAMES)
        raise ModelError(
            f"torchvision has no classifier {name!r}" + (f"; did you mean {' or '.join(near)}?" if near else "")
        )
    published = zoo.get_model_weights(name)
    entry = published.DEFAULT if weights is None else next(iter(published))
    constants, class_names = entry.transforms(), entry.meta["categories"]
    model = build(
        arch, {}, len(class_names), input_size=None, weights=entry.name if weights is None else None,
        weights_file=weights, seed=0,
    )  # fmt: skip
    side = constants.crop_size[0]
    return Classifier(
        arch,
        model.eval().requires_grad_(False),
        class_names,
        False,
        constants.resize_size[0],
        (side, side),
        constants.mean,
        constants.std,
    )


def _fit(image: Image.Image, resize_px: int | None, size: tuple[int, int] | None, stretch: bool = False) -> Image.Image:
    """Resize the shorter side (both), or so that the image just covers ``size`` (H, W); cut the centre of that size."""
    if size is None:
        return image
    height, width = size
    if resize_px is None:
        scale = max(width / image.width, height / image.height)
        fitted = max(width, round(image.width * scale)), max(height, round(image.height * scale))
    else:
        fitted = resized(image.size, resize_px, stretch=stretch)
    if fitted != image.size:
        image = image.resize(fitted, Image.Resampling.BILINEAR)
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))


def _read(image: Path) -> bytes:
    try:
        return image.read_bytes()
    except OSError as error:
        raise DataError(f"{image}: can't be read ({error.strerror})") from error


def _say(class_names: Sequence[str], index: int, probability: float) -> str:
    percent = f"{100 * probability:.1f} %" if probability >= 0.001 else "below 0.1 %"
    return f"{class_names[index]} (class {index}), {percent}"


def _short(name: str) -> str:
    return name if len(name) <= _TITLE_LENGTH else f"{name[: _TITLE_LENGTH - 1]}…"


def _in_words(params: Mapping[str, Any]) -> str:
    return f" ({', '.join(f'{name} {value}' for name, value in params.items())})" if params else ""
