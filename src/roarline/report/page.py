"""The page: one HTML file that needs nothing else, from content, provenance and figures."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from roarline.report import formatting
from roarline.report.content import Content
from roarline.report.inline_svg import InlineFigures
from roarline.report.palette import css_gradient, diverging_colour
from roarline.report.pictures import thumbnail_uri
from roarline.report.provenance import Provenance
from roarline.report.sanity import SIMILARITIES

_ARXIV = re.compile(r"arXiv (\d{4}\.\d{4,5})")
_NAME = re.compile(r"`([^`]+)`")
_QUANTITY = re.compile(r"(?<=\d) (?=%|pp\b)")


def render(content: Content, provenance: Provenance, figures: Mapping[str, bytes]) -> str:
    """Render ``index.html``.

    Args:
        content: What the page shows.
        provenance: Times, versions, keys.
        figures: Name of each panel to its SVG file.

    Returns:
        HTML without an address of any other file, but for links that a reader may follow.
    """
    environment = Environment(
        loader=PackageLoader("roarline.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "rich": rich,
        "percent": formatting.percent,
        "fraction": formatting.fraction_percent,
        "breakable": breakable,
        "thumbnail": thumbnail_uri,
        "duration": formatting.duration,
    }
    environment.globals |= {
        "score_text": formatting.score_text,
        "interval_text": formatting.interval_text,
        "difference_text": formatting.difference_text,
        "gradient": css_gradient,
        "diverging": diverging_colour,
        "shades": shades,
        "plain": formatting.plain,
        "sanity_measure": SIMILARITIES.__getitem__,
    }
    return environment.get_template("page.html.j2").render(
        content=content,
        provenance=provenance,
        figures=InlineFigures(figures),
        references=references(content),
    )


def rich(text: str) -> Markup:
    """Escape a sentence, then set `names` as code, link arXiv numbers, and keep numbers with their units."""
    marked = _QUANTITY.sub("&nbsp;", str(escape(text)))
    marked = _NAME.sub(r"<code>\1</code>", marked)
    return Markup(_ARXIV.sub(r'<a href="https://arxiv.org/abs/\1">arXiv&nbsp;\1</a>', marked))


def breakable(name: str) -> Markup:
    """Escape a name and let it break after underscores and dots."""
    return Markup(re.sub(r"([_.])", r"\1<wbr>", str(escape(name))))


def shades(tau: Sequence[Sequence[float | None]]) -> list[tuple[int, str, str]]:
    """Of the values of a heat map, each once: (value + 1) in hundredths, its colour, and that of words upon it."""
    steps = sorted({round(100 * (value + 1)) for row in tau for value in row if value is not None})
    return [(step, *diverging_colour(step / 100 - 1)) for step in steps]


def references(content: Content) -> list[str]:
    """arXiv numbers that the page's words cite, each once, rising."""
    words = [content.answer, *(text for passage in content.passages for text in (*passage.paragraphs, *passage.items))]
    return sorted({number for text in words for number in _ARXIV.findall(text)})
