"""The model card and the EU summary: the Hub's metadata, and hostile words that stay words."""

import re
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.utils import validate_repo_id
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from tests.ship.sample import HOSTILE, account, digest
from tutelage.ship import words
from tutelage.ship.card import model_card
from tutelage.ship.student import ship
from tutelage.ship.summary import FILL_IN, eu_summary
from tutelage.ship.words import block, code, link, plain

PARSER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
INLINE = {"text", "code_inline", "strong_open", "strong_close", "link_open", "link_close", "text_special"}
WORDS = st.sampled_from(HOSTILE) | st.text() | st.text(alphabet="<>&[]()`*_|#-=+~!:/\\$@.w1 \n")


def front(card: str) -> dict[str, Any]:
    return ModelCard(card).data.to_dict()


def shape(markdown: str) -> list[tuple[str, str, int]]:
    return [(token.type, token.tag, token.level) for token in PARSER.parse(markdown)]


def harmless(markdown: str) -> None:
    """No tag, picture, emphasis or line break that the document did not make; links lead to the web alone."""
    for token in PARSER.parse(markdown):
        for child in token.children or ():
            assert child.type in INLINE, (child.type, token.content)
            assert child.type != "link_open" or re.fullmatch(r"https?://[\x21-\x7e]+", str(child.attrs["href"]))


def test_hub_metadata() -> None:
    said = front(model_card(account(), ()))
    assert (said["license"], said["pipeline_tag"], said["library_name"]) == (
        "apache-2.0",
        "text-generation",
        "transformers",
    )
    assert (said["base_model"], said["base_model_relation"]) == ("example/smol-base", "finetune")
    assert said["datasets"] == ["example/reviews"] and said["tags"] == ["distillation", "tutelage"]
    validate_repo_id(said["base_model"])
    assert isinstance(ModelCard(model_card(account(), ())).data, ModelCardData)
    smol, closed = said["distillation"]["teachers"]
    assert smol["roles"][0] == {"role": "soft-target", "examples": 70, "loss_tokens": 700, "share": "700 of 1000"}
    assert (closed["licence"], closed["weights"], closed["upstream"]) == (
        "not public",
        "not public",
        "unknown-upstream",
    )
    assert closed["terms"] == ["forbidden-for-competing"]
    assert said["distillation"]["record"]["root"] == digest("f")


@pytest.mark.parametrize(
    ("licence", "said"),
    [
        ("MIT", {"license": "mit"}),
        ("llama-3.1", {"license": "llama3.1"}),
        ("Gemma", {"license": "gemma"}),
        ("", {"license": "unknown"}),
        ("My Licence 2", {"license": "other", "license_name": "my-licence-2"}),
    ],
)
def test_licence_of_the_card(licence: str, said: dict[str, str]) -> None:
    made = front(model_card(account(lambda word: licence if word == "Apache-2.0" else word), ()))
    link = {"license_link": "https://licences.example/text"} if said["license"] == "other" else {}
    assert {name: made[name] for name in made if name.startswith("license")} == said | link


@pytest.mark.parametrize("url", ["", "https://example.org/x", "file:///tmp/x", "https://huggingface.co/datasets/a/b"])
def test_a_base_without_an_id_on_the_hub_is_named_in_the_block_alone(url: str) -> None:
    made = front(model_card(account(lambda word: url if word.endswith("/smol-base") else word), ()))
    assert "base_model" not in made and "base_model_relation" not in made
    assert made["distillation"]["base"]["name"] == "smol-base"


def test_body_says_what_it_must() -> None:
    card = model_card(account(), ("Built with Llama",))
    lines = card.split("\n---\n", 1)[1].strip().splitlines()
    assert lines[:3] == ["# film-student", "", "**Built with Llama**"]
    assert "| smol-teacher | soft-target | Apache-2.0 | 70 | 700 | 700 of 1000 |" in lines
    assert "```\nReview: {text}\nVerdict?\n```" in card and "INCONCLUSIVE" in card
    assert "Unknown is not zero." in card and "`tutelage verify`" in card
    early = model_card(type(account()).from_json(account().to_json() | {"weights": ""}), ())
    assert "These weights are" in card and "These weights are" not in early
    unsigned = model_card(account(proved=False), ())
    assert "without that file nobody did" in unsigned and "Not measured" in unsigned and "Built with" not in unsigned


@settings(deadline=None)
@given(WORDS)
def test_hostile_words_stay_words(word: str) -> None:
    card = model_card(account(lambda _: word), (word,))
    assert card.encode()
    said = ModelCard(card)
    block = said.data.to_dict()["distillation"]
    assert (block["teachers"][0]["name"], block["method"], block["data"]["name"]) == (word, word, word)
    assert said.data.to_dict().keys() <= {*front(model_card(account(), ())), "license_name", "license_link"}
    harmless(said.text)
    if plain(word):  # a paragraph without words is left out
        assert shape(said.text) == shape(ModelCard(model_card(account(lambda _: "word"), ("word",))).text)


@settings(deadline=None)
@given(WORDS)
def test_hostile_words_in_the_summary(word: str) -> None:
    made = eu_summary(account(lambda _: word))
    harmless(made)
    assert shape(made) == shape(eu_summary(account(lambda _: "word")))


@given(WORDS)
def test_plain_shows_every_letter_and_links_nothing(word: str) -> None:
    shown = PARSER.renderInline(plain(word))
    assert not re.search(r"<(?!/?$)", shown) and "://" not in plain(word) and "www." not in plain(word).lower()
    (inline,) = PARSER.parseInline(plain(word))
    text = "".join(child.content for child in inline.children or ())
    again = re.sub("⟨U\\+([0-9A-F]{4,6})⟩", lambda found: chr(int(found[1], 16)), text)
    assert "".join(again.split()) == "".join(word.split())


def test_code_holds_what_a_code_span_can() -> None:
    assert code("a <b> {c}") == "`a <b> {c}`"
    assert code("a `b") == "a \\`b" and code("a|b") == "a\\|b"
    assert code("") == ""
    assert block("a ``` b\n````").splitlines()[::3] == ["`````", "`````"]


@given(st.from_regex(words._WEB, fullmatch=True))
def test_links_lead_where_they_say(url: str) -> None:
    (inline,) = PARSER.parseInline(link("there", url))
    assert inline.children and inline.children[0].attrs["href"] == url
    assert link("a|b", url[:-1] + ">") == "a\\|b" and link("", "javascript:x") == ""


def test_summary_answers_the_template() -> None:
    made = eu_summary(account())
    assert "train the model? **Yes**" in made and "Modality of the synthetic data: **Text**" in made
    assert "| closed-1 | closed | api.example | not public | not public | text-target | 20 | 230 |" in made
    assert made.count(FILL_IN) >= 7
    asked = [row for row in account().to_json()["sources"] if row["route"] == "file"]
    alone = eu_summary(type(account()).from_json(account().to_json() | {"sources": asked}))
    assert "train the model? **No**" in alone and "Modality" not in alone


def test_front_matter_is_one_safe_yaml_document() -> None:
    text = model_card(account(lambda _: HOSTILE[0]), ()).split("---\n", 2)[1]
    assert yaml.safe_load(text)["distillation"]["method"] == HOSTILE[0]


def test_the_folder_is_written_whole(tmp_path) -> None:
    class Model:
        def save_pretrained(self, folder):
            folder.mkdir()
            (folder / "model.safetensors").write_bytes(b"weights")

    (tmp_path / "before").mkdir()
    (tmp_path / "before" / "tokenizer.json").write_text("{}")
    (tmp_path / "extras" / "licences").mkdir(parents=True)
    (tmp_path / "extras" / "licences" / "mit.txt").write_text("text")
    out = tmp_path / "student"
    out.mkdir()
    (out / "stale").write_text("x")
    ship(Model(), tmp_path / "before", "# card — ü\n", tmp_path / "extras", out)
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md", "licences", "model.safetensors", "tokenizer.json",
    ]  # fmt: skip
    assert (out / "README.md").read_text(encoding="utf-8") == "# card — ü\n"
    assert {path.stat().st_mode & 0o777 for path in out.rglob("*") if path.is_file()} == {0o644}
    assert not out.with_name("student.new").exists()
