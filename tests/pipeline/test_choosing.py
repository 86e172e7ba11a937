"""The method by access: every row of the table, what is refused with what instead, and that every method named can be run."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.models.tiny import save_tiny
from tests.pipeline.test_training import RUN_FILE, write_talks
from tutelage.errors import ConfigError, TutelageError
from tutelage.losses.catalogue import ENTRIES
from tutelage.pipeline.choosing import (
    Access,
    Task,
    Tokens,
    choose,
    nearest,
    need_of,
    problem_of,
    require_supported,
    table_rows,
)
from tutelage.pipeline.plan_training import _vocabulary, describe_training, plan_training, require_tokens, tokens_of
from tutelage.run_file import load_training_config
from tutelage.signals import Dense, Scored, Sparse, Text, TopK

CELLS = [(access, tokens, task, k) for access in Access for tokens in Tokens for task in Task for k in (0, 20)]


@pytest.mark.parametrize(
    ("access", "tokens", "k", "off", "on"),
    [
        (Access.TEXT, Tokens.SAME, 0, "cross-entropy", "dpo"),
        (Access.TEXT, Tokens.OTHER, 0, "cross-entropy", "dpo"),
        (Access.TOP_K, Tokens.OTHER, 0, "alm", "dpo"),
        (Access.SCORES, Tokens.SAME, 1, "cross-entropy", "sampled-reverse-kl"),
        (Access.SCORES, Tokens.SAME, 20, "top-k-forward-kl", "top-k-reverse-kl"),
        (Access.SCORES, Tokens.OTHER, 20, "cross-entropy", "dpo"),
        (Access.SCORES, Tokens.UNKNOWN, 20, "cross-entropy", "dpo"),
        (Access.FULL, Tokens.SAME, 0, "forward-kl", "reverse-kl"),
        (Access.FULL, Tokens.OTHER, 0, "alm", "alm"),
        (Access.FULL, Tokens.UNKNOWN, 0, "alm", "alm"),
    ],
)
def test_each_row(access: Access, tokens: Tokens, k: int, off: str, on: str) -> None:
    found = choose(access, tokens, scored_k=k)
    assert found.on_policy is not None
    assert f'loss = "{off}"' in found.off_policy.keys and f'loss = "{on}"' in found.on_policy.keys
    assert found.why and (found.more or access is Access.FULL)


@pytest.mark.parametrize(("access", "tokens", "task", "k"), CELLS)
def test_what_is_chosen_can_be_run_and_the_access_supports_it(
    access: Access, tokens: Tokens, task: Task, k: int
) -> None:
    found = choose(access, tokens, task, k)
    for way in filter(None, (found.off_policy, found.on_policy)):
        losses = re.findall(r'loss = "([^"]+)"', way.keys)
        assert losses or way.keys.startswith("`tutelage run`")
        for loss in losses:
            assert loss in ENTRIES
            assert not problem_of(loss, access, tokens)


def test_needs_follow_from_what_the_losses_of_the_catalogue_take() -> None:
    expected = {Dense: Access.FULL, Sparse: Access.FULL, TopK: Access.SCORES, Scored: Access.SCORES, Text: Access.TEXT}
    for name, entry in ENTRIES.items():
        if entry.takes in expected:
            need = need_of(name)
            assert need.access is expected[entry.takes], name
            assert need.same_tokens is (entry.takes is not Text), name


@pytest.mark.parametrize("loss", list(ENTRIES))
@pytest.mark.parametrize("access", list(Access))
@pytest.mark.parametrize("tokens", list(Tokens))
def test_the_nearest_is_always_supported(loss: str, access: Access, tokens: Tokens) -> None:
    for k in (1, 20):
        near = re.findall(r'loss = "([^"]+)"', nearest(loss, access, tokens, k).keys)
        assert near and not any(problem_of(one, access, tokens) for one in near)
        if problem_of(loss, access, tokens):
            with pytest.raises(ConfigError, match="nearest to it"):
                require_supported(loss, access, tokens, k)
        else:
            require_supported(loss, access, tokens, k)


def test_the_page_has_the_table() -> None:
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    for row in table_rows():
        assert f"| {' | '.join(row)} |" in page


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    path = tmp_path / "run.toml"
    teacher = save_tiny(tmp_path / "teacher")
    path.write_text(RUN_FILE.format(data=write_talks(tmp_path / "talks.jsonl"), teacher=teacher))
    return path


def test_a_plan_says_access_method_and_choice(run_file: Path) -> None:
    config = load_training_config(run_file, {"method.loss": "reverse-kl"})
    assert tokens_of(config) is Tokens.SAME
    found = plan_training(config, "2026-11-29")
    words = describe_training(found)
    assert found["permitted"] and found["supervision"]["enough"]
    assert "your access: its whole distribution" in words and 'you chose: loss = "reverse-kl", prefix = "data"' in words
    assert 'method: loss = "forward-kl"' in words


def test_a_plan_refuses_what_the_access_cannot_support(run_file: Path, tmp_path: Path) -> None:
    text = run_file.read_text()
    start, end = text.index("[teacher]"), text.index("[student]")
    far = tmp_path / "far.toml"
    table = '[teacher]\nurl = "http://127.0.0.1:9/v1"\nmodel = "nobody"\nlicence = "Apache-2.0"\n'
    far.write_text(text[:start] + table + text[end:])
    changed: dict[str, Any] = {"method.loss": "reverse-kl", "method.prefix": "student"}
    found = plan_training(load_training_config(far, changed), "2026-11-29")
    assert not found["supervision"]["enough"]
    assert 'nearest to it: loss = "top-k-reverse-kl"' in describe_training(found)
    other = save_tiny(tmp_path / "other")
    vocabulary = other / "tokenizer.json"
    vocabulary.write_text(vocabulary.read_text().replace('"good"', '"goot"').replace('"film"', '"fill"'))
    again = plan_training(load_training_config(run_file, {"student.path": str(other)}), "2026-11-29")
    assert (again["tokenizer"] == str(Tokens.OTHER)) is bool(again["problem"])


MISFITS: dict[str, tuple[dict[str, Any], str]] = {
    "recorded answers and weights": (
        {"method.loss": "alm", "method.signal": "recorded"},
        'leave out signal = "recorded"',
    ),
    "a value out of range": ({"method.loss": "jsd", "method.beta": 1.5}, "beta"),
    "no such data": ({"data.path": "nowhere.jsonl"}, "nowhere.jsonl"),
}


@pytest.mark.parametrize("name", MISFITS)
def test_a_plan_refuses_what_training_would(run_file: Path, name: str) -> None:
    changes, words = MISFITS[name]
    with pytest.raises(TutelageError) as raised:
        plan_training(load_training_config(run_file, changes), "2026-11-29")
    assert words in f"{raised.value.message} {raised.value.fix}"


def test_a_plan_counts_conversations_and_says_on_what_conditions(run_file: Path, tmp_path: Path) -> None:
    found = plan_training(load_training_config(run_file, {}), "2026-11-29")
    assert found["conversations"] == len((tmp_path / "talks.jsonl").read_text().splitlines())
    assert (
        "conditional for internal, if: Whoever runs this declares to hold the rights in the data"
        in describe_training(found)
    )
    gemma = {"teacher": {"resource": "gemma-3-270m"}, "student": {"base": "smollm2-135m-instruct"}}
    text = run_file.read_text()
    other = tmp_path / "other.toml"
    other.write_text(text[: text.index("[teacher]")] + text[text.index("[method]") :])
    found = plan_training(load_training_config(other, {**gemma, "method.loss": "alm"}), "2026-11-29")
    assert (
        "if: A student made similar through the outputs is recorded as a Gemma Model Derivative"
        in describe_training(found)
    )
    assert found["tokenizer"] == str(Tokens.OTHER) and not found["problem"]
    with pytest.raises(ConfigError, match="another tokenizer"):
        require_tokens(load_training_config(other, {**gemma, "method.loss": "forward-kl"}))


def test_fewer_tokens_that_are_all_the_teachers_are_no_other_tokenizer(run_file: Path, tmp_path: Path) -> None:
    student = save_tiny(tmp_path / "student")
    file = student / "tokenizer.json"
    value = json.loads(file.read_bytes())
    value["model"]["vocab"] = dict(list(value["model"]["vocab"].items())[:-3])
    file.write_text(json.dumps(value))
    assert tokens_of(load_training_config(run_file, {"student.path": str(student)})) is Tokens.UNKNOWN


def test_a_resource_has_not_the_tokens_of_the_folder_one_stands_in(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "tokenizer.json").write_text('{"model": {"vocab": {"a": 0}}}')
    monkeypatch.chdir(tmp_path)
    assert _vocabulary(".") == {"a": 0} and _vocabulary(None) is None
