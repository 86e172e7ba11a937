"""The teacher's own text scored by both in a proof: two local models behind `tutelage serve`, against the models themselves."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.models.tiny import save_tiny
from tutelage.cli.main import main
from tutelage.hardware import has_native_bf16
from tutelage.ledger.verify import verify
from tutelage.run_file import load_proof_config

RUN_FILE = """
[run]
name = "texts"
seed = 1
purpose = "internal"
question = "Does the small one expect what the large one says?"
[items]
path = "{items}"
licence = "own"
[task]
kind = "exact"
[sampling]
max_tokens = 6
temperature = 1.0
top_p = 1.0
seed = 5
[systems.teacher]
path = "{teacher}"
licence = "own"
[systems.student]
path = "{student}"
licence = "own"
[teacher_text]
[[claims]]
comparison = "teacher-text"
margin = 0.05
[controls]
again = 0
"""


def prove(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["prove", *map(str, arguments), "--quiet"])
    return int(ended.value.code or 0)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A teacher, and a student whose weights are its own a little disturbed."""
    teacher, student = (save_tiny(tmp_path_factory.mktemp(name)) for name in ("teacher", "student"))
    model = AutoModelForCausalLM.from_pretrained(student, use_safetensors=True)
    torch.manual_seed(1)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.1 * torch.randn_like(value))
    model.save_pretrained(student)
    return teacher, student


def written(folder: Path, folders: tuple[Path, Path], count: int, **changes: str) -> Path:
    items = folder / "items.jsonl"
    items.write_text("".join(json.dumps({"prompt": f"the film {at}"}) + "\n" for at in range(count)))
    text = RUN_FILE.format(items=items, teacher=folders[0], student=folders[1])
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    (folder / "proof.toml").write_text(text)
    return folder / "proof.toml"


def naive(folder: Path, prompt: str, answer: str, ended: bool) -> tuple[float, list[int]]:
    """Sum of log-probabilities in float64 of one answer, and its tokens with their end."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True).double()
    turns = [{"role": "user", "content": prompt}]
    given = tokenizer(tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False))["input_ids"]
    said = tokenizer(answer)["input_ids"] + ([tokenizer.convert_tokens_to_ids("<|im_end|>")] if ended else [])
    with torch.no_grad():
        logp_TV = model(torch.tensor([given + said])).logits[0].log_softmax(-1)
    start = len(given) - 1
    return sum(float(logp_TV[start + at, token]) for at, token in enumerate(said)), said


def answers(folder: Path) -> dict[str, dict[str, Any]]:
    from tutelage.store.store import Store

    with Store(folder / "store") as store:
        rows = [json.loads(line) for line in (folder / "prove" / "exchanges.jsonl").read_text().splitlines()]
        return {
            row["prompt"]: {"answer": (one := store.get(row["address"])).answer, "ended": one.finish_reason == "stop"}
            for row in rows
            if row["system"] == "teacher"
        }


def test_a_proof_on_the_teachers_text_is_what_the_models_say(
    tmp_path: Path, folders: tuple[Path, Path], capsys: Any
) -> None:
    run_file, run = written(tmp_path, folders, 210), tmp_path / "run"
    assert prove(run_file, "--out", run) == 0
    said = capsys.readouterr().out
    evidence = json.loads((run / "evidence.json").read_bytes())
    (claim,) = evidence["claims"]
    assert claim["unit"] == "nats a token" and "nats a token" in said and claim["method"].startswith("BCa")
    assert claim["student"] < claim["teacher"] and claim["difference"] == pytest.approx(
        claim["student"] - claim["teacher"]
    )
    assert claim["verdict"] == "INFERIOR"
    told = evidence["teacher_text"]
    assert told["what"].startswith("an estimate of KL")
    (row,) = told["systems"]
    assert (
        row["divergence"] == pytest.approx(-claim["difference"]) and 0 < row["agreement"] < 1 and 0 < row["overlap"] < 1
    )
    assert row["n"] + sum(told["left_out"].values()) == 210
    lines = {
        line["item"]: line["systems"]["student"]
        for line in map(json.loads, (run / "prove" / "teacher_text.jsonl").read_text().splitlines())
        if line["systems"]
    }
    prompts = [json.loads(line) for line in (run / "data" / "items.jsonl").read_text().splitlines()]
    there = answers(run)
    for item in [one for one in prompts if one["prompt_id"] in lines][:4]:
        name = item["prompt_id"]
        for folder, key in zip(folders, ("teacher_micro", "micro"), strict=True):
            total, tokens = naive(folder, item["messages"][0]["content"], **there[name])
            near = 0.1 if has_native_bf16() else 0.001  # served in bfloat16 where that is fast
            assert lines[name][key] / 1e6 == pytest.approx(total / len(tokens), abs=near)
    page = (run / "report.html").read_text()
    assert "On the teacher&#39;s own text" in page or "On the teacher's own text" in page
    assert not verify(run).findings
    before = (run / "prove" / "results.json").read_bytes()
    assert prove(run_file, "--out", run) == 0
    assert (run / "prove" / "results.json").read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"[teacher_text]": ""}, "needs a table [teacher_text]"),
        ({"[teacher_text]": "[teacher_text]\ntop = 50"}, "top"),
        ({"margin = 0.05": "margin = 0.05\nexpected_difference = -inf"}, "expected_difference"),
        (
            {'comparison = "teacher-text"': 'comparison = "teacher"\nexpected_difference = -1.5'},
            "expected_difference = -1.5: shares differ by less than 1",
        ),
        ({"seed = 5": "extra = {chat_template_kwargs = {enable_thinking = false}}"}, "sampling.extra"),
        ({"seed = 5": "reasoning_effort = 'high'"}, "sampling.reasoning_effort"),
        (
            {"[systems.student]\npath": "[systems.student]\nresource = 'smollm2-135m-instruct'\n#"},
            "llama.cpp scores no text",
        ),
        (
            {"[systems.student]\npath": "[systems.student]\nurl = 'http://127.0.0.1:9/v1'\n#"},
            "its tokenizer is not known",
        ),
    ],
)
def test_what_cannot_score_is_refused_before_anything_is_asked(
    tmp_path: Path, folders: tuple[Path, Path], changes: dict[str, str], words: str, capsys: Any
) -> None:
    assert prove(written(tmp_path, folders, 3, **changes), "--out", tmp_path / "run") == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_student_may_be_expected_more_than_a_nat_away(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    run_file = written(tmp_path, folders, 3, **{"margin = 0.05": "margin = 0.05\nexpected_difference = -3.0"})
    assert load_proof_config(run_file).claims[0].expected_difference == -3.0


def test_another_vocabulary_is_refused_for_nats_a_token(
    tmp_path: Path, folders: tuple[Path, Path], capsys: Any
) -> None:
    other = tmp_path / "other"
    save_tiny(other)
    tokenizer = AutoTokenizer.from_pretrained(other)
    tokenizer.add_tokens(["film"])
    tokenizer.save_pretrained(other)
    run_file = written(tmp_path, (folders[0], other), 3)
    assert prove(run_file, "--out", tmp_path / "run") == 2
    assert 'per = "byte"' in capsys.readouterr().err
