"""When a training has stopped getting better."""

from __future__ import annotations

from roarline.config.training import EarlyStopping
from roarline.training.objectives import Goal


class Patience:
    """Counts epochs without a real gain.

    An epoch gains where its goal is better than the best gain so far by more than ``min_delta``; which epoch's weights
    are kept is another matter: the best one's, by however little.

    Args:
        settings: None: training never stops early.
        goal: Of the objective.

    Source: spec S0.2 (patience 5, min_delta 0.001, on the validation loss), as Lightning counts.
    """

    def __init__(self, settings: EarlyStopping | None, goal: Goal) -> None:
        self.settings, self.goal = settings, goal
        self.best: float | None = None
        self.waited = 0

    @property
    def over(self) -> bool:
        """True where training is to stop."""
        return self.settings is not None and self.waited >= self.settings.patience

    def see(self, value: float) -> None:
        """Note the goal's value of an epoch."""
        if self.settings is None:
            return
        gain = better_by(self.goal, value, self.best)
        if gain > self.settings.min_delta:
            self.best, self.waited = value, 0
        else:
            self.waited += 1

    def state(self) -> dict[str, float | int | None]:
        """What a resumed training needs."""
        return {"best": self.best, "waited": self.waited}

    def restore(self, state: dict[str, float | int | None]) -> None:
        """Take up what ``state`` gave."""
        self.best, self.waited = state["best"], int(state["waited"] or 0)


def better_by(goal: Goal, value: float, best: float | None) -> float:
    """By how much a value is better than the best so far: negative where it is worse, infinite for the first."""
    if best is None:
        return float("inf")
    return value - best if goal[1] == "max" else best - value
