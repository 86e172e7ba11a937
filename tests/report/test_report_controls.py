"""The page and the tables on controls: the missing ones in the verdict, agreement beside its ceiling, what was served."""

import json

import pytest

from tests.report.test_report import SAMPLE, Page, lines, read_axis
from tutelage.report import plots, words
from tutelage.report.build import build_report
from tutelage.report.tables import markdown_table, result_table


@pytest.fixture
def evidence() -> dict:
    return json.loads(SAMPLE.read_text(encoding="utf-8"))


def test_missing_controls_are_named_in_the_verdict(evidence):
    html, plain, markdown = build_report(evidence), result_table(evidence), markdown_table(evidence)
    first_screen = Page(html[: html.index('<nav aria-label="On this page">')] + "</main></body></html>").text
    for missing in evidence["missing_controls"]:
        assert missing in first_screen and missing in " ".join(plain.split()) and missing in markdown
    assert "<title>EQUIVALENT (controls missing)" in html
    assert "Without these controls:" in first_screen
    evidence["claims"][0]["missing_controls"] = []
    html = build_report(evidence)
    assert "<title>EQUIVALENT ·" in html and "Without these controls" not in html
    assert "without" not in result_table(evidence) and "without:" not in markdown_table(evidence)


def test_agreement_stands_beside_its_ceiling(evidence):
    html = build_report(evidence)
    first_screen = Page(html[: html.index('<nav aria-label="On this page">')] + "</main></body></html>").text
    itself = "98.5 % (96.8 to 99.3; n 400)"
    assert f"agrees with the teacher on 93.1 %; the teacher with itself: {itself}" in first_screen
    assert f"teacher with itself {itself}" in " ".join(result_table(evidence).split())
    evidence["ceiling"] = evidence["checkpoint"] = None
    text = Page(build_report(evidence)).text
    assert "— the teacher was not asked again" in text and "served against trained: — not compared" in text


def test_what_was_served_is_held_against_what_was_trained(evidence):
    said = "1 of 200 decisions differ (at most 2.8 %); largest difference of a label's log-probability 0.084 nats"
    assert said in Page(build_report(evidence)).text and said in " ".join(result_table(evidence).split())


def test_recalibration_says_what_is_left_or_why_not(evidence):
    text = Page(build_report(evidence)).text
    assert "0.028 0.019 at T 1.2" in text
    assert "Before training: not recalibrated: on these 60 items the scores of the right label" in text


def test_the_margin_picture_of_an_equivalence_has_both_edges(evidence):
    svg = plots.margin_chart(evidence["claims"][0])
    axis = read_axis(svg, [(f"{words.MINUS}2", -0.02), ("+2", 0.02)])
    places = [edge[0] for edge in lines(svg, "edge")]
    assert places == [pytest.approx(axis(-0.03), abs=0.15), pytest.approx(axis(0.03), abs=0.15)]
    ((_, _, high, _),) = lines(svg, "interval i-student")
    assert high == pytest.approx(axis(0.006), abs=0.15)
