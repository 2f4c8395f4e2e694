"""Numbers as the page and its sentences write them; one place, so that both agree."""

from __future__ import annotations

_MORE_DECIMALS = 3
_SHARES = tuple(f"{mode}_{what}" for mode in ("roar", "kar", "recursive_roar") for what in ("accuracy", "leakage"))


def is_share(metric: str) -> bool:
    """True for metrics in [0, 1] that are written in per cent."""
    return metric in _SHARES


def score_text(metric: str, value: float | None, unit: str = "") -> str:
    """A score: shares in per cent with one decimal, values with a unit with one, others with three decimals."""
    if value is None:
        return "–"
    if is_share(metric):
        return percent(value)
    return f"{plain(value, 1)} {unit}" if unit else plain(value, 3)


def interval_text(metric: str, low: float | None, high: float | None, unit: str = "") -> str:
    """An interval in brackets, the unit only once; empty where there is none.

    An end that would round to 0 has more decimals where the interval excludes 0, so that marks and numbers agree.
    """
    if low is None or high is None:
        return ""
    factor, decimals = (100, 1) if is_share(metric) else (1, 1 if unit else 3)
    ends = [factor * low, factor * high]
    for more in range(_MORE_DECIMALS + 1):
        shown = [plain(end, decimals + more) for end in ends]
        if low * high <= 0 or all(float(text.replace("−", "-")) for text in shown):
            break
    return f"[{shown[0]}, {shown[1]}]"


def difference_text(metric: str, value: float | None, unit: str = "") -> str:
    """A difference with its sign, without one where it rounds to 0; shares in percentage points."""
    if value is None:
        return "–"
    size, words = plain(abs(value), 3), ""
    if is_share(metric):
        size, words = plain(100 * abs(value), 1), " pp"
    elif unit:
        size, words = plain(abs(value), 1), f" {unit}"
    sign = "" if float(size) == 0 else "+" if value > 0 else "−"
    return f"{sign}{size}{words}"


def percent(value: float) -> str:
    """A share in [0, 1] in per cent with one decimal."""
    return f"{plain(100 * value, 1)} %"


def fraction_percent(value: float) -> str:
    """A removed fraction in per cent, as short as it can be said."""
    return f"{100 * value:.6g} %"


def duration(seconds: float) -> str:
    """A time span in the unit that suits it."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"


def quantity(number: int, noun: str) -> str:
    """``1 baseline``, ``2 baselines``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def join(words: list[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


def plain(value: float, decimals: int) -> str:
    """A number with a true minus sign, and none before a zero."""
    text = f"{value:.{decimals}f}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "−")
