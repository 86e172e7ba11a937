"""A student proved in the form in which it is handed on: a GGUF file made of its folder, or given, beside its checkpoint."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.models.tiny import save_tiny
from tutelage.canon import digest_file
from tutelage.cli.main import main
from tutelage.ledger.verify import verify

RUN_FILE = """
[run]
name = "served"
seed = 1
purpose = "internal"
question = "Does the file answer as its folder?"
[items]
path = "{items}"
gold = "answer"
gold_by = "programme"
licence = "own"
[task]
kind = "exact"
[sampling]
max_tokens = 6
[systems.teacher]
path = "{teacher}"
licence = "own"
[systems.student]
path = "{student}"
licence = "own"
served_as = "q8_0"
[systems.checkpoint]
path = "{student}"
licence = "own"
[[claims]]
comparison = "gold"
margin = 0.05
[controls]
again = 0
"""
COUNT = 12


def prove(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["prove", *map(str, arguments), "--quiet"])
    return int(ended.value.code or 0)


@pytest.fixture(scope="module")
def run_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    teacher, student = (save_tiny(tmp_path_factory.mktemp(name)) for name in ("teacher", "student"))
    model = AutoModelForCausalLM.from_pretrained(teacher, use_safetensors=True)
    torch.manual_seed(1)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.1 * torch.randn_like(value))
    model.save_pretrained(teacher)
    folder = tmp_path_factory.mktemp("proof")
    rows = [{"prompt": f"is film {at} good or bad?", "answer": ("good", "bad")[at % 2]} for at in range(COUNT)]
    (folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = folder / "proof.toml"
    path.write_text(RUN_FILE.format(items=folder / "items.jsonl", teacher=teacher, student=student))
    return path


@pytest.fixture(scope="module")
def run(run_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "run"
    assert prove(run_file, "--out", out) == 0
    return out


def evidence_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "evidence.json").read_bytes())


def answers_of(folder: Path, system: str) -> list[tuple[str, str]]:
    rows = [json.loads(line) for line in (folder / "prove" / "scores.jsonl").read_text().splitlines()]
    return [(row["item"], row["scores"][system]["read"]) for row in rows]


def test_the_file_is_made_served_recorded_and_held_against_its_folder(run: Path) -> None:
    found = evidence_of(run)
    made, weights = run / "work" / "served" / "student-q8_0.gguf", found["weights"]["student"]
    assert weights["served"] == digest_file(made) != weights["folder"]
    assert weights["made"] == "Q8_0 of the folder's weights"
    assert found["weights"]["checkpoint"]["served"] not in weights.values()
    artefact = found["checkpoint"]
    assert artefact["n"] == COUNT and artefact["prompts_differ"] == 0
    apart = sum(
        one != other for one, other in zip(answers_of(run, "student"), answers_of(run, "checkpoint"), strict=True)
    )
    assert artefact["answers_differ"] >= apart and artefact["agreement"] == pytest.approx(1 - apart / COUNT)
    assert artefact["difference_low"] <= artefact["difference"] <= artefact["difference_high"]
    assert not any("checkpoint" in words for words in found["missing_controls"])
    labels = {row["role"]: row["label"] for row in found["systems"]}
    assert labels["student"] == f"{labels['checkpoint']}, served as Q8_0"
    page = (run / "report.html").read_text()
    assert "against the training checkpoint" in page and weights["served"] in page
    assert not verify(run).findings


def test_the_file_given_as_a_path_answers_the_same(run: Path, run_file: Path, tmp_path: Path) -> None:
    made = run / "work" / "served" / "student-q8_0.gguf"
    text = run_file.read_text().replace('licence = "own"\nserved_as = "q8_0"', 'licence = "own"')
    lines = text.splitlines()
    lines[lines.index("[systems.student]") + 1] = f'path = "{made}"'
    given = tmp_path / "given.toml"
    given.write_text("\n".join(lines))
    assert prove(given, "--out", tmp_path / "run") == 0
    assert answers_of(tmp_path / "run", "student") == answers_of(run, "student")
    found = evidence_of(tmp_path / "run")
    assert found["weights"]["student"] == {"served": digest_file(made)}
    assert found["checkpoint"]["answers_differ"] == evidence_of(run)["checkpoint"]["answers_differ"]
    assert not verify(tmp_path / "run").findings


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('served_as = "q8_0"\n', "", "systems.checkpoint is what systems.student serves"),
        ('served_as = "q8_0"', 'served_as = "q9"', "served_as"),
        ("[[claims]]", "[teacher_text]\n[[claims]]", "systems.student cannot score the teacher's text: llama.cpp"),
    ],
)
def test_a_form_that_cannot_be_proved_is_refused(
    run_file: Path, tmp_path: Path, old: str, new: str, words: str, capsys: Any
) -> None:
    changed = tmp_path / "changed.toml"
    changed.write_text(run_file.read_text().replace(old, new))
    assert prove(changed, "--out", tmp_path / "run") == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run" / "store").exists()


def test_a_folder_or_file_that_cannot_be_served_so_is_refused_before_anything_is_asked(
    run_file: Path, tmp_path: Path, capsys: Any
) -> None:
    other = save_tiny(tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"model_type": "mamba"}))
    nothing = tmp_path / "student.gguf"
    nothing.write_bytes(b"PK\x03\x04 no weights")
    unknown = "systems.student.served_as: other cannot be written for llama.cpp: it is of type 'mamba'"
    for path, words in ((other, unknown), (nothing, "is no GGUF file")):
        lines = run_file.read_text().splitlines()
        lines[lines.index("[systems.student]") + 1] = f'path = "{path}"'
        changed = tmp_path / "changed.toml"
        changed.write_text("\n".join(lines))
        assert prove(changed, "--out", tmp_path / "run") != 0
        assert words in capsys.readouterr().err
    assert not (tmp_path / "run" / "store").exists()
