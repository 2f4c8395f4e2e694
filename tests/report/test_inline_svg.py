"""Figures within the page: drawn as the files are, what they share stands there once, no name is used twice."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure

from roarline.report.inline_svg import InlineFigures
from roarline.report.plots import as_svg, figure_style

_XLINK = "{http://www.w3.org/1999/xlink}href"


def drawn(seed: int, title: str = "Deletion & insertion") -> bytes:
    """A figure of many kinds of parts: lines, markers, a band, clipping, words of one and of many letters."""
    rng = np.random.default_rng(seed)
    with figure_style():
        figure = Figure(figsize=(4, 3))
        axes = figure.add_axes((0.2, 0.2, 0.7, 0.6))
        x, y = np.arange(6), rng.random(6)
        axes.plot(x, y, "o-", label="gradient")
        axes.fill_between(x, y - 0.1, y + 0.1, alpha=0.2)
        axes.scatter(x, rng.random(6), label="random")
        axes.set_title(title)
        axes.set_xlabel("removed\nfraction")
        figure.legend()
        return as_svg(figure)


class Drawing(HTMLParser):
    """What a browser would paint: every path with its coordinates and style, references followed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.root: list[tuple[str, dict[str, str], list]] = []
        self._open: list[list] = [self.root]
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        children: list = []
        self._open[-1].append((tag, {name: value or "" for name, value in attributes}, children))
        self._open.append(children)

    def handle_endtag(self, tag: str) -> None:
        self._open.pop()

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self._open[-1].append((tag, {name: value or "" for name, value in attributes}, []))


def numbers(text: str) -> tuple[float, ...]:
    return tuple(float(value) for value in re.findall(r"-?\d+(?:\.\d+)?(?:e-?\d+)?|-?\.\d+", text))


def painted_of_page(figures: InlineFigures, name: str) -> list[tuple[str, str, tuple[float, ...]]]:
    """(style, letters of the path's commands, numbers) of every path, those of what it stands in included."""
    (sheet,) = Drawing(str(figures.sheet)).root
    rules = dict(re.findall(r"\.([\w-]+)\{([^}]*)\}", figures.rules))
    ((_, _, parts),) = sheet[2]
    defined = {attributes["id"]: (tag, attributes, children) for tag, attributes, children in parts}
    (figure,) = Drawing(str(figures.figure(name, "words"))).root
    found: list[tuple[str, str, tuple[float, ...]]] = []

    def walk(item: tuple[str, dict[str, str], list], outer: tuple[str, ...]) -> None:
        tag, attributes, children = item
        inner = (*outer, rules.get(attributes.get("class", ""), ""), attributes.get("transform", ""))
        inner = (*inner, *(attributes.get(key, "") for key in ("x", "y")))
        if clip := attributes.get("clip-path"):
            rectangle = defined[clip[5:-1]][2][0]
            inner = (*inner, *(rectangle[1][key] for key in ("x", "y", "width", "height")))
        if tag == "use":
            walk(defined[attributes["href"][1:]], inner)
        if tag == "path":
            note(found, inner, attributes.get("d", ""))
        for child in children:
            walk(child, inner)

    for child in figure[2]:
        walk(child, ())
    return found


def note(found: list[tuple[str, str, tuple[float, ...]]], outer: tuple[str, ...], path: str) -> None:
    text = " ".join(part for part in outer if part)
    style = " ".join(sorted(re.findall(r"[a-z-]+: ?#?[\w.]+", text.replace(": ", ":"))))
    moved = numbers(" ".join(part for part in outer if ":" not in part))
    found.append((style, re.sub(r"[^A-Za-z]", "", path), (*moved, *numbers(path))))


def painted_of_file(svg: bytes) -> list[tuple[str, str, tuple[float, ...]]]:
    root = ElementTree.fromstring(svg)
    defined = {item.attrib["id"]: item for item in root.iter() if "id" in item.attrib}
    found: list[tuple[str, str, tuple[float, ...]]] = []

    def walk(item: ElementTree.Element, outer: tuple[str, ...]) -> None:
        tag = item.tag.rpartition("}")[2]
        if tag in ("defs", "metadata"):
            return
        inner = (*outer, *(item.attrib.get(key, "") for key in ("style", "transform", "x", "y")))
        if clip := item.attrib.get("clip-path"):
            rectangle = defined[clip[5:-1]][0]
            inner = (*inner, *(rectangle.attrib[key] for key in ("x", "y", "width", "height")))
        if tag == "use":
            walk(defined[item.attrib[_XLINK][1:]], inner)
        if tag == "path":
            note(found, inner, item.attrib.get("d", ""))
        for child in item:
            walk(child, inner)

    for child in root:
        walk(child, ())
    return found


@pytest.mark.parametrize("name", ["one", "other"])
def test_every_path_is_painted_where_and_as_the_file_has_it(name: str) -> None:
    files = {"one": drawn(0), "other": drawn(1, "LeRF – MoRF")}
    found, expected = painted_of_page(InlineFigures(files), name), painted_of_file(files[name])
    assert len(found) == len(expected) > 50
    for (style, commands, places), (as_style, as_commands, as_places) in zip(found, expected, strict=True):
        assert style == as_style
        assert commands == as_commands
        assert places == pytest.approx(as_places, abs=0.00501)  # rounded to hundredths


def test_another_figure_adds_nothing_but_what_is_new() -> None:
    """Letters, words and styles of the first are in the sheet already."""
    one, two = InlineFigures({"a": drawn(0)}), InlineFigures({"a": drawn(0), "b": drawn(1)})
    assert len(two.sheet) < len(one.sheet) * 1.35
    assert len(two.figure("b", "")) < len(drawn(1)) / 5
    again = InlineFigures({"a": drawn(0), "b": drawn(0)})
    assert (again.sheet, again.rules) == (one.sheet, one.rules)
    assert again.figure("a", "") == again.figure("b", "")


def test_ids_are_unique_and_every_reference_is_defined() -> None:
    figures = InlineFigures({"a": drawn(0), "b": drawn(1)})
    page = figures.sheet + figures.figure("a", "") + figures.figure("b", "")
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids)) > 20
    assert {*re.findall(r'href="#([^"]+)"', page), *re.findall(r"url\(#([^)]+)\)", page)} <= {*ids}
    assert {*re.findall(r'class="(plot-s\d+)"', page)} <= {*re.findall(r"\.(plot-s\d+)\{", figures.rules)}


def test_words_for_those_who_do_not_see_it_are_escaped() -> None:
    assert 'aria-label="a &#34;b&#34; &lt;c&gt;"' in InlineFigures({"a": drawn(0)}).figure("a", 'a "b" <c>')


def test_an_image_in_a_figure_stays_in_it() -> None:
    with figure_style():
        figure = Figure(figsize=(2, 2))
        figure.add_axes((0, 0, 1, 1)).imshow(np.eye(3))
        svg = as_svg(figure)
    (data,) = re.findall(rb'xlink:href="(data:image/png[^"]+)"', svg)
    (found,) = re.findall(r'href="(data:image/png[^"]+)"', InlineFigures({"a": svg}).figure("a", ""))
    assert found.split() == data.decode().split()
