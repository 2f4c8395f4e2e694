"""Which cases stand in the picture of the best and the worst."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from roarline.errors import UserInputError
from roarline.stages.cases import choose_cases

SCORES = st.lists(st.sampled_from([0.0, 0.25, 1.0, np.nan]) | st.floats(-5, 5), min_size=2, max_size=30)


@given(SCORES, st.integers(1, 12), st.integers(0, 2**32), st.booleans())
def test_none_outside_is_better_than_the_best_or_worse_than_the_worst(scores, count, seed, lower_is_better):
    values = np.array(scores)
    scored = values[~np.isnan(values)]
    if len(scored) < 2:
        with pytest.raises(UserInputError, match="have a score"):
            choose_cases(values, count, seed, lower_is_better=lower_is_better)
        return
    best, worst = choose_cases(values, count, seed, lower_is_better=lower_is_better)
    assert len(best) == len(worst) == min(count, len(scored) // 2)
    assert not set(best.tolist()) & set(worst.tolist())
    upwards = np.sort(-scored if lower_is_better else scored)
    sign = -1 if lower_is_better else 1
    # Each list begins at its own end.
    np.testing.assert_array_equal(sign * values[best], upwards[::-1][: len(best)])
    np.testing.assert_array_equal(sign * values[worst], upwards[: len(worst)])


def test_cases_that_score_alike_are_a_draw_from_the_seed():
    values = np.r_[np.zeros(50), np.ones(50)]
    one, again, other = (choose_cases(values, 20, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(np.stack(one), np.stack(again))
    assert set(one[0].tolist()) != set(other[0].tolist())
    assert set(one[0].tolist()) != set(range(50, 70))
    assert one[0].min() >= 50 > one[1].max()
