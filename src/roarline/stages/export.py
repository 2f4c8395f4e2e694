"""export: artifacts as files that other programs open: PNG pictures and npz of maps, CSV of tables."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from roarline.artifacts.class_masks import CLASS_MASKS_FILE
from roarline.artifacts.classifier import CARD_FILE, CURVE_FILE, WEIGHTS_FILE, ClassifierCard
from roarline.artifacts.curves import CURVES_FILE, read_curves
from roarline.artifacts.dataset import DATASET_FILE, SPLITS, DatasetFile
from roarline.artifacts.explainer import EXPLAINER_FILE, ExplainerCard
from roarline.artifacts.features import FEATURES_FILE, read_features
from roarline.artifacts.files import atomic_path, make_output_folder, read_json
from roarline.artifacts.maps import MAPS_FILE, MapsFile
from roarline.artifacts.retraining import CELL_FILE, PREDICTIONS_FILE
from roarline.artifacts.store import Artifact
from roarline.artifacts.tables import SCORES_FILE, read_parquet, write_csv
from roarline.config.component import Sign
from roarline.config.localization import MASKS_AS_THEY_ARE
from roarline.config.methods import METHODS
from roarline.data.loading import ImageReader, normalise
from roarline.errors import ArtifactError, UserInputError
from roarline.imaging.ranking import rank_pixels, removal_count
from roarline.imaging.removal import remove
from roarline.report.gallery import plane
from roarline.report.pictures import as_picture, enlarged, heat_map, is_signed, png_bytes
from roarline.seeds import derive_seed
from roarline.stages import export_layouts
from roarline.stages.evaluate_class_masks import MATRIX_FILE
from roarline.stages.export_ground_truth import ground_truth
from roarline.stages.export_names import file_name

_PICTURE_PX = 256


@dataclass(frozen=True)
class Options:
    """What is exported, and where to.

    Attributes:
        limit: At most so many maps or images; tables are always whole.
        kept_fraction: Share of the pixels that masked images keep, the most relevant ones, in [0, 1].
        data_root: Folder of the raw images, where they are not packed.
        sign: How the values of maps are read; None: as ``_sign_and_reading`` finds.
        reading: How maps are read as masks, ``min_max`` or ``none``; None: likewise.
    """

    out: Path
    limit: int
    kept_fraction: float
    data_root: Path | None
    sign: Sign | None = None
    reading: str | None = None


def export(
    artifact: Artifact, out: Path, *, limit: int = 100, kept_fraction: float = 0.2, data_root: Path | None = None,
    sign: Sign | None = None, reading: str | None = None,
) -> Iterator[str]:  # fmt: skip
    """Write an artifact's content for other programs; what is there under the same name is replaced.

    Args:
        artifact: Any artifact of the store.
        out: Folder to write to; made where it is missing.
        limit: See ``Options``.
        kept_fraction: See ``Options``.
        data_root: See ``Options``.
        sign: See ``Options``.
        reading: See ``Options``.

    Yields:
        One line for each thing that was written.

    Raises:
        UserInputError: The stage's artifacts can't be exported, the folder can't be written, or the raw images are
            needed and not there; nothing was written then.
        ArtifactError: The artifact is damaged, or the disk is full.
    """
    exporter = _EXPORTERS.get(artifact.manifest.stage)
    if exporter is None:
        raise UserInputError(
            f"{artifact.path}: artifacts of {artifact.manifest.stage!r} can't be exported; "
            f"those of {', '.join(_EXPORTERS)} can"
        )
    options = Options(out, limit, kept_fraction, data_root, sign, reading)
    if exporter is _maps:
        _images_of(artifact, options)
    make_output_folder(out)
    yield from exporter(artifact, options)


def _maps(artifact: Artifact, options: Options) -> Iterator[str]:
    source = _images_of(artifact, options)
    with MapsFile(artifact.file(MAPS_FILE)) as file:
        rows = list(range(min(options.limit, len(file))))
        names = [file_name(file.sample_ids[row], int(file.targets[row])) for row in rows]
        sign, reading, said = _sign_and_reading(artifact, options)
        yield said
        with atomic_path(options.out / "maps.npz") as partial, partial.open("wb") as stream:
            np.savez_compressed(
                stream,
                maps=file.maps(rows),
                sample_ids=np.array([file.sample_ids[row] for row in rows]),
                targets=file.targets[rows],
                logits=file.logits[rows],
            )
        yield f"{options.out / 'maps.npz'}: {len(rows)} raw float maps (maps, sample_ids, targets, logits)"
        planes = {}
        for row, name in zip(rows, names, strict=True):
            planes[row] = map_HW = plane(file.maps([row])[0], sign)
            picture = heat_map(map_HW, signed=is_signed(map_HW))
            _write(options.out / "heat_maps" / f"{name}.png", png_bytes(enlarged(picture, _PICTURE_PX)))
        yield f"{options.out / 'heat_maps'}: {len(rows)} heat maps (PNG; each on its own scale)"
        method = str(artifact.manifest.parameters.get("method"))
        folder = "_".join(file_name(part) for part in (*_made_for(artifact), method) if part)
        with contextlib.ExitStack() as stack:
            dataset = stack.enter_context(DatasetFile(source.file(DATASET_FILE))) if source is not None else None
            layout: dict[str, Any] = {"sign": sign, "reading": reading, "dataset": dataset}
            yield from export_layouts.masks(file, rows, options.out, folder, **layout)
        if source is None:
            yield "no masked images: the data set of these maps is not in the same artifact folder"
        else:
            seed = artifact.manifest.parameters.get("seed", 0)
            yield from _masked(source, options, file, names, planes, seed)
        if len(file) > len(rows):
            yield f"the first {len(rows)} of {len(file)} maps; --limit says how many"


def _sign_and_reading(artifact: Artifact, options: Options) -> tuple[Sign, str, str]:
    """How maps are read, which is no part of them: as asked, as they were evaluated, or as the method's default is.

    Returns:
        Sign, reading as masks, and a line that says so.
    """
    method = str(artifact.manifest.parameters.get("method"))
    component = METHODS.get(method)
    sign: Sign = component.sign if component else "signed"
    reading, source = "none" if method in MASKS_AS_THEY_ARE else "min_max", "the method's default"
    evaluated = [
        other.manifest.parameters
        for other in artifact.store.artifacts()
        if other.manifest.stage.startswith("evaluate-") and _reads(other, artifact)
    ]
    signs, readings = ({each[name] for each in evaluated if name in each} for name in ("sign", "mask"))
    if len(signs) == 1 and len(readings) <= 1:
        sign, source = signs.pop(), "as they were evaluated"
        reading = readings.pop() if readings else reading
    elif evaluated:
        source = "the method's default; they were evaluated in several ways, --sign and --mask choose one"
    if options.sign or options.reading:
        sign, reading, source = options.sign or sign, options.reading or reading, "as asked"
    return sign, reading, f"maps are read with sign {sign}, as masks with {reading} ({source})"


def _reads(other: Artifact, maps: Artifact) -> bool:
    entry = other.manifest.inputs.get("maps")
    return entry is not None and (entry.stage, entry.key) == (maps.manifest.stage, maps.manifest.key)


def _images_of(artifact: Artifact, options: Options) -> Artifact | None:
    """The data set of some maps from the same store, None where it is not there.

    Raises:
        UserInputError: It lists files, and their folder was not given.
    """
    entry = artifact.manifest.inputs.get("dataset")
    if entry is None or not artifact.store.exists(entry.stage, entry.key):
        return None
    source = artifact.store.open(entry.stage, entry.key)
    with DatasetFile(source.file(DATASET_FILE)) as dataset:
        if not dataset.packed and (options.data_root is None or not options.data_root.exists()):
            given = "" if options.data_root is None else f"{options.data_root} is not there: "
            raise UserInputError(
                f"{given}the images of data set {dataset.name!r} are files outside the artifacts; say with --data-root "
                "where their folder or tar lies (data.root of the configuration)"
            )
    return source


def _masked(
    source: Artifact,
    options: Options,
    file: MapsFile,
    names: list[str],
    planes: Mapping[int, np.ndarray],
    seed: int,
) -> Iterator[str]:
    """Each image with only its most relevant pixels left.

    The rest takes the training split's mean colour, mid-grey where there is no training split.
    """
    with (
        DatasetFile(source.file(DATASET_FILE)) as dataset,
        ImageReader(dataset, options.data_root) as reader,
    ):
        places = {sample_id: row for row, sample_id in enumerate(dataset.sample_ids)}
        fill = torch.from_numpy(dataset.mean).reshape(1, -1, 1, 1) if dataset.mean is not None else torch.tensor(0.5)
        for (row, map_HW), name in zip(planes.items(), names, strict=True):
            sample_id = file.sample_ids[row]
            if sample_id not in places:
                raise ArtifactError(f"{file.path}: row {row} is of sample {sample_id!r}, which {source.path} has not")
            image_BCHW = normalise(reader.read([places[sample_id]]), [0.0], [1.0])
            removed = map_HW.size - removal_count(options.kept_fraction, map_HW.size)
            ranks_BHW = rank_pixels(torch.from_numpy(map_HW)[None], [derive_seed(seed, "ties", sample_id)])
            left = remove(image_BCHW, ranks_BHW, removed, fill, order="least_relevant_first")
            picture = as_picture(left[0].numpy())
            _write(options.out / "masked" / f"{name}.png", png_bytes(enlarged(picture, _PICTURE_PX)))
    yield (
        f"{options.out / 'masked'}: {len(names)} images, only their {100 * options.kept_fraction:g} % most relevant "
        "pixels left"
    )


def _summary(artifact: Artifact, options: Options) -> Iterator[str]:
    yield _table(artifact, SCORES_FILE, options.out / "scores.csv")


def _made_for(artifact: Artifact) -> Iterator[str]:
    """Data set and classifier of some maps, as far as they lie in the same artifact folder."""
    for role, key in (("dataset", "dataset"), ("classifier", "model")):
        entry = artifact.manifest.inputs.get(role)
        if entry is not None and artifact.store.exists(entry.stage, entry.key):
            found = artifact.store.open(entry.stage, entry.key).manifest.parameters.get(key, "")
            yield str(found.get("arch", "") if isinstance(found, Mapping) else found)


def _localization(artifact: Artifact, options: Options) -> Iterator[str]:
    for name, target in ((SCORES_FILE, "scores.csv"), (MATRIX_FILE, "class_matrix.csv")):
        if name in artifact.manifest.files:
            yield _table(artifact, name, options.out / target)
    if CLASS_MASKS_FILE in artifact.manifest.files:
        yield from export_layouts.class_masks(artifact.file(CLASS_MASKS_FILE), options.out)
    if FEATURES_FILE in artifact.manifest.files:
        table = read_features(artifact.file(FEATURES_FILE))
        arrays = {metric: features.values for metric, features in table.metrics.items()}
        with atomic_path(options.out / "features.npz") as partial, partial.open("wb") as stream:
            np.savez_compressed(stream, sample_ids=np.array(table.sample_ids), targets=table.targets, **arrays)  # type: ignore[arg-type]
        yield f"{options.out / 'features.npz'}: what rows give to {', '.join(arrays)}"


def _scores(artifact: Artifact, options: Options) -> Iterator[str]:
    yield _table(artifact, SCORES_FILE, options.out / "scores.csv")
    if CURVES_FILE not in artifact.manifest.files:
        return
    curves = read_curves(artifact.file(CURVES_FILE))
    columns: dict[str, list[Any]] = {"sample_id": [], "target": [], "metric": [], "fraction": [], "score": []}
    for metric, (fractions, values) in sorted(curves.by_metric.items()):
        count = len(fractions)
        columns["sample_id"] += [sample_id for sample_id in curves.sample_ids for _ in range(count)]
        columns["target"] += np.repeat(curves.targets, count).tolist()
        columns["metric"] += [metric] * values.size
        columns["fraction"] += fractions.tolist() * len(values)
        columns["score"] += values.astype(float).ravel().tolist()
    write_csv(options.out / "curves.csv", columns)
    yield f"{options.out / 'curves.csv'}: {len(columns['score'])} points of {len(curves.by_metric)} metrics"


def _retraining(artifact: Artifact, options: Options) -> Iterator[str]:
    cell = read_json(artifact.file(CELL_FILE))
    flat = {**cell.pop("place"), **cell}
    write_csv(options.out / "cell.csv", {name: [value] for name, value in flat.items()})
    yield f"{options.out / 'cell.csv'}: one retrained network"
    yield _table(artifact, PREDICTIONS_FILE, options.out / "predictions.csv")
    yield _copy(artifact, CURVE_FILE, options.out)


def _classifier(artifact: Artifact, options: Options) -> Iterator[str]:
    card = ClassifierCard.read(artifact.file(CARD_FILE))
    for name in sorted(artifact.manifest.files):
        yield _copy(artifact, name, options.out)
    params = ", ".join(f"{name}={value!r}" for name, value in card.params.items())
    yield (
        f"load it with safetensors.torch.load_file({str(options.out / WEIGHTS_FILE)!r}) into {card.arch}({params}) "
        f"with {len(card.class_names)} classes"
    )


def _dataset(artifact: Artifact, options: Options) -> Iterator[str]:
    with DatasetFile(artifact.file(DATASET_FILE)) as dataset:
        if dataset.multi_label:
            labels = [" ".join(dataset.class_names[i] for i in np.flatnonzero(row)) for row in dataset.labels]
        else:
            labels = [dataset.class_names[label] for label in dataset.labels]
        write_csv(
            options.out / "samples.csv",
            {
                "sample_id": dataset.sample_ids,
                "split": [SPLITS[split] for split in dataset.split],
                "label": labels,
            },
        )
        yield f"{options.out / 'samples.csv'}: {len(dataset)} samples"
        there = dataset.packed or (options.data_root is not None and options.data_root.exists())
        with ImageReader(dataset, options.data_root) as reader:
            yield from ground_truth(dataset, reader if there else None, options.out, options.limit)


def _page(artifact: Artifact, options: Options) -> Iterator[str]:
    for name in sorted(artifact.manifest.files):
        yield _copy(artifact, name, options.out)


def _explainer(artifact: Artifact, options: Options) -> Iterator[str]:
    card = ExplainerCard.read(artifact.file(EXPLAINER_FILE))
    for name in sorted(artifact.manifest.files):
        yield _copy(artifact, name, options.out)
    known = card.classifier
    yield f"weights of a {card.explainer} for classifier {known.key[:16]} ({known.arch})"


_EXPORTERS: dict[str, Callable[[Artifact, Options], Iterator[str]]] = {
    "prepare-data": _dataset,
    "train-cls": _classifier,
    "train-explainer": _explainer,
    "extract-attribution-maps": _maps,
    "evaluate-roar": _retraining,
    "evaluate-f-fidelity": _scores,
    "evaluate-idsds": _scores,
    "evaluate-perturbation": _scores,
    "evaluate-localization": _localization,
    "aggregate-scores": _summary,
    "report": _page,
}


def _table(artifact: Artifact, name: str, target: Path) -> str:
    columns = read_parquet(artifact.file(name))
    write_csv(target, columns)
    return f"{target}: {len(next(iter(columns.values()), []))} rows"


def _copy(artifact: Artifact, name: str, folder: Path) -> str:
    source = artifact.file(name)
    with atomic_path(folder / name) as partial:
        shutil.copyfile(source, partial)
    return f"{folder / name}: copied"


def _write(path: Path, content: bytes) -> None:
    with atomic_path(path) as partial:
        partial.write_bytes(content)
