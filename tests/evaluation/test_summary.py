"""Summary rows: values, paired differences, failures, ranks."""

from __future__ import annotations

import math

import pytest
import torch

from roarline.evaluation.summary import MEAN_SETTING, Column, Summary, mean_over_settings, summarise

DIRECTIONS = {"up": True, "down": False, "none": None}


def column(method: str, values: object, metric: str = "up", setting: str = "", **more: object) -> Column:
    tensor = torch.as_tensor(values, dtype=torch.float64)
    return Column(method, metric, setting, tensor if tensor.ndim == 2 else tensor[None], **more)  # type: ignore[arg-type]


def summary(columns: list[Column], clusters: torch.Tensor | None = None, **changes: object) -> list[Summary]:
    rows = columns[0].values.shape[1]
    arguments = {
        "baseline": "random", "higher_is_better": DIRECTIONS.__getitem__, "confidence": 0.95, "resamples": 400,
        "seed": 0, **changes,
    }  # fmt: skip
    return summarise(columns, torch.arange(rows) if clusters is None else clusters, **arguments)  # type: ignore[arg-type]


def noise(rows: int, seed: int, repeats: int = 1) -> torch.Tensor:
    return torch.rand(repeats, rows, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_value_interval_and_counts() -> None:
    (row,) = summary([column("a", noise(50, 0))])
    assert row.value == pytest.approx(noise(50, 0).mean().item())
    assert row.interval is not None
    assert row.interval[0] < row.value < row.interval[1]
    assert (row.n, row.failed, row.status, row.rank) == (50, 0, "ok", 1)
    assert row.difference is None
    assert row.difference_interval is None


def test_difference_to_random_is_paired() -> None:
    hard = noise(60, 0)
    better, random = summary([column("better", hard + 0.1), column("random", hard)])
    assert better.difference == pytest.approx(0.1)
    assert better.difference_interval is not None
    assert better.interval is not None
    paired = better.difference_interval[1] - better.difference_interval[0]
    assert paired < 1e-12 < 0.05 < better.interval[1] - better.interval[0]
    assert random.difference is None
    assert (better.rank, random.rank) == (1, 2)


def test_repeats_are_paired_by_their_number() -> None:
    """Network 2 of the method against network 2 of random: what both owe to their initialisation cancels."""
    shared = torch.tensor([[0.0], [0.5], [-0.3]], dtype=torch.float64) + noise(40, 1, 3)
    method = column("a", (shared + 0.2)[[2, 0, 1]], repeats=(2, 0, 1))
    row, random = summary([method, column("random", shared, repeats=(0, 1, 2))])
    assert row.difference_interval == pytest.approx((0.2, 0.2))
    assert random.interval is not None
    assert random.interval[1] - random.interval[0] > 1  # t(2) · s / √3 with s = 0.4 is 1.0 to either side


def test_repeats_that_random_lacks_are_left_out_of_the_difference() -> None:
    row, _ = summary([column("a", [[1.0, 1.0], [9.0, 9.0]], repeats=(0, 1)), column("random", [[0.5, 0.5]])])
    assert (row.value, row.difference) == (5.0, 0.5)


def test_failed_rows_are_counted_and_the_difference_is_over_rows_that_both_have() -> None:
    a, random = column("a", [1.0, math.nan, 3.0, 2.0], reason="broke"), column("random", [0.5, 100.0, 2.5, math.nan])
    row, _ = summary([a, random])
    assert (row.value, row.n, row.failed, row.status) == (2.0, 3, 1, "ok")
    assert row.difference == pytest.approx(0.5)


def test_a_method_that_failed_everywhere_has_a_row_with_its_reason() -> None:
    failed, random, other = summary(
        [column("a", [math.nan] * 4, reason="broke"), column("random", noise(4, 0)), column("b", noise(4, 1))]
    )
    assert (failed.value, failed.interval, failed.difference, failed.rank) == (None, None, None, None)
    assert (failed.n, failed.failed, failed.status) == (0, 4, "all 4 rows failed: broke")
    assert {random.rank, other.rank} == {1, 2}


def test_a_baseline_that_failed_everywhere_leaves_no_difference() -> None:
    row, _ = summary([column("a", [1.0, 2.0]), column("random", [math.nan] * 2, reason="broke")])
    assert (row.value, row.difference, row.difference_interval) == (1.5, None, None)


def test_without_random_there_are_no_differences() -> None:
    assert all(row.difference is None for row in summary([column("a", [1.0, 2.0]), column("b", [0.0, 1.0])]))


def test_order_of_rows_of_columns_and_of_other_metrics_changes_nothing() -> None:
    columns = [column("a", noise(30, 0)), column("b", noise(30, 1)), column("random", noise(30, 2))]
    expected = {row.method: row for row in summary(columns)}
    other = column("a", noise(30, 3), metric="down", setting="x")
    for row in summary([other, *columns[::-1]]):
        if row.metric == "up":
            same = expected[row.method]
            assert (row.value, row.rank) == (same.value, same.rank)
            assert row.interval == pytest.approx(same.interval, rel=1e-12)
            assert row.difference_interval == (same.difference_interval and pytest.approx(same.difference_interval))


def test_rows_of_one_image_are_drawn_together() -> None:
    values, cluster = noise(20, 0).repeat_interleave(4, dim=1), torch.arange(20).repeat_interleave(4)
    (once,), (often,) = summary([column("a", noise(20, 0))]), summary([column("a", values)], cluster)
    assert often.interval == pytest.approx(once.interval)
    assert (once.n, often.n) == (20, 80)


def test_one_image_has_no_interval() -> None:
    (row,) = summary([column("a", [0.5, 0.7])], torch.zeros(2, dtype=torch.int64))
    assert (row.value, row.interval) == (0.6, None)


def test_a_reference_takes_no_place_and_no_difference() -> None:
    rows = summary(
        [column("reference", [9.0, 9.0], ranked=False), column("random", [1.0, 0.0]), column("a", [1.0, 1.0])]
    )
    assert [row.rank for row in rows] == [None, 2, 1]
    assert rows[0].difference is None


def test_metrics_without_direction_are_not_ranked() -> None:
    assert [row.rank for row in summary([column("a", [1.0, 2.0], metric="none")])] == [None]


def test_settings_are_ranked_apart() -> None:
    rows = summary(
        [column(m, [v, v], metric="down", setting=s) for s, v, m in
         (("x", 1.0, "a"), ("x", 2.0, "b"), ("y", 2.0, "a"), ("y", 1.0, "b"))]
    )  # fmt: skip
    assert [row.rank for row in rows] == [1, 2, 2, 1]


def test_mean_over_settings_is_row_by_row_and_repeat_by_repeat() -> None:
    one = column("a", [[1.0, 2.0], [3.0, 4.0]], setting="x", repeats=(0, 1))
    two = column("a", [[7.0, 8.0], [5.0, math.nan]], setting="y", repeats=(1, 0), reason="broke")
    mean = mean_over_settings([one, two])
    assert mean.setting == MEAN_SETTING
    assert mean.values[1].tolist() == [5.0, 6.0]
    assert mean.values[0, 0].item() == 3.0
    assert math.isnan(mean.values[0, 1])
    assert (mean.repeats, mean.reason) == ((0, 1), "broke")
    only_shared = mean_over_settings([one, column("a", [[0.0, 0.0]], setting="y", repeats=(1,))])
    assert (only_shared.repeats, only_shared.values.tolist()) == ((1,), [[1.5, 2.0]])
