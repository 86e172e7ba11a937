from datetime import date
from pathlib import Path

import pytest

from tutelage.config import RunConfig
from tutelage.errors import ConfigError
from tutelage.run_file import load_collect_config, load_config, validate
from tutelage.training_config import TrainingConfig

GOOD = {
    "run": {"name": "x", "seed": 1, "purpose": "internal"},
    "task": {"labels": ["no", "yes"], "instruction": "?"},
    "data": {"path": "x.csv", "licence": "own", "gold": "g", "train": 10, "held_out": 5, "validation": 2},
    "teacher": {"url": "http://127.0.0.1:1/v1"},
    "student": {"base": "smollm2-135m-instruct", "layers": 2},
    "train": {"epochs": 1},
    "claim": {"margin": 0.05},
}


def changed(dotted: str, value: object) -> dict:
    table, key = dotted.split(".")
    return {**GOOD, table: {**GOOD[table], key: value}}


def test_defaults_are_the_recipe_and_a_budget_exists() -> None:
    config = validate(RunConfig, GOOD, "here")
    assert config.budget.max_cost_usd == 3.0
    assert config.task.declared_shares == (0.5, 0.5)
    assert RunConfig.model_validate(config.resolved()) == config


@pytest.mark.parametrize(
    ("dotted", "value", "message"),
    [
        ("task.labels", ["a"], "at least 2"),
        ("task.labels", ["a", "a"], "repeat"),
        ("task.labels", [str(n) for n in range(21)], "at most 20"),
        ("task.labels", ["", "a"], "empty"),
        ("task.labels", [" yes", "no"], "white space"),
        ("task.labels", ["Yes", "yes"], "repeat"),
        ("task.labels", ["no", "none"], "begins label"),
        ("data.gold_labels", {"no": "< x", "yes": "> 0"}, "no number"),
        ("data.gold_labels", {"no": "about 3", "yes": "> 0"}, "no rule"),
        ("teacher.url", "http://me:secret@host/v1", "api_key_env"),
        ("train.epochs", float("inf"), "finite"),
        ("task.question", "no place", "{text}"),
        ("task.examples", [{"text": "t", "label": "maybe"}], "maybe"),
        ("task.shares", [0.5, 0.6], "sum to 1"),
        ("data.resource", "film-review-sentences", "exactly one"),
        ("data.validation", 10, "must be smaller"),
        ("data.licence", None, "under which licence"),
        ("teacher.url", "127.0.0.1:1", "http"),
        ("teacher.resource", "smollm2-135m-instruct", "exactly one"),
        ("teacher.top_logprobs", 129, "128"),
        ("student.path", "x", "exactly one"),
        ("claim.margin", 0, "greater than 0"),
        ("claim.margin", -0.05, "greater than 0"),
        ("claim.margin", 1.5, "less than 1"),
        ("run.name", "../x", "run.name"),
        ("train.epochs", 0, "greater than 0"),
        ("budget.max_cost_usd", -1, "greater than or equal"),
    ],
)
def test_wrong_values_are_named(dotted: str, value: object, message: str) -> None:
    tables = {**GOOD, "budget": {}}
    table, key = dotted.split(".")
    with pytest.raises(ConfigError) as caught:
        validate(RunConfig, {**tables, table: {**tables[table], key: value}}, "here")
    assert message in caught.value.message
    assert table in caught.value.message


@pytest.mark.parametrize(
    ("dotted", "near"),
    [("train.epoch", "epochs"), ("teacher.modle", "model"), ("claim.margn", "margin"), ("data.heldout", "held_out")],
)
def test_unknown_keys_have_a_did_you_mean(dotted: str, near: str) -> None:
    with pytest.raises(ConfigError, match=rf"unknown key {dotted} \(did you mean {near}\?\)"):
        validate(RunConfig, changed(dotted, 1), "here")
    with pytest.raises(ConfigError, match="unknown key zzzz"):
        validate(RunConfig, {**GOOD, "zzzz": {}}, "here")


def test_every_problem_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        validate(RunConfig, {**changed("train.epochs", -1), "claim": {"margin": 2}}, "here")
    assert "train.epochs" in caught.value.message
    assert "claim.margin" in caught.value.message


def test_gold_rules_cover_every_label() -> None:
    with pytest.raises(ConfigError, match="one rule for each"):
        validate(RunConfig, changed("data.gold_labels", {"yes": "> 0"}), "here")


def test_labels_that_share_a_first_word_cannot_be_told_apart_by_one_token() -> None:
    raw = changed("task.labels", ["very good", "very bad"])
    with pytest.raises(ConfigError, match="first word"):
        validate(RunConfig, raw, "here")
    validate(RunConfig, {**raw, "teacher": {**GOOD["teacher"], "signal": "text"}}, "here")


def test_balanced_decisions_need_probabilities() -> None:
    raw = {**changed("teacher.signal", "text"), "task": {**GOOD["task"], "decision": "balanced"}}
    with pytest.raises(ConfigError, match="balanced"):
        validate(RunConfig, raw, "here")


def test_sizes_and_overrides(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("""
[run]
name = "x"
seed = 1
purpose = "internal"
[task]
labels = ["no", "yes"]
instruction = "?"
[data]
path = "x.csv"
licence = "own"
gold = "g"
train = 10
held_out = 5
validation = 2
[teacher]
url = "http://127.0.0.1:1/v1"
[student]
base = "smollm2-135m-instruct"
layers = 2
[train]
epochs = 1
[claim]
margin = 0.05
[sizes.small]
"data.train" = 4
""")
    assert load_config(file).data.train == 10
    assert load_config(file, "small").data.train == 4
    assert load_config(file, "small", {"data.train": 6}).data.train == 6
    with pytest.raises(ConfigError, match="no size 'large'"):
        load_config(file, "large")
    file.write_text("[run\n")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_config(file)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"url": "https://api.openai.com./v1"}, "without a dot"),
        ({"url": "https://\uff41pi.openai.com/v1"}, "ASCII"),
        ({"url": "https://user:secret@h/v1"}, "user or password"),
        ({"url": "https://h/v1?key=AIzaSECRETSECRET"}, "'key'"),
        ({"url": "https://h/v1", "provider": "loopback"}, "loopback"),
        ({"url": "https://h/v1", "provider": "tutelage"}, "tutelage"),
        ({"url": "https://h/v1", "api_key_env": "sk-proj-THISISAREALKEY"}, "looks like a key"),
        ({"url": "https://h/v1", "api_key_env": "AIzaSyTHISISAREALKEY"}, "looks like a key"),
    ],
)
def test_a_teacher_is_named_in_one_spelling_and_without_a_secret(changes: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        validate(RunConfig, {**GOOD, "teacher": {"licence": "mit", **changes}}, "here")
    assert "SECRET" not in str(caught.value)
    assert "REALKEY" not in str(caught.value)
    assert ":secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://x.openai.azure.com/openai/deployments/d?api-version=2025-01-01",
        "http://my_model:8000/v1",
        "http://[::1]:8000/v1",
        "http://10.0.0.7/v1",
    ],
)
def test_ordinary_addresses_are_taken(url: str) -> None:
    assert validate(RunConfig, {**GOOD, "teacher": {"url": url, "signal": "text"}}, "here").teacher.url == url


def test_toml_dates_are_dates_of_prices() -> None:
    price = {"input_usd_per_mtok": 1, "output_usd_per_mtok": 2, "dated": date(2026, 11, 1)}
    teacher = {"url": "http://h/v1", "price": price}
    assert validate(RunConfig, {**GOOD, "teacher": teacher}, "here").teacher.price.dated == "2026-11-01"  # type: ignore[union-attr]


def test_each_kind_of_run_file_knows_the_other(tmp_path: Path) -> None:
    collecting = tmp_path / "c.toml"
    collecting.write_text('[run]\nname = "c"\nseed = 1\npurpose = "internal"\n[prompts]\npath = "q.jsonl"\nlicence = "own"\n'
                          '[teacher]\nurl = "http://h/v1"\n')  # fmt: skip
    with pytest.raises(ConfigError, match="run file of `tutelage collect`"):
        load_config(collecting)
    assert load_collect_config(collecting).teacher.signal == "text"
    assert load_collect_config(collecting, {"teacher.signal": "top-logprobs"}).teacher.signal == "top-logprobs"
    with pytest.raises(ConfigError, match="leave out /chat/completions"):
        load_collect_config(collecting, {"teacher.url": "http://h/v1/chat/completions"})
    collecting.write_text('[task]\nlabels = ["a", "b"]\n')
    with pytest.raises(ConfigError, match="run file of `tutelage run`"):
        load_collect_config(collecting)


TRAINING = {
    "run": {"name": "x", "seed": 1, "purpose": "internal"},
    "data": {"path": "talks.jsonl", "licence": "own"},
    "teacher": {"resource": "smollm2-135m-instruct"},
    "student": {"base": "smollm2-135m-instruct"},
    "method": {},
    "train": {},
}


def test_a_training_needs_little() -> None:
    config = validate(TrainingConfig, TRAINING, "here")
    assert (config.method.loss, config.method.student_share, config.student.start) == ("forward-kl", 0.0, "whole")
    assert TrainingConfig.model_validate(config.resolved()) == config
    steps = validate(TrainingConfig, {**TRAINING, "train": {"steps": 7}}, "here").resolved()
    assert steps["train"]["steps"] == 7 and "epochs" not in steps["train"]


@pytest.mark.parametrize(
    ("dotted", "value", "message"),
    [
        ("data.collected", "runs/x", "exactly one"),
        ("data.licence", None, "under which licence"),
        ("data.validation", 0, "greater than 0"),
        ("data.validation", 1.5, "less than 1"),
        ("teacher.path", "x", "exactly one"),
        ("student.path", "x", "exactly one"),
        ("student.init", "pruned", "nothing would be pruned"),
        ("student.layers", 0, "greater than 0"),
        ("student.keep", "last", "first"),
        ("student.lora", {"rank": 0}, "greater than 0"),
        ("method.prefix", 0, "a share of the steps above 0"),
        ("method.prefix", 1.2, "1.2 is not"),
        ("method.prefix", "teacher", "'teacher' is not"),
        ("method.signal", "logits", "dense"),
        ("method.c", 1.1, "less than or equal to 1"),
        ("method.engine", "vllm", "engine_url"),
        ("method.engine_url", "http://me:secret@host", "api_key_env"),
        ("method.temperature", -1, "greater than or equal"),
        ("train.epochs", 0, "greater than 0"),
        ("train.steps", 0, "greater than 0"),
    ],
)
def test_wrong_values_of_a_training_are_named(dotted: str, value: object, message: str) -> None:
    table, key = dotted.split(".")
    with pytest.raises(ConfigError) as caught:
        validate(TrainingConfig, {**TRAINING, table: {**TRAINING[table], key: value}}, "here")
    assert message in caught.value.message
    assert table in caught.value.message


@pytest.mark.parametrize(
    ("table", "added", "words"),
    [
        ("data", {"collected": "runs/x"}, "here: data has path and collected: give exactly one of path (a file)"),
        ("student", {"path": "x"}, "here: student has base and path: give exactly one of base"),
        ("teacher", {"path": "x"}, "here: teacher has resource and path: give exactly one of resource"),
        ("train", {"steps": 5, "epochs": 2}, "here: train has steps and epochs: steps = 5 and epochs = 2"),
        ("method", {"engine_url": "http://me:secret@host"}, "here: method: "),
    ],
)
def test_keys_that_exclude_each_other_are_told_in_words(table: str, added: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(TrainingConfig, {**TRAINING, table: {**TRAINING[table], **added}}, "here")
    assert caught.value.message.startswith(words)
    assert "{" not in caught.value.message and "secret" not in caught.value.message


def test_steps_or_epochs_not_both() -> None:
    with pytest.raises(ConfigError, match="give one of them"):
        validate(TrainingConfig, {**TRAINING, "train": {"steps": 5, "epochs": 2}}, "here")
    with pytest.raises(ConfigError, match=r"unknown key method\.los \(did you mean loss\?\)"):
        validate(TrainingConfig, {**TRAINING, "method": {"los": "jsd"}}, "here")
