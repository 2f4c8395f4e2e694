"""How well a classifier of several labels an image decides: precision, recall and F-score, pooled and by class.

Shapes: N images, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import precision_recall_fscore_support

_COLUMNS = ("precision", "recall", "f_score")


def label_metrics(
    logits_NK: np.ndarray, labels_NK: np.ndarray, class_names: Sequence[str], threshold: float = 0.0
) -> dict[str, object]:
    """Metrics of the N · K decisions "logit ≥ threshold", each in [0, 1].

    Args:
        logits_NK: Float.
        labels_NK: 0 or 1.
        class_names: [K].

    Returns:
        ``threshold``; ``overall``: ``accuracy``, the share of right decisions, and ``precision``, ``recall`` and
        ``f_score`` of all decisions together (micro averages); ``per_class_mean``: those of each class, averaged
        (macro); ``classes``: those of each class, by name. What has no true positive is 0.

    Source: spec S0.2 (overall), S2.4 (P_C, R_C, F_C: per_class_mean; P_O, R_O, F_O: overall).
    Differs: S2.4 has logit > 0; a logit of exactly 0 is the difference.
    """
    decided_NK, true_NK = logits_NK >= threshold, labels_NK > 0.5

    def of(average: str | None) -> list[np.ndarray]:
        return list(precision_recall_fscore_support(true_NK, decided_NK, average=average, zero_division=0.0)[:3])

    overall = {"accuracy": float((decided_NK == true_NK).mean())}
    by_class = np.stack(of(None), 1)
    return {
        "threshold": float(threshold),
        "overall": overall | {name: float(value) for name, value in zip(_COLUMNS, of("micro"), strict=True)},
        "per_class_mean": {name: float(value) for name, value in zip(_COLUMNS, of("macro"), strict=True)},
        "classes": {
            name: dict(zip(_COLUMNS, map(float, row), strict=True))
            for name, row in zip(class_names, by_class, strict=True)
        },
    }
