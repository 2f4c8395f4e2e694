"""Figures as parts of one page: what they share, letters above all, stands in the page once.

A page of two hundred figures as files of their own has two hundred copies of the alphabet. Here every letter, word,
marker, clipping path and style is defined once, in a sheet, and figures refer to it. Nothing is drawn otherwise: only
coordinates are rounded to a hundredth of a point.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from markupsafe import Markup, escape

_SVG, _LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"
_ROUNDED = ("d", "x", "y", "width", "height", "points")
_NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")
_MOVED = re.compile(r"translate\([^)]*\)")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")


class InlineFigures:
    """SVG files of matplotlib as elements of one page.

    Args:
        files: Name to SVG file. Files are read one after the other, and the sheet holds what all of them need.
        prefix: Of ids and classes, which the page uses nowhere else.
    """

    def __init__(self, files: Mapping[str, bytes], prefix: str = "plot-") -> None:
        self._prefix = prefix
        self._shared: dict[str, str] = {}
        self._styles: dict[str, str] = {}
        self._figures = {name: self._read(svg) for name, svg in files.items()}

    @property
    def rules(self) -> Markup:
        """What the figures' classes mean, for the page's style sheet."""
        return Markup("".join(f".{name}{{{style}}}" for style, name in self._styles.items()))

    @property
    def sheet(self) -> Markup:
        """What the figures refer to; it stands in the page before them."""
        parts = "".join(_with_id(text, name) for text, name in self._shared.items())
        # Sized to nothing instead of hidden: browsers don't draw what refers to a hidden part.
        return Markup(f'<svg class="sheet" width="0" height="0" aria-hidden="true"><defs>{parts}</defs></svg>')

    def figure(self, name: str, words: str) -> Markup:
        """One figure as an element.

        Args:
            words: What it shows, for those who don't see it.
        """
        size, inside = self._figures[name]
        return Markup(f'<svg class="plot" role="img" aria-label="{escape(words)}" viewBox="{size}">{inside}</svg>')

    def _read(self, svg: bytes) -> tuple[str, str]:
        """The view box, and all that is drawn."""
        root = ElementTree.fromstring(svg)
        names: dict[str, str] = {}
        self._take_definitions(root, names)
        for child in list(root):
            if child.tag in (f"{_SVG}metadata", f"{_SVG}defs"):
                root.remove(child)
        self._simplify(root, names)
        return root.attrib["viewBox"], "".join(self._text(child) for child in root)

    def _take_definitions(self, parent: Element, names: dict[str, str]) -> None:
        """Move definitions to the sheet; ``names`` are the new ids of the file's own."""
        for child in list(parent):
            self._take_definitions(child, names)
            if child.tag != f"{_SVG}defs":
                continue
            for item in child:
                own = item.attrib.pop("id", None)
                if own is not None:
                    names[own] = self._share(self._text(item))
            parent.remove(child)

    def _simplify(self, parent: Element, names: Mapping[str, str]) -> None:
        """Refer to the sheet, in place: first what is inside, then words."""
        for child in parent:
            child.attrib.pop("id", None)
            if _LINK in child.attrib:
                link = child.attrib.pop(_LINK)  # of an image: the image itself
                child.attrib["href"] = f"#{names[link[1:]]}" if link.startswith("#") else link
            if "clip-path" in child.attrib:
                child.attrib["clip-path"] = _REFERENCE.sub(lambda m: f"url(#{names[m[1]]})", child.attrib["clip-path"])
            self._simplify(child, names)
        for place, child in enumerate(parent):
            if child.tag == f"{_SVG}g" and len(child) > 1 and all(_is_letter(letter) for letter in child):
                word = f"<g>{''.join(map(self._text, child))}</g>"
                parent[place] = Element(f"{_SVG}use", {"href": f"#{self._share(word)}", **child.attrib})

    def _share(self, text: str) -> str:
        """The id of a part in the sheet."""
        return self._shared.setdefault(text, f"{self._prefix}{len(self._shared)}")

    def _text(self, element: Element) -> str:
        """Compact HTML of an element without a namespace."""
        inside = "".join(self._text(child) for child in element)
        tag, attributes = element.tag.removeprefix(_SVG), dict(element.attrib)
        if tag == "g" and not attributes:
            return inside
        if style := attributes.pop("style", None):
            style = style.replace(": ", ":").replace("; ", ";")
            attributes["class"] = self._styles.setdefault(style, f"{self._prefix}s{len(self._styles)}")
        words = "".join(f' {name}="{escape(_short(name, value))}"' for name, value in attributes.items())
        return f"<{tag}{words}>{inside}</{tag}>" if inside else f"<{tag}{words}/>"


def _is_letter(element: Element) -> bool:
    return element.tag == f"{_SVG}use" and not {*element.attrib} - {"href", "transform"}


def _short(name: str, value: str) -> str:
    """An attribute's value with numbers of no more than two decimals."""
    if name == "transform":
        return _MOVED.sub(lambda match: _rounded(match[0]), value)
    if name not in _ROUNDED:
        return value
    value = _rounded(" ".join(value.split()))
    return re.sub(r" ?([A-Za-z]) ?", r"\1", value) if name == "d" else value


def _rounded(text: str) -> str:
    return _NUMBER.sub(lambda match: f"{float(match[0]):.2f}".rstrip("0").rstrip("."), text)


def _with_id(text: str, name: str) -> str:
    """A definition with its id."""
    return re.sub(r"^<(\w+)", rf'<\1 id="{name}"', text, count=1)
