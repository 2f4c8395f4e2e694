"""Maskers: a section of which one key is given keeps the others as published."""

from __future__ import annotations

import pytest

from roarline.config.component import Params
from roarline.config.masker_params import CaMaskerParams, FixMaskerParams, MaskSide


@pytest.mark.parametrize(("params", "area"), [(FixMaskerParams, 10.0), (CaMaskerParams, 15.0)])
def test_one_key_of_a_side_leaves_the_others_as_published(params: type[Params], area: float) -> None:
    """assets/fix.json and ca.json, spec S3.2."""
    losses = params.model_validate({"losses": {"mask_in": {"variation": 0.1}, "mask_out": {"weight": 2}}}).losses
    assert losses.mask_in.model_dump() == MaskSide(objective="classification", area=1.0, variation=0.1).model_dump()
    assert losses.mask_out.model_dump() == MaskSide(objective="entropy", area=area, weight=2).model_dump()
