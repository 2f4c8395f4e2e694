"""The page in a real browser: Chromium, headless, where it is installed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from roarline.artifacts.store import Artifact

_BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
_OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage", "--hide-scrollbars",
)  # fmt: skip

# Runs before the page's own script: collects its errors, and after loading tells the frame around it what it found.
_PROBE = """
<script>
const problems = [];
window.addEventListener("error", (event) => problems.push(event.message || event.target.outerHTML), true);
document.addEventListener("securitypolicyviolation", (event) => problems.push("refused: " + event.blockedURI));
window.addEventListener("load", () => {
  const click = document.querySelector("table.board thead th:nth-child(2) button");
  if (click) click.click();
  const overlay = document.getElementById("show-overlay");
  const frame = document.querySelector(".frame");
  frame.style.maxHeight = "15rem";
  frame.scrollTop = 1e4;
  const [named, box] = [frame.querySelector("thead th"), frame].map((element) => element.getBoundingClientRect());
  const hidden = getComputedStyle(document.querySelector(".tile .overlay")).display;
  overlay.checked = true;
  const found = {
    problems,
    width: document.documentElement.scrollWidth,
    window: window.innerWidth,
    pictures: [...document.images].map((image) => [image.alt, image.complete, image.naturalWidth, image.naturalHeight]),
    requests: performance.getEntriesByType("resource").map((entry) => entry.name),
    sorted: [...document.querySelectorAll("tbody.methods tr")].map((row) => Number(row.cells[1].dataset.value)),
    scrolled: frame.scrollTop,
    names: [box.top, named.top, named.bottom, box.bottom],
    hidden,
    shown: getComputedStyle(document.querySelector(".tile .overlay")).display,
  };
  parent.postMessage(JSON.stringify(found), "*");
});
</script>
"""

# A window of Chromium is at least 500 px wide, a frame may be as narrow as a phone.
_FRAME = """
<!doctype html>
<pre id="found"></pre>
<script>addEventListener("message", (event) => document.getElementById("found").textContent = event.data);</script>
<iframe src="page.html" width="%d" height="800" style="border: 0"></iframe>
"""

pytestmark = pytest.mark.skipif(_BROWSER is None, reason="needs Chromium, e.g. Debian's package chromium")


def _open(html: str, folder: Path, width: int) -> dict[str, Any]:
    """Open the page with the probe in it, in a frame of the given width in px, and return what the probe found."""
    folder.mkdir()
    (folder / "page.html").write_text(html.replace("<head>", "<head>" + _PROBE, 1), encoding="utf-8")
    (folder / "frame.html").write_text(_FRAME % width, encoding="utf-8")
    done = subprocess.run(
        [str(_BROWSER), *_OPTIONS, f"--user-data-dir={folder / 'profile'}", "--window-size=1400,900",
         "--virtual-time-budget=20000", "--dump-dom", (folder / "frame.html").as_uri()],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    match = re.search(r'<pre id="found">(.+?)</pre>', done.stdout, re.DOTALL)
    assert match is not None, f"the page did not load: {done.stderr[-2000:]}"
    found: dict[str, Any] = json.loads(unescape(match[1]))
    return found


@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_opens_without_errors_its_pictures_show_and_nothing_overflows(
    report: Artifact, tmp_path: Path, width: int
):
    found = _open(report.file("index.html").read_text(encoding="utf-8"), tmp_path / "browser", width)
    assert found["problems"] == []
    assert [address for address in found["requests"] if not address.startswith("data:")] == []
    assert len(found["pictures"]) > 30
    for alt, complete, natural_width, natural_height in found["pictures"]:
        assert alt
        assert complete
        assert natural_width > 0
        assert natural_height > 0
    assert found["window"] == width
    assert found["width"] <= found["window"]
    assert found["sorted"] == sorted(found["sorted"])
    assert (found["hidden"], found["shown"]) == ("none", "block")
    assert found["scrolled"] > 0
    assert found["names"] == sorted(found["names"])  # columns of a tall heat map keep their names in sight


def test_the_probe_sees_errors_missing_pictures_and_overflow(report: Artifact, tmp_path: Path):
    html = report.file("index.html").read_text(encoding="utf-8")
    broken = html.replace(
        "</main>", '<img src="data:image/png;base64,AAAA" alt="x"><script>nothing.at.all()</script></main>'
    )
    found = _open(broken, tmp_path / "broken", 1280)
    assert any("nothing is not defined" in problem for problem in found["problems"])
    assert ["x", True, 0, 0] in found["pictures"]
    assert found["width"] <= 1280
    wide = html.replace("</main>", '<div style="width: 1500px">wide</div></main>')
    assert _open(wide, tmp_path / "wide", 1280)["width"] > 1280
    outside = html.replace("</main>", '<img src="https://roarline.invalid/x.png" alt="y"></main>')
    assert any("refused: https://roarline.invalid" in p for p in _open(outside, tmp_path / "outside", 1280)["problems"])
