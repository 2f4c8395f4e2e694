"""Read a page the way a reader does: tables as text, resources by address."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

_RESOURCES = {"img": "src", "script": "src", "link": "href", "iframe": "src", "source": "src", "object": "data"}
_INLINE = ("a", "b", "code", "wbr")


@dataclass
class Cell:
    """One cell of a table."""

    classes: list[str]
    value: str | None
    text: str = ""


@dataclass
class Page(HTMLParser):
    """What is on a page.

    Attributes:
        tables: Class attribute of the table to its rows of cells.
        resources: (tag, address) of everything a browser would load.
        text: All text outside of scripts and styles.
    """

    tables: list[tuple[str, list[list[Cell]]]] = field(default_factory=list)
    resources: list[tuple[str, str]] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    text: str = ""
    _inside: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Note tables, cells and resources."""
        given = dict(attributes)
        self.tags.append(tag)
        if tag not in _INLINE:
            self.handle_data(" ")
        if tag in ("script", "style"):
            self._inside.append(tag)
        if tag in _RESOURCES and given.get(_RESOURCES[tag]) is not None:
            self.resources.append((tag, given[_RESOURCES[tag]] or ""))
        if tag == "table":
            self.tables.append((given.get("class") or "", []))
        elif tag == "tr":
            self.tables[-1][1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][1][-1].append(Cell((given.get("class") or "").split(), given.get("data-value")))

    def handle_endtag(self, tag: str) -> None:
        """Leave scripts and styles."""
        if tag in ("script", "style"):
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        """Collect text."""
        if self._inside:
            return
        self.text += data
        if self.tables and self.tables[-1][1] and self.tables[-1][1][-1]:
            self.tables[-1][1][-1][-1].text += data


def read_page(html: str) -> Page:
    """Parse a page."""
    page = Page()
    page.feed(html)
    page.close()
    return page


def words(text: str) -> str:
    """Text with its white space made single spaces."""
    return " ".join(text.split())
