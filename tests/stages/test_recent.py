"""Values are kept within their limit, the latest longest."""

import numpy as np

from roarline.stages.recent import Recent


class Counted:
    """Makes arrays and counts how often."""

    def __init__(self) -> None:
        self.made: list[int] = []

    def __call__(self, key: int, size: int = 10) -> np.ndarray:
        self.made.append(key)
        return np.zeros(size, np.uint8)


def test_a_value_is_made_once():
    recent, make = Recent[np.ndarray](100), Counted()
    first = recent.get("a", lambda: make(1))
    assert recent.get("a", lambda: make(1)) is first
    assert make.made == [1]


def test_the_one_asked_for_longest_ago_makes_room():
    recent, make = Recent[np.ndarray](25), Counted()
    for key in (1, 2, 1, 3):  # 3 pushes 2 out, since 1 was asked for again
        recent.get(key, lambda key=key: make(key))
    for key in (1, 3, 2):
        recent.get(key, lambda key=key: make(key))
    assert make.made == [1, 2, 3, 2]


def test_a_value_beyond_the_limit_is_given_and_pushes_nothing_out():
    recent, make = Recent[np.ndarray](25), Counted()
    recent.get(1, lambda: make(1))
    assert len(recent.get(2, lambda: make(2, 26))) == 26
    recent.get(1, lambda: make(1))
    recent.get(2, lambda: make(2, 26))
    assert make.made == [1, 2, 2]
