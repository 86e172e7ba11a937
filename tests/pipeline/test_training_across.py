"""`tutelage train` with a teacher of another tokenizer: it learns, on the data's text and on its own, and the record holds."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM

from tests.loopback import Teacher, serving
from tests.models.tiny import save_tiny
from tests.models.tokenizers_for_tests import byte_tokenizer, metaspace
from tests.pipeline.test_training import RUN_FILE, WORDS, Words, collected_in, do, write_talks
from tutelage.cli.main import main
from tutelage.errors import TutelageError
from tutelage.jsonl import read_lines
from tutelage.ledger.verify import verify
from tutelage.progress import Stop


def save_model(folder: Path, tokenizer: Any, context: int = 256, layers: int = 1) -> Path:
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=1 + max(tokenizer.get_vocab().values()), hidden_size=32, intermediate_size=48, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=context, initializer_range=0.2,
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=None,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("bytes"), byte_tokenizer())


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("teacher"))


@pytest.fixture(scope="module")
def run_file(tmp_path_factory: pytest.TempPathFactory, teacher: Path, student: Path) -> Path:
    folder = tmp_path_factory.mktemp("file")
    text = RUN_FILE.format(data=write_talks(folder / "talks.jsonl"), teacher=teacher)
    text = text.replace(f'[student]\npath = "{teacher}"', f'[student]\npath = "{student}"').replace("layers = 1\n", "")
    text = text.replace("max_tokens = 64", "max_tokens = 120").replace('loss = "forward-kl"', 'loss = "alm"')
    (folder / "run.toml").write_text(text)
    return folder / "run.toml"


def test_it_learns_from_chunks_beside_the_text_and_the_record_holds(
    run_file: Path, teacher: Path, tmp_path: Path
) -> None:
    words = Words()
    found = do(run_file, tmp_path, words, method__text_weight=1.0, train__steps=24)
    assert found.text_unats < 0.9 * found.before_text_unats
    assert found.objective_unats < found.before_objective_unats
    assert found.loss == "alm(tau=100)"
    assert found.tokens["soft-target"] == found.tokens["text-target"] > 0
    held = verify(tmp_path)
    assert held.findings == ()
    rows = json.loads((tmp_path / "train" / "sources.json").read_bytes())["rows"]
    assert {row["teacher"] for row in rows if row["role"] == "soft-target"} == {teacher.name}
    metrics = list(read_lines(tmp_path / "train" / "metrics.jsonl"))
    assert all(line["compared"] == 1.0 for line in metrics)
    said = "\n".join(words.said)
    assert "bits a byte, the teacher" in said
    assert "whole tokens to both" in said
    assert AutoTokenizer.from_pretrained(tmp_path / "student").get_vocab() == byte_tokenizer().get_vocab()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"method__prefix": "student"},
        {"method__loss": "uld", "method__text_weight": 0.5},
        {"method__loss": "gold", "method__text_weight": 0.5},
    ],
    ids=("data", "student", "uld", "gold"),
)
def test_a_stopped_run_goes_on_to_the_same_weights(run_file: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    class After(Stop):
        left = 5

        def __bool__(self) -> bool:
            self.left -= 1
            return self.left < 0

    do(run_file, tmp_path / "whole", train__steps=8, **changes)
    with pytest.raises(TutelageError, match="interrupted"):
        do(run_file, tmp_path / "parts", stop=After(), train__steps=8, **changes)
    do(run_file, tmp_path / "parts", train__steps=8, **changes)
    one, other = (load_file(tmp_path / name / "train" / "weights.safetensors") for name in ("whole", "parts"))
    before = load_file(tmp_path / "whole" / "before" / "model.safetensors")
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not torch.equal(one["model.norm.weight"], before["model.norm.weight"])
    assert verify(tmp_path / "parts").findings == ()


def test_a_base_teacher_reads_plain_text(run_file: Path, teacher: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(teacher, base)
    (base / "chat_template.jinja").unlink()
    words = Words()
    do(run_file, tmp_path / "run", words, teacher__path=str(base))
    assert any("as plain text, without a template" in line for line in words.said)


def test_what_answers_cost_the_student_is_after_what_it_reads_itself(run_file: Path, tmp_path: Path) -> None:
    told = []
    for name, more in (("plain", {}), ("prompted", {"teacher__system": "Be brief."})):
        words = Words()
        do(run_file, tmp_path / name, words, train__steps=1, **more)
        (line,) = [line for line in words.said if "bits a byte" in line]
        told.append(re.findall(r"[0-9.]+ bits a byte|teacher [0-9.]+", line))
    assert told[0][0] == told[1][0] and told[0][1] != told[1][1]


def test_what_cannot_work_is_refused_before_the_first_step(run_file: Path, tmp_path: Path) -> None:
    with pytest.raises(TutelageError, match="token by token") as caught:
        do(run_file, tmp_path / "tokens", method__loss="forward-kl")
    assert "alm" in caught.value.fix
    narrow = save_model(tmp_path / "narrow", metaspace(), context=24)
    with pytest.raises(TutelageError, match="longer than the teacher's context"):
        do(run_file, tmp_path / "long", teacher__path=str(narrow))
    talks = Path(str(run_file.parent / "talks.jsonl")).read_text().replace('"answer": "', '"answer": "A LOUD ONE ')
    (tmp_path / "loud.jsonl").write_text(talks)
    changing = save_model(tmp_path / "changing", metaspace(lowercase=True))
    with pytest.raises(TutelageError, match="can be compared") as caught:
        do(run_file, tmp_path / "changed", teacher__path=str(changing), data__path=str(tmp_path / "loud.jsonl"))
    assert "A LOUD ONE" in caught.value.message


def test_answers_that_the_teacher_spells_otherwise_are_counted(run_file: Path, tmp_path: Path) -> None:
    lines = (run_file.parent / "talks.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    for row in rows[:3]:
        row["answer"] += " And Then"
    (tmp_path / "talks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    changing, words = save_model(tmp_path / "changing", metaspace(lowercase=True)), Words()
    do(run_file, tmp_path / "run", words, teacher__path=str(changing), data__path=str(tmp_path / "talks.jsonl"))
    assert any(line.startswith("warning: 3 of 20 answers") and "other bytes" in line for line in words.said)
    assert verify(tmp_path / "run").findings == ()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"method__loss": "reverse-kl", "method__prefix": "student"},
        {"method__loss": "sparse-forward-kl", "method__signal": "threshold"},
        {"method__loss": "alm"},
    ],
    ids=("live", "student", "captured", "alm"),
)
def test_a_student_of_fewer_tokens_is_taught_them(tmp_path: Path, teacher: Path, changes: dict[str, Any]) -> None:
    path, words = tmp_path / "run.toml", Words()
    path.write_text(RUN_FILE.format(data=write_talks(tmp_path / "talks.jsonl"), teacher=teacher))
    found = do(path, tmp_path / "run", words, student__trim_vocabulary=True, train__steps=12, **changes)
    assert len(AutoTokenizer.from_pretrained(tmp_path / "run" / "student")) < len(
        AutoTokenizer.from_pretrained(teacher)
    )
    assert found.objective_unats < found.before_objective_unats
    kept = [line for line in words.said if "of its probability to the student's" in line]
    assert len(kept) == (changes.get("method__loss") != "alm")
    assert verify(tmp_path / "run").findings == ()


def collect_scored(folder: Path, signal: str, sampling: str = "") -> Path:
    """Answers of a loopback teacher, with or without log-probabilities."""
    rows = [{"prompt": f"{one} {other}"} for one, other in zip(WORDS[:8], WORDS[8:16], strict=True)]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with serving(Teacher()) as server:
        (folder / "collect.toml").write_text(
            f'[run]\nname = "open"\nseed = 1\npurpose = "internal"\n[prompts]\npath = "{folder}/questions.jsonl"\n'
            f'licence = "own"\n[teacher]\nurl = "{server.base_url}"\nlicence = "mit"\nattempts = 1\nsignal = "{signal}"\n'
            f"[sampling]\n{sampling}\n"
        )
        with pytest.raises(SystemExit) as ended:
            main(["collect", str(folder / "collect.toml"), "--out", str(folder / "answers"), "--quiet"])
    assert not ended.value.code
    return folder / "answers"


def test_log_probabilities_of_collected_answers_are_learnt(run_file: Path, tmp_path: Path) -> None:
    answers = collect_scored(tmp_path, "top-logprobs")
    text = collected_in(run_file, answers).read_text()
    path, words = tmp_path / "recorded.toml", Words()
    path.write_text(text[: text.index("[teacher]")] + text[text.index("[student]") :])
    found = do(path, tmp_path / "run", words, method__signal="recorded", method__text_weight=0.5, train__steps=12)
    assert not [line for line in words.said if "another teacher is learnt" in line]
    assert found.objective_unats < found.before_objective_unats
    assert any("answers with the log-probabilities of" in line for line in words.said)
    rows = json.loads((tmp_path / "run" / "train" / "sources.json").read_bytes())["rows"]
    taken = {(row["role"], row["licence"]): row["loss_tokens"] for row in rows}
    assert taken["soft-target", "mit"] == taken["text-target", "mit"] == found.tokens["soft-target"] > 0
    steps = list(read_lines(tmp_path / "run" / "train" / "metrics.jsonl"))
    assert all(0 < line["compared"] < 1 for line in steps), "all but the ends of turn"
    assert verify(tmp_path / "run").findings == ()


def test_answers_that_were_not_drawn_at_1_are_warned_of(run_file: Path, tmp_path: Path) -> None:
    answers, words = collect_scored(tmp_path, "top-logprobs", "temperature = 0.5"), Words()
    text = collected_in(run_file, answers).read_text()
    path = tmp_path / "recorded.toml"
    path.write_text(text[: text.index("[teacher]")] + text[text.index("[student]") :])
    do(path, tmp_path / "run", words, method__signal="recorded", train__steps=1)
    assert [line for line in words.said if "8 of 8 answers were drawn" in line and "another teacher is learnt" in line]


def test_recorded_scores_must_be_there(run_file: Path, tmp_path: Path) -> None:
    answers = collect_scored(tmp_path, "text")
    text = collected_in(run_file, answers).read_text()
    path = tmp_path / "recorded.toml"
    path.write_text(text[: text.index("[teacher]")] + text[text.index("[student]") :])
    with pytest.raises(TutelageError, match="without log-probabilities"):
        do(path, tmp_path / "run", method__signal="recorded")
    with pytest.raises(TutelageError, match="the data is a file"):
        do(run_file, tmp_path / "file", method__signal="recorded", teacher=None)
