"""The classifier's score as pixels or regions go: which altered images the curves need, and one pass over them.

Curves share what they have in common: the untouched image, the fill alone, and every equal removal go through the
network once. Regions (superpixels, patches) are removed as pixels are, by ranks: a pixel has its region's rank.
Shapes: B rows, C channels, H × W px, U altered images a row, S points of a curve, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from roarline.imaging.ranking import removal_count
from roarline.imaging.region_ranks import RegionRanks
from roarline.imaging.removal import Compat, Order, removal_mask, replace

MaskFill = Callable[[Tensor, Tensor, slice | Tensor], Tensor]
"""Images [N, C, H, W], masks bool [N, H, W] and the rows that they are of, to images with the masked pixels filled.

Images may be one for all masks. A fill that depends on which pixels are removed.
"""

PIXELS = "pixels"
# A product such as 0.29 * 100 is a few units in the last place too low; see ``removal_count``.
_FLOAT_GUARD = 1e-12


@dataclass(frozen=True)
class Curve:
    """Which pixels are gone at each point.

    Attributes:
        fractions: [S] rising, in [0, 1]: removed, or where ``inserts`` is true, present.
        order: From which end of the ranking pixels are removed, or appear.
        fill: Name of the fill.
        inserts: Pixels appear on the fill, instead of going from the image.
        compat: ``original``: removing nothing, most relevant first, removes everything, as the original LeRF/MoRF does.
        unit: ``pixels``, or the name of the regions that are removed as a whole, most relevant first; then the
            fractions are of the regions.
    """

    fractions: tuple[float, ...]
    order: Order
    fill: str
    inserts: bool = False
    compat: Compat = "corrected"
    unit: str = PIXELS

    def __post_init__(self) -> None:
        if self.unit != PIXELS and (self.order != "most_relevant_first" or self.inserts):
            raise ValueError(f"a curve of {self.unit} removes the most relevant first, not the least, and inserts none")

    def removals(self, pixels: int) -> list[Removal]:
        """What is removed at each point of the curve."""
        if self.unit != PIXELS:
            return [Removal(self.order, self.fill, share=fraction, unit=self.unit) for fraction in self.fractions]
        counts = [removal_count(fraction, pixels) for fraction in self.fractions]
        if self.inserts:  # the most relevant are present when the least relevant others are gone
            return [Removal(_opposite(self.order), self.fill, pixels - count) for count in counts]
        if self.compat == "original" and self.order == "most_relevant_first":
            counts = [count or pixels for count in counts]
        return [Removal(self.order, self.fill, count) for count in counts]


@dataclass(frozen=True)
class Removal:
    """One altered image of a row: so many pixels or regions, from one end of the ranking, replaced by a fill.

    Attributes:
        count: Of pixels.
        share: Of regions, in [0, 1]: rows may have different numbers of them.
        unit: As of ``Curve``.
    """

    order: Order
    fill: str
    count: int = 0
    share: float = 0.0
    unit: str = PIXELS


@dataclass(frozen=True)
class AlteredImages:
    """The altered images that some curves need, each once.

    Attributes:
        removals: [U], those of one order and fill side by side.
        places: Curve to [S] columns of ``removals``.
        untouched: Column of the untouched image, or None where no curve needs it.
    """

    removals: tuple[Removal, ...]
    places: Mapping[str, tuple[int, ...]]
    untouched: int | None

    @property
    def fills(self) -> set[str]:
        """Names of the fills that are needed."""
        return {removal.fill for removal in self.removals}

    def groups(self) -> Iterator[tuple[Order, str, str, list[int]]]:
        """(order, fill, unit, columns) of the altered images that one call can make."""
        keys = [_group(removal) for removal in self.removals]
        for key in dict.fromkeys(keys):
            yield *key, [column for column, other in enumerate(keys) if other == key]

    def counts(self, columns: Sequence[int], regions_B: Tensor | None, rows: int, device: torch.device) -> Tensor:
        """int64 [B, columns]: how many pixels or regions go, of each row.

        Args:
            columns: Of one group.
            regions_B: int64 [B], where the group removes regions.
            rows: B.
        """
        if regions_B is None:
            counts = [self.removals[column].count for column in columns]
            return torch.tensor(counts, device=device).expand(rows, -1)
        shares = torch.tensor([self.removals[column].share for column in columns], dtype=torch.float64, device=device)
        return (shares * regions_B[:, None] * (1 + _FLOAT_GUARD)).floor().long().clamp(max=regions_B[:, None])


def altered_images(curves: Mapping[str, Curve], pixels: int, *, untouched: bool = False) -> AlteredImages:
    """Find the altered images that some curves need.

    Args:
        curves: Name to curve.
        pixels: H · W.
        untouched: The untouched image is needed even where no curve has it.
    """
    wanted = {name: curve.removals(pixels) for name, curve in curves.items()}
    known: dict[object, Removal] = {}
    for removals in wanted.values():
        for removal in removals:
            known.setdefault(_identity(removal, pixels), removal)
    if untouched and known:
        first = next(iter(known.values()))
        known.setdefault("untouched", Removal(first.order, first.fill, unit=first.unit))
    groups = list(dict.fromkeys(_group(removal) for removal in known.values()))
    ordered = sorted(known, key=lambda identity: groups.index(_group(known[identity])))
    column = {identity: index for index, identity in enumerate(ordered)}
    return AlteredImages(
        tuple(known[identity] for identity in ordered),
        {name: tuple(column[_identity(removal, pixels)] for removal in found) for name, found in wanted.items()},
        column.get("untouched"),
    )


@dataclass(frozen=True)
class TargetOutputs:
    """What the classifier says of each row's target class for each altered image; NaN where its output is not finite.

    Attributes:
        logits: float32 [B, U].
        probabilities: float32 [B, U]: softmax, or for multi-label classifiers the sigmoid of the logit.
    """

    logits: Tensor
    probabilities: Tensor


@torch.inference_mode()
def target_outputs(
    model: nn.Module,
    images_BCHW: Tensor,
    ranks_BHW: Tensor,
    targets_B: Tensor,
    altered: AlteredImages,
    fills: Mapping[str, Tensor | MaskFill],
    *,
    batch_size: int,
    multi_label: bool = False,
    regions: Mapping[str, RegionRanks] | None = None,
) -> TargetOutputs:
    """Pass all altered images of some rows through the network, in full batches that go from row to row.

    Args:
        model: In eval mode, [N, C, H, W] to logits [N, K].
        images_BCHW: Normalised network inputs, in the memory format that the network is to see.
        ranks_BHW: int [B, H, W] of ``rank_pixels``.
        targets_B: int64 [B] in [0, K).
        altered: Of ``altered_images``.
        fills: Name to [1, C, 1, 1] or [B, C, H, W], normalised; or to a function of the masks.
        batch_size: Altered images a pass.
        multi_label: Probabilities by sigmoid instead of softmax.
        regions: Of every unit that is not pixels.

    Returns:
        On the device of the images; nothing is waited for.
    """
    rows_B = torch.arange(len(images_BCHW), device=images_BCHW.device)
    logits = torch.empty(len(rows_B), len(altered.removals), device=images_BCHW.device)
    probabilities = torch.empty_like(logits)
    for order, fill, unit, columns in altered.groups():
        of_unit = (regions or {})[unit] if unit != PIXELS else None
        ranks = ranks_BHW if of_unit is None else of_unit.ranks_BHW
        regions_B = None if of_unit is None else of_unit.regions_B
        counts = altered.counts(columns, regions_B, len(rows_B), images_BCHW.device).flatten()
        rows = rows_B.repeat_interleave(len(columns))
        found = []
        for start in range(0, len(rows), batch_size):
            stop = min(start + batch_size, len(rows))
            first, last = start // len(columns), (stop - 1) // len(columns)
            # One image altered in several ways needs no copies of itself.
            some = slice(first, first + 1) if first == last else rows[start:stop]
            mask = removal_mask(ranks[some], counts[start:stop], order)
            inputs = _filled(images_BCHW, some, mask, fills[fill])
            found.append(_of_target(model(inputs).float(), targets_B[rows[start:stop]], multi_label=multi_label))
        logit, probability = torch.cat(found, dim=1).reshape(2, len(rows_B), len(columns))
        logits[:, columns], probabilities[:, columns] = logit, probability
    return TargetOutputs(logits, probabilities)


def _filled(images_BCHW: Tensor, some: slice | Tensor, mask: Tensor, fill: Tensor | MaskFill) -> Tensor:
    """Some rows with their masked pixels filled."""
    if isinstance(fill, Tensor):
        return replace(images_BCHW[some], mask, fill if len(fill) == 1 else fill[some])
    return fill(images_BCHW[some], mask, some)


def _of_target(logits_NK: Tensor, targets_N: Tensor, *, multi_label: bool) -> Tensor:
    """[2, N]: logit and probability of the target."""
    probabilities = logits_NK.sigmoid() if multi_label else logits_NK.softmax(dim=1)
    both = torch.stack([logits_NK, probabilities]).gather(2, targets_N.expand(2, -1)[:, :, None])[:, :, 0]
    return both.where(torch.isfinite(logits_NK).all(dim=1), torch.nan)


def _identity(removal: Removal, pixels: int) -> object:
    """Equal for removals that give the same image whatever its ranks are."""
    nothing, everything = (0, pixels) if removal.unit == PIXELS else (0.0, 1.0)
    removed = removal.count if removal.unit == PIXELS else removal.share
    if removed == nothing:
        return "untouched"
    if removed == everything:
        return ("nothing left", removal.fill)
    return removal


def _group(removal: Removal) -> tuple[Order, str, str]:
    return removal.order, removal.fill, removal.unit


def _opposite(order: Order) -> Order:
    return "least_relevant_first" if order == "most_relevant_first" else "most_relevant_first"
