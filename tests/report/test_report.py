"""The page and the tables: hostile text stays text, nulls say why, pictures put intervals where they belong."""

import copy
import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from tutelage.errors import DataError, StorageError
from tutelage.records import Decision
from tutelage.report import plots, price_plots, words
from tutelage.report.build import build_report, web_link, write_report
from tutelage.report.shape import SHAPE, MapOf, Maybe
from tutelage.report.svg import Scale, log_ticks, ticks
from tutelage.report.tables import markdown_table, result_table

SAMPLE = Path(__file__).with_name("sample_evidence.json")

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</script><script>alert(1)</script><!--",
    "'onmouseover='alert(1)' style='background:url(https://evil.example/x)",
    "\u202egnp.exe\u2066 \u200b\x1b[31m\x00\u2028\ud800",
    "https://evil.example/?q=" + "w" * 900,
    "javascript:alert(1)",
    "{{ 7 * 7 }}{% raw %}",
)
VOID = {"meta", "br", "hr", "img", "input", "link", "wbr"}


@pytest.fixture
def evidence() -> dict:
    return json.loads(SAMPLE.read_text(encoding="utf-8"))


class Page(HTMLParser):
    """Elements with their attributes, text, and whether every element was closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.scripts: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"{tag} closes nothing"

    def handle_data(self, data):
        inside = self.open[-1] if self.open else ""
        if inside == "script":
            self.scripts.append(data)
        elif inside != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).replace(words.NBSP, " ").split())


def poisoned(value, kind, poison):
    """`value` with `poison` in every text field and every free name, except verdicts (an enumeration)."""
    if isinstance(kind, Maybe):
        return value if value is None else poisoned(value, kind.kind, poison)
    if isinstance(kind, MapOf):
        return {poison: poisoned(next(iter(value.values())), kind.kind, poison)}
    if isinstance(kind, dict):
        return value | {name: poisoned(value[name], inner, poison) for name, inner in kind.items()}
    if isinstance(kind, list):
        return [poisoned(item, kind[0], poison) for item in value]
    return poison if kind is str else value


def spread(kind, value):
    """Every path to a field that may be null."""
    if isinstance(kind, Maybe):
        yield ()
    elif isinstance(kind, dict):
        for name, inner in kind.items():
            yield from ((name, *rest) for rest in spread(inner, value[name]))
    elif isinstance(kind, list):
        for index, item in enumerate(value):
            yield from ((index, *rest) for rest in spread(kind[0], item))


def set_at(evidence, path, value):
    for step in path[:-1]:
        evidence = evidence[step]
    evidence[path[-1]] = value


def assert_inert(html: str) -> Page:
    page = Page(html)
    assert page.open == []
    scripts = [attrs for tag, attrs in page.elements if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "evidence"}]
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"img", "iframe", "object", "embed", "link", "base", "form", "input", "image", "use"}
    for tag, attrs in page.elements:
        assert not [name for name in attrs if name.startswith("on") or name in ("src", "srcset", "style", "xlink:href")]
        address = attrs.get("href")
        if address is not None and not address.startswith("#"):
            assert tag == "a" and address.startswith("https://") and attrs["rel"] == "noreferrer"
    for style in re.findall(r"<style>(.*?)</style>", html, re.DOTALL):
        assert "url(" not in style and "@import" not in style
    return page


def test_sample_page_is_whole_small_and_inert(evidence):
    html = build_report(evidence)
    page = assert_inert(html)
    assert len(html.encode()) < 200_000
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in html
    assert json.loads("".join(page.scripts)) == evidence
    assert words.sentence(evidence["claims"][0]).replace(words.NBSP, " ") in page.text
    for said in ("17.8 ×", "pays for itself after 8,776 queries", "allowed with conditions", "§ 3(b)", "once"):
        assert said in page.text
    for note in evidence["notes"]:
        assert note in page.text


def test_page_is_accessible(evidence):
    page = Page(build_report(evidence))
    tags = [tag for tag, _ in page.elements]
    assert {"main", "header", "footer", "nav"} <= set(tags)
    levels = [int(tag[1]) for tag in tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert tags.count("table") == tags.count("caption")
    assert all("scope" in attrs for tag, attrs in page.elements if tag == "th")
    identities = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(identities) == len(set(identities))
    for _, attrs in page.elements:
        for name in ("aria-labelledby", "href"):
            for target in attrs.get(name, "").split():
                assert not target or target.startswith("https:") or target.lstrip("#") in identities
    pictures = [attrs for tag, attrs in page.elements if tag == "svg" and "aria-hidden" not in attrs]
    assert len(pictures) == 5 and all(attrs["role"] == "img" for attrs in pictures)
    assert tags.count("desc") == 5


@pytest.mark.parametrize("poison", HOSTILE)
def test_hostile_text_stays_text(evidence, poison):
    bad = poisoned(evidence, SHAPE, poison)
    for claim in bad["claims"]:
        claim["verdict"] = "INCONCLUSIVE"
    html = build_report(bad)
    page = assert_inert(html)
    assert json.loads("".join(page.scripts)) == bad
    assert not words._UNSEEN.search(html)
    assert " ".join(words.visible(poison).split()) in page.text
    html.encode("utf-8")
    plain = result_table(bad)
    assert not words._UNSEEN.search(plain) and max(map(len, plain.splitlines())) <= 100
    assert "<" not in markdown_table(bad)


def test_hostile_roles_and_labels_stay_inside_pictures(evidence):
    for system in evidence["systems"]:
        system["role"] = system["role"] if system["role"] in ("teacher", "student") else "</text><script>1</script>"
        system["label"] = "]]></desc><script>1</script>"
    html = build_report(evidence)
    assert html.count("<script") == 1
    assert_inert(html)


def test_accepted_risks_warnings_and_what_is_inherited_are_shown(evidence):
    html = build_report(evidence)
    text, plain = Page(html).text, result_table(evidence)
    said = "risk accepted by A. Person: counsel approved it (for this invented report)"
    heading = "A person accepted what the terms do not cover"
    assert text.count(said) == 2 and said in plain
    assert html.index(heading) < html.index('<nav aria-label="On this page">') < html.rindex("counsel approved it")
    for words_ in ("unknown, risk accepted", "inherited: an older model (teacher of imaginary-base)"):
        assert words_ in text and words_ in plain
    for warning in (warning for term in evidence["terms"] for warning in term["warnings"]):
        assert warning in text and warning in " ".join(plain.split())
    assert "checked on ," not in text and "(, )" not in text + plain
    for term in evidence["terms"]:
        term["accepted_risks"] = []
    assert heading not in build_report(evidence) and "risk accepted" not in Page(build_report(evidence)).text


def test_embedded_evidence_cannot_end_its_element(evidence):
    evidence["notes"] = ["</script><!--<script>\u2028\u2029&amp;"]
    raw = "".join(Page(build_report(evidence)).scripts)
    assert not set("<>&\u2028\u2029") & set(raw)
    assert json.loads(raw)["notes"] == evidence["notes"]


@pytest.mark.parametrize("verdict", list(map(str, Decision)))
def test_every_verdict_is_a_word_and_a_meaning(evidence, verdict):
    evidence["claims"][0]["verdict"] = verdict
    text = Page(build_report(evidence)).text
    assert verdict in text and words.VERDICTS[verdict] in text
    assert verdict in result_table(evidence) and verdict in markdown_table(evidence)


def test_every_null_says_why(evidence):
    for path in spread(SHAPE, evidence):
        one = copy.deepcopy(evidence)
        set_at(one, path, None)
        assert "None" not in Page(build_report(one)).text, path
        assert "None" not in result_table(one) + markdown_table(one), path
    for path in list(spread(SHAPE, evidence)):
        set_at(evidence, path, None)
    text = assert_inert(build_report(evidence)).text
    assert f"— not given: {evidence['claims'][0]['gap_method']}" in text
    assert f"— no break-even: {evidence['cost']['break_even_basis']}" in text
    for reason in ("— is the reference", "— no model answer", "— not measured", "nothing to draw", "not measured here"):
        assert reason in text
    assert "— no break-even" in result_table(evidence)


def test_empty_lists_are_said(evidence):
    for name in ("disagreements", "drops", "terms", "notes"):
        evidence[name] = []
    evidence["training"] |= {"curve": [], "loss_tokens": {}}
    evidence["provenance"] |= {"sources": [], "proves": [], "does_not_prove": []}
    evidence |= {"wall_s": {}, "versions": {}, "seeds": {}, "hardware": {}}
    text = assert_inert(build_report(evidence)).text
    for said in ("lists no disagreement", "nothing was dropped", "unknown is never allowed", "no training curve"):
        assert said in text


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("claims", 0, "ci_low"), None),
        (("claims", 0, "n"), 4500.5),
        (("claims", 0, "verdict"), "SUPERB"),
        (("claims", 0, "power"), float("nan")),
        (("systems", 1, "accuracy"), "0.8"),
        (("cost", "cpu_ratio"), True),
        (("schema_version",), 1),
        (("controls", 0, "there"), 1),
        (("ceiling", "n"), None),
        (("claims", 0, "missing_controls"), None),
        (("claims",), []),
        (("run",), []),
    ],
)
def test_wrong_evidence_is_refused_by_path(evidence, path, value):
    set_at(evidence, path, value)
    with pytest.raises(DataError, match=str(path[-1])):
        build_report(evidence)


def test_a_missing_field_is_named(evidence):
    del evidence["looks"]["what_counts"]
    with pytest.raises(DataError, match=r"evidence\.looks\.what_counts is missing"):
        result_table(evidence)


def test_write_report(tmp_path, evidence):
    out = tmp_path / "new" / "report.html"
    write_report(SAMPLE, out)
    assert out.read_text(encoding="utf-8") == build_report(evidence)
    assert [item.name for item in out.parent.iterdir()] == ["report.html"]
    with pytest.raises(StorageError):
        write_report(tmp_path / "absent.json", out)
    (tmp_path / "broken.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match="not JSON"):
        write_report(tmp_path / "broken.json", out)


def lines(svg: str, css: str) -> list[tuple[float, ...]]:
    found = re.findall(r'<line x1="([^"]+)" y1="([^"]+)" x2="([^"]+)" y2="([^"]+)" class="([^"]+)"/>', svg)
    return [tuple(map(float, numbers)) for *numbers, kind in found if kind == css]


def read_axis(svg: str, marks: list[tuple[str, float]]) -> Scale:
    """The value-to-pixel map read back from two printed tick labels, independent of the code that drew them."""
    places = [
        (value, float(re.search(rf'<text x="([^"]+)" [^>]*>{re.escape(label)}</text>', svg)[1]))
        for label, value in marks
    ]
    (low, start), (high, end) = places
    return Scale(low, high, start, end)


def test_the_margin_picture_names_the_claims_metric(evidence):
    svg = plots.margin_chart(evidence["claims"][0] | {"metric": "win rate"})
    assert "percentage points of win rate" in svg and "accuracy" not in svg


def test_margin_picture_puts_interval_and_lines_where_the_axis_says(evidence):
    claim = evidence["claims"][0] | {"verdict": "NON-INFERIOR"}
    svg = plots.margin_chart(claim)
    axis = read_axis(svg, [(f"{words.MINUS}3.0", -0.03), ("0.0", 0.0)])
    ((low, _, high, _),) = lines(svg, "interval i-student")
    assert low == pytest.approx(axis(-0.018), abs=0.15) and high == pytest.approx(axis(0.006), abs=0.15)
    assert lines(svg, "zero")[0][0] == pytest.approx(axis(0), abs=0.15)
    assert [edge[0] for edge in lines(svg, "edge")] == [pytest.approx(axis(-0.03), abs=0.15)]


def test_accuracy_picture_puts_intervals_where_the_axis_says(evidence):
    svg = plots.accuracy_chart(evidence["systems"])
    axis = read_axis(svg, [(f"50{words.NBSP}%", 0.5), (f"80{words.NBSP}%", 0.8)])
    ((low, y, high, _),) = lines(svg, "interval i-student")
    assert low == pytest.approx(axis(0.817), abs=0.15) and high == pytest.approx(axis(0.839), abs=0.15)
    assert y == pytest.approx(lines(svg, "interval i-teacher")[0][1] + 46)


def test_pictures_refuse_to_draw_nothing(evidence):
    with pytest.raises(ValueError, match="systems"):
        plots.accuracy_chart([])
    with pytest.raises(ValueError, match="curve"):
        plots.training_chart(evidence["training"] | {"curve": []})
    with pytest.raises(ValueError, match="CPU"):
        price_plots.price_chart([system | {"cpu_s_per_query": None} for system in evidence["systems"]])
    with pytest.raises(ValueError, match="bins"):
        plots.reliability_chart([system | {"reliability": []} for system in evidence["systems"]])


def test_pictures_survive_flat_data(evidence):
    flat = {"accuracy": 0.5, "ci_low": 0.5, "ci_high": 0.5, "cpu_s_per_query": 0.1}
    systems = [system | flat for system in evidence["systems"]]
    point = evidence["training"]["curve"][0]
    training = evidence["training"] | {"curve": [point], "chosen_step": 0}
    claim = evidence["claims"][0] | {"difference": 0.0, "ci_low": 0.0, "ci_high": 0.0, "margin": 0.0}
    for svg in (
        plots.accuracy_chart(systems),
        price_plots.price_chart(systems),
        plots.training_chart(training),
        plots.margin_chart(claim),
    ):
        assert "nan" not in svg and "inf" not in svg.lower().replace("inferior", "")


def test_result_table_fits_a_terminal(evidence):
    table = result_table(evidence)
    assert max(map(len, table.splitlines())) <= 100
    student = next(line for line in table.splitlines() if line.startswith("Student"))
    assert "4,500" in student and "[81.7 to 83.9]" in student and "[−1.8 to +0.6]" in student
    assert words.NBSP not in table
    for system in evidence["systems"]:
        system["n"] = 12_345_678
    rows = [line for line in result_table(evidence).splitlines() if "12,345,678" in line]
    assert len(rows) == 5 and max(map(len, rows)) <= 100


def test_markdown_table_has_a_row_a_system(evidence):
    rows = [line for line in markdown_table(evidence).splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(evidence["systems"])
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1
    evidence["systems"][0]["role"] = "a|b`<i>"
    assert r"a\|b\`&lt;i&gt;" in markdown_table(evidence)


def test_words():
    assert words.points(-0.0004) == "0.0" and words.points(0.006) == "+0.6" and words.points(-0.018) == "−1.8"
    assert words.percent(0.828) == "82.8\u00a0%" and words.plain_points(0.025) == "2.5"
    assert [words.number(value) for value in (0, 0.00214, 1.236, 12.36, 1240.4, 0.9996)] == [
        "0",
        "0.00214",
        "1.24",
        "12.4",
        "1,240",
        "1.00",
    ]
    assert [words.duration(value).replace(words.NBSP, " ") for value in (0.42, 75, 725, 7380)] == [
        "0.42 s",
        "75 s",
        "12 min 5 s",
        "2 h 3 min",
    ]
    assert words.price({"student_cpu_s_per_query": 2.0, "teacher_cpu_s_per_query": 1.0, "cpu_ratio": 0.5}).startswith(
        "not cheaper"
    )


def test_ticks():
    assert ticks(0.47, 0.86) == [0.5, 0.6, 0.7, 0.8]
    assert log_ticks(0.03, 0.6) == [0.05, 0.1, 0.2, 0.5]


@pytest.mark.parametrize(
    "address",
    [
        "javascript:alert(1)",
        "http://plain.example",
        "https://",
        "https://user@evil.example",
        "https://a b",
        'https://x"onerror',
        "//evil.example",
        "https://[",
        "https://x/\u202e",
    ],
)
def test_only_plain_https_becomes_a_link(address):
    assert web_link(address) == ""
    assert web_link("https://terms.example/a?b=c&d#e") == "https://terms.example/a?b=c&d#e"
