"""The page: the summary's numbers, everything inside the file, nothing executed from names."""

from __future__ import annotations

import base64
import io
import re

import pytest
from PIL import Image

from roarline.artifacts.files import read_json
from roarline.artifacts.store import Artifact
from roarline.report.formatting import difference_text, interval_text, score_text
from roarline.report.page import breakable, rich, shades
from roarline.report.palette import diverging_colour
from tests.report.make_experiment import Recipe, summary_columns
from tests.report.read_page import read_page, words


@pytest.fixture(scope="module")
def html(report: Artifact) -> str:
    """The default experiment's page."""
    return report.file("index.html").read_text(encoding="utf-8")


def test_every_cell_of_the_leaderboard_is_the_summarys_row(html: str, recipe: Recipe):
    columns = summary_columns(recipe)
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    overall = {(row["method"], row["metric"]): row for row in rows if "removed_fraction" not in row["setting"]}
    (table,) = [rows for name, rows in read_page(html).tables if "board" in name]
    metrics = [
        "roar_accuracy", "roar_leakage", "kar_accuracy", "kar_leakage", "morf", "lerf", "srg", "insertion", "deletion",
    ]  # fmt: skip
    seen = 0
    for line in table[1:]:
        name = re.split(r"mean rank", words(line[0].text))[0].strip()
        if len(line) == 1:
            continue  # the divider
        for metric, cell in zip(metrics, line[1:], strict=True):
            row = overall[name, metric]
            assert cell.value is not None
            assert float(cell.value) == row["value"]
            text = words(cell.text)
            assert text.startswith(score_text(metric, row["value"]))
            assert interval_text(metric, row["ci_low"], row["ci_high"]) in text
            assert (f"#{row['rank']}" in text) == (row["rank"] is not None)
            assert ("best" in cell.classes) == (row["rank"] == 1)
            if row["difference_to_random"] is not None:
                assert difference_text(metric, row["difference_to_random"]) in text
                assert interval_text(metric, row["difference_ci_low"], row["difference_ci_high"]) in text
            expected = {"better": "▲", "worse": "▼"}.get(recipe.verdicts.get((metric, name), ""), "≈")
            assert (expected in text) == (name != "random" and not metric.endswith("leakage"))
            seen += 1
    assert seen == 4 * 9


def test_all_rows_of_the_summary_are_listed(html: str, recipe: Recipe):
    columns = summary_columns(recipe)
    tables = [rows for _, rows in read_page(html).tables if any("Δ to random" in cell.text for cell in rows[0])]
    assert len(tables[0]) - 1 == len(columns["method"])
    for line, method, metric, value in zip(
        tables[0][1:], columns["method"], columns["metric"], columns["value"], strict=True
    ):
        assert [line[index].text.strip() for index in (0, 1, 3)] == [method, metric, score_text(metric, value)]


def test_baselines_stand_apart(html: str):
    (table,) = [rows for name, rows in read_page(html).tables if "board" in name]
    names = [words(line[0].text).split(" mean rank")[0] for line in table[1:]]
    divider = next(index for index, line in enumerate(table[1:]) if len(line) == 1)
    assert set(names[:divider]) == {"integrated_gradients", "gradient"}
    assert set(names[divider + 1 :]) == {"sobel", "random"}


def test_nothing_is_loaded_from_elsewhere(html: str):
    page = read_page(html)
    assert page.resources
    assert all(address.startswith("data:") for _, address in page.resources)
    assert not re.search(r"@import|url\((?!#plot-)|fetch\(|XMLHttpRequest|WebSocket", html)
    assert "default-src 'none'" in html


def test_every_picture_can_be_decoded(html: str):
    pictures = [address for tag, address in read_page(html).resources if tag == "img"]
    kinds = set()
    for address in pictures:
        head, _, data = address.partition(",")
        kinds.add(head)
        Image.open(io.BytesIO(base64.b64decode(data, validate=True))).verify()
    assert kinds == {"data:image/png;base64"}
    assert html.count('<svg class="plot" role="img"') > 5


def test_the_page_has_a_part_for_everything(html: str):
    text = words(read_page(html).text)
    for heading in ("Leaderboard", "What this means", "ROAR: remove and retrain", "KAR: keep and retrain",
                    "Without retraining", "Gallery", "The classifier", "Failures", "What was run"):  # fmt: skip
        assert heading in text
    assert "0123456789ab" in text  # the commit
    assert "2.12.1" in text
    assert "CPU, test" in text
    assert "87.5 %" in text  # the classifier's test accuracy
    assert "None: every one of the" in text


def test_the_gallery_has_every_method_for_every_image(html: str, report: Artifact, recipe: Recipe):
    content = read_json(report.file("report.json"))
    assert len(content["gallery"]) == recipe.gallery_images
    for item in content["gallery"]:
        assert [tile["method"] for tile in item["tiles"]] == list(recipe.methods)
        assert html.count(f"{item['sample_id']}") >= 1 + 3 * len(recipe.methods)
    assert len({item["labels"][0] for item in content["gallery"]}) == 4


def test_sentences_are_escaped_before_they_are_marked_up():
    assert rich("`<b>` & arXiv 1806.10758") == (
        '<code>&lt;b&gt;</code> &amp; <a href="https://arxiv.org/abs/1806.10758">arXiv&nbsp;1806.10758</a>'
    )
    assert breakable("a_<b>") == "a_<wbr>&lt;b&gt;"


def test_a_heat_map_has_a_rule_for_each_shade_of_hundredths():
    assert shades([[1.0, -0.25], [None, 0.999]]) == [(75, *diverging_colour(-0.25)), (200, *diverging_colour(1.0))]
