"""`tutelage train` end to end on a tiny teacher and student: every kind of method, what it writes, what it refuses."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.loopback import Teacher, serving
from tests.models.tiny import save_tiny
from tutelage.cli.main import main
from tutelage.collect.conversations import split, talk_of
from tutelage.collect.importing import Declared, import_file
from tutelage.collect.rows import Row
from tutelage.errors import ConfigError, DataError, TutelageError
from tutelage.jsonl import read_lines
from tutelage.ledger.verify import verify
from tutelage.pipeline.run import Run
from tutelage.pipeline.teaching_plan import method_of, objective_in_words
from tutelage.pipeline.training import Trained, ready, train_student
from tutelage.progress import Quiet, Stop
from tutelage.redact import Secrets
from tutelage.run_file import load_training_config
from tutelage.store.store import Store
from tutelage.training_config import ConversationsTable

RUN_FILE = """
[run]
name = "talks"
seed = 3
purpose = "internal"
[data]
path = "{data}"
licence = "own"
validation = 4
max_tokens = 64
[teacher]
path = "{teacher}"
licence = "Apache-2.0"
[student]
path = "{teacher}"
licence = "Apache-2.0"
layers = 1
[method]
loss = "forward-kl"
max_new_tokens = 8
[train]
steps = 3
batch_size = 4
learning_rate = 0.003
answers = 2
"""
WORDS = [
    "good", "bad", "slow", "plot", "film", "story", "love", "about", "the", "very", "old", "new", "we", "saw", "long",
    "short", "fine", "odd",
]  # fmt: skip


def write_talks(path: Path, count: int = 20) -> Path:
    """Questions of few words each, so that none is the near-duplicate of another, and short answers."""
    draw = torch.Generator().manual_seed(5)
    rows = []
    for at in range(count):
        words = [WORDS[int(torch.randint(len(WORDS), (1,), generator=draw))] for _ in range(5)]
        rows.append({"question": f"{at} {words[0]} {words[1]}", "answer": " ".join(words[2:])})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("teacher"))


@pytest.fixture(scope="module")
def run_file(tmp_path_factory: pytest.TempPathFactory, teacher: Path) -> Path:
    folder = tmp_path_factory.mktemp("file")
    path = folder / "run.toml"
    path.write_text(RUN_FILE.format(data=write_talks(folder / "talks.jsonl"), teacher=teacher))
    return path


class Words(Quiet):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, line: str) -> None:
        self.said.append(line)


def do(run_file: Path, out: Path, progress: Any = None, stop: Any = None, **changes: Any) -> Trained:
    changes = {key.replace("__", "."): value for key, value in changes.items()}
    config = load_training_config(run_file, changes)
    with Run(out, progress or Quiet(), Stop() if stop is None else stop) as run:
        return train_student(ready(config), run)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, run_file: Path) -> tuple[Path, Trained, list[str]]:
    out, words = tmp_path_factory.mktemp("run"), Words()
    return out, do(run_file, out, words, train__steps=24), words.said


def test_it_learns_and_ships_a_folder_that_loads(finished: tuple[Path, Trained, list[str]], teacher: Path) -> None:
    out, found, said = finished
    assert found.objective_unats < 0.8 * found.before_objective_unats
    assert (found.steps, found.examples, found.validation_examples) == (24, 16, 4)
    model = AutoModelForCausalLM.from_pretrained(out / "student")
    tokenizer: Any = AutoTokenizer.from_pretrained(out / "student")
    assert model.config.num_hidden_layers == 1
    assert model.get_output_embeddings().weight.shape[0] == len(tokenizer), "columns beyond the tokenizer are no tokens"
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(teacher).chat_template
    before, after = ((out / name / "generation_config.json").read_bytes() for name in ("before", "student"))
    assert before == after and json.loads(after)["eos_token_id"] == [0, 2]
    trained = load_file(out / "train" / "weights.safetensors")
    assert torch.equal(dict(model.named_parameters())["model.norm.weight"], trained["model.norm.weight"])
    assert {"README.md", "NOTICE", "TERMS.md", "lineage.json"} <= {path.name for path in (out / "student").iterdir()}
    looks = " ".join(said)
    assert "under the student's template" in looks and "before training" in looks


def test_the_steps_say_whose_tokens_they_took(finished: tuple[Path, Trained, list[str]], teacher: Path) -> None:
    out, found, _ = finished
    steps = list(read_lines(out / "train" / "consumed.jsonl"))
    metrics = list(read_lines(out / "train" / "metrics.jsonl"))
    assert [sum(one["soft-target"] for one in step["loss_tokens"]) for step in steps] == [
        line["soft-target"] for line in metrics
    ]
    taken = [name for step in steps for name in step["examples"]]
    kinds = {row["id"]: row["kind"] for row in read_lines(out / "data" / "conversations.jsonl")}
    assert {kinds[name] for name in taken} == {"train"} and all(taken.count(name) == 6 for name in set(taken))
    rows = json.loads((out / "train" / "sources.json").read_bytes())["rows"]
    assert [(row["role"], row["teacher"], row["examples"]) for row in rows] == [
        ("prompt-author", "talks.jsonl", 16), ("soft-target", teacher.name, 16), ("base-lineage", teacher.name, 0)
    ]  # fmt: skip
    assert rows[1]["loss_tokens"] == found.tokens["soft-target"] == sum(line["soft-target"] for line in metrics)
    assert {"grad_norm", "entropy_nats", "student_mass", "teacher_mass", "overlap"} <= metrics[0].keys()
    assert {"validation_nats", "validation_overlap", "validation_stop_rate", "validation_length_tokens"} <= metrics[
        -1
    ].keys()


def test_the_card_says_how_sure_the_student_is(finished: tuple[Path, Trained, list[str]]) -> None:
    """On the half of the validation that no temperature was fitted on; what is served is as it was."""
    out, found, _ = finished
    sure = found.calibration
    assert sure["positions"] > 10 and 0 <= sure["right_ppm"] <= 10**6 and sure["temperature_ppm"] > 0
    card = (out / "student" / "README.md").read_text()
    assert (
        f"logits divided by {sure['temperature_ppm'] / 1e6:.3f}" in card
        and f"{sure['ece_ppm'] / 1e4:.1f} points" in card
    )
    assert sure["kl_nats_ppm"] > 0 and "temperature" not in json.loads(
        (out / "student" / "generation_config.json").read_bytes()
    )


def test_hidden_states_that_were_kept_teach_what_the_live_teacher_does(run_file: Path, tmp_path: Path) -> None:
    """Of a teacher that reads in bfloat16 nothing is lost: 2 bytes a number, and the first loss is the same."""
    first = []
    for signal in ("dense", "hidden"):
        do(
            run_file,
            tmp_path / signal,
            method__signal=signal,
            teacher__precision="bfloat16",
            train__precision="float32",
        )
        first.append(next(iter(read_lines(tmp_path / signal / "train" / "metrics.jsonl")))["loss_nats"])
    assert first[0] == pytest.approx(first[1], abs=1e-6)


def test_the_record_holds_and_a_changed_count_is_found(
    finished: tuple[Path, Trained, list[str]], tmp_path: Path
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(finished[0], copy)
    held = verify(copy)
    assert held.findings == () and any(f"{finished[1].tokens['soft-target']:,} loss tokens as soft-target, from" in share
                                       for share in held.shares)  # fmt: skip
    (copy / "student" / "extra.bin").write_bytes(b"x")
    assert [finding.where for finding in verify(copy).findings] == ["student/extra.bin"]
    (copy / "student" / "extra.bin").unlink()
    path = copy / "train" / "sources.json"
    rows = json.loads(path.read_bytes())
    rows["rows"][1]["loss_tokens"] -= 1
    path.write_text(json.dumps(rows, sort_keys=True, separators=(",", ":")) + "\n")
    assert {"train/sources.json"} == {finding.where for finding in verify(copy).findings}
    assert any("the steps taken say" in finding.what for finding in verify(copy).findings)


def test_a_finished_run_is_not_done_again(finished: tuple[Path, Trained, list[str]], run_file: Path) -> None:
    words, size = Words(), (finished[0] / "ledger" / "log.jsonl").stat().st_size
    assert do(run_file, finished[0], words, train__steps=24) == finished[1]
    assert {f"{stage}: done before, unchanged" for stage in ("data", "student", "train", "ship")} <= set(words.said)
    assert (finished[0] / "ledger" / "log.jsonl").stat().st_size == size


@pytest.mark.parametrize(
    "changes",
    [{}, {"method__prefix": "student", "method__loss": "reverse-kl"}, {"method__loss": "distillm-2"}],
    ids=("off", "on", "both"),
)
def test_a_stopped_run_goes_on_to_the_same_weights(run_file: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    class After(Stop):
        """Set after so many looks at it."""

        def __init__(self, looks: int) -> None:
            super().__init__()
            self.left = looks

        def __bool__(self) -> bool:
            self.left -= 1
            return self.left < 0

    whole = do(run_file, tmp_path / "whole", train__steps=8, **changes)
    with pytest.raises(TutelageError, match="interrupted"):
        do(run_file, tmp_path / "parts", stop=After(5), train__steps=8, **changes)
    assert do(run_file, tmp_path / "parts", train__steps=8, **changes) == whole
    one, other = (load_file(tmp_path / name / "train" / "weights.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    steps = [(tmp_path / name / "train" / "consumed.jsonl").read_bytes() for name in ("whole", "parts")]
    assert steps[0] == steps[1]


METHODS: dict[str, dict[str, Any]] = {
    "threshold": {"method__loss": "sparse-forward-kl", "method__c": 0.1},
    "top-k, and the text": {"method__loss": "top-k-forward-kl", "method__k": 8, "method__text_weight": 0.5},
    "random": {"method__loss": "sparse-forward-kl", "method__signal": "random", "method__draws": 20},
    "hidden": {"method__loss": "jsd", "method__beta": 0.3, "method__signal": "hidden"},
    "mixture": {"method__loss": "reverse-kl", "method__prefix": 0.5},
    "sampled": {"method__loss": "sampled-reverse-kl", "method__prefix": "student"},
    "distillm-2": {"method__loss": "distillm-2"},
    "least sure": {"method__focus": 0.3},
    "least sure, own text": {"method__loss": "entropy-aware-kl", "method__prefix": "student", "method__focus": 0.5},
    "taid": {"method__loss": "taid", "method__t": 0.2},
    "akl": {"method__loss": "adaptive-kl"},
    "text": {"method__loss": "cross-entropy", "teacher": None},
    "adapters": {"student__lora": {"rank": 2, "alpha": 4.0}, "student__init": "whole", "student__layers": None},
    "narrow": {"student__neurons": 32, "student__keep": "importance"},
    "random start, few tokens": {"student__init": "random", "teacher": None, "student__trim_vocabulary": True,
                                 "method__loss": "cross-entropy"},
}  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_every_method_runs_and_its_record_holds(run_file: Path, tmp_path: Path, name: str) -> None:
    changes = dict(METHODS[name])
    roles = {"soft-target"} | ({"text-target"} if "text_weight" in str(changes) else set())
    if changes.pop("teacher", "") is None:
        text = run_file.read_text()
        run_file = tmp_path / "text.toml"
        run_file.write_text(text[: text.index("[teacher]")] + text[text.index("[student]") :])
        roles = {"text-target"}
    found = do(run_file, tmp_path / "run", **changes)
    assert found.steps == 3 and set(found.tokens) == roles and min(found.tokens.values()) > 0
    assert verify(tmp_path / "run").findings == ()
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "student").config.num_hidden_layers in (1, 2)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a signal that the loss cannot use": ({"method__signal": "top-k"}, "does not learn from signal = 'top-k'"),
    "captured signals on-policy": (
        {"method__loss": "sparse-forward-kl", "method__prefix": "student"},
        "not known then",
    ),
    "scores off-policy": ({"method__loss": "sampled-reverse-kl"}, "the student's own text"),
    "a template without an end": (
        {"student__template": "{% for m in messages %}{{ m['content'] + '\n' }}{% endfor %}"},
        "never learn to stop",
    ),
    "only long conversations": ({"data__max_tokens": 9}, "longer than the limit"),
    "no room for answers": ({"method__prefix": "student", "method__max_new_tokens": 120}, "context of 128"),
    "text beside one's own text": ({"method__prefix": "student", "method__text_weight": 1.0}, "teaches nothing"),
    "draws that are not the student's": (
        {"method__loss": "sampled-reverse-kl", "method__prefix": "student", "method__temperature": 0.7},
        "draws at 1",
    ),
    "a template that is no Jinja": ({"student__template": "{% for m in"}, "fails on messages of"),
    "a template that refuses a role": (
        {"student__template": "{{ raise_exception('no roles here') }}", "data__system": "be brief"},
        "no roles here",
    ),
    "no width for so many heads": ({"student__init": "random", "student__hidden": 50, "student__heads": 4}, "heads"),
    "whole answers in part": ({"method__loss": "distillm-2", "method__focus": 0.5}, "of whole answers"),
    "answer and reasoning in part": (
        {"method__loss": "cross-entropy", "teacher": None, "data__rationale_marker": "####", "method__focus": 0.5},
        "learnt whole",
    ),
    "another text for distillm-2": ({"method__loss": "distillm-2", "method__prefix": 0.5}, "in every step"),
    "a teacher that reads more, for distillm-2": (
        {"method__loss": "distillm-2", "teacher__system": "Be brief."},
        "reads what the student reads",
    ),
    "a target that moves, of signals that stand still": (
        {"method__loss": "taid", "method__signal": "hidden"},
        "captured signals stand still",
    ),
    "a trimmed student of a teacher that reads more": (
        {"student__trim_vocabulary": True, "teacher__system": "Be brief."},
        "byte by byte",
    ),
    "a parameter of another loss": ({"method__beta": 0.5}, "no parameter 'beta'"),
    "a licence nobody knows": ({"data__licence": "who-knows"}, "unknown"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_right_is_refused_before_the_first_step(run_file: Path, tmp_path: Path, name: str) -> None:
    changes, words = REFUSED[name]
    with pytest.raises(TutelageError, match=words) as caught:
        do(run_file, tmp_path / "run", **changes)
    assert caught.value.fix
    assert not (tmp_path / "run" / "train").exists()


@pytest.mark.parametrize(
    ("loss", "words"),
    [("taid", "forward-kl"), ("distillm-2", "skew-kl(alpha=0.1)"), ("forward-kl", "forward-kl"),
     ("sampled-reverse-kl", "reverse-kl")],
)  # fmt: skip
def test_the_held_out_figure_is_named_for_what_it_is(run_file: Path, loss: str, words: str) -> None:
    prefix = "student" if loss == "sampled-reverse-kl" else "data"
    config = load_training_config(run_file, {"method.loss": loss, "method.prefix": prefix})
    assert objective_in_words(config, method_of(config)) == words


@pytest.mark.parametrize("where", ["teacher", "run/before", "run/before/inside", "run/student"])
def test_a_server_is_not_given_a_folder_that_holds_other_weights(
    run_file: Path, teacher: Path, tmp_path: Path, where: str
) -> None:
    folder = teacher if where == "teacher" else tmp_path / where
    engine = {"engine": "vllm", "engine_url": "http://127.0.0.1:1", "engine_model": "x", "engine_folder": str(folder)}
    changes = {f"method__{name}": value for name, value in engine.items()}
    with pytest.raises(ConfigError, match="every step would write over what") as caught:
        do(run_file, tmp_path / "run", method__prefix="student", **changes)
    assert "copy" in caught.value.fix


def _other(teacher: Path, out: Path, change: Callable[[Any, Any], Any]) -> Path:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(teacher), AutoTokenizer.from_pretrained(teacher)
    model, tokenizer = change(model, tokenizer) or (model, tokenizer)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return out


def test_another_tokenizer_is_refused_for_a_loss_on_tokens(run_file: Path, teacher: Path, tmp_path: Path) -> None:
    """Equal sizes: two ids have changed places."""
    other = _other(teacher, tmp_path / "other", lambda model, tokenizer: None)
    text = (other / "tokenizer.json").read_text()
    assert '"a":' in text and '"b":' in text
    (other / "tokenizer.json").write_text(
        text.replace('"a":', '"#":', 1).replace('"b":', '"a":', 1).replace('"#":', '"b":', 1)
    )
    with pytest.raises(TutelageError, match="compares distributions token by token"):
        do(run_file, tmp_path / "run", teacher__path=str(other))


def test_a_teacher_whose_logits_are_not_finite_is_named(run_file: Path, teacher: Path, tmp_path: Path) -> None:
    def spoil(model: Any, tokenizer: Any) -> None:
        model.model.norm.weight.data[3] = float("nan")

    other = _other(teacher, tmp_path / "other", spoil)
    with pytest.raises(TutelageError, match=r"the teacher's weights are not finite, first in model\.norm\.weight"):
        do(run_file, tmp_path / "run", teacher__path=str(other))


def test_a_teacher_must_have_room_for_what_the_student_writes(run_file: Path, teacher: Path, tmp_path: Path) -> None:
    def shorten(model: Any, tokenizer: Any) -> None:
        model.config.max_position_embeddings = 40

    other = _other(teacher, tmp_path / "other", shorten)
    with pytest.raises(TutelageError, match="the 40 that the teacher reads"):
        do(run_file, tmp_path / "run", teacher__path=str(other), method__prefix="student", method__max_new_tokens=36)


def collect(folder: Path, licence: str = "mit", model: str = "loop", url: str = "", questions: int = 8) -> int:
    """The answers of a loopback teacher to a few questions; its exit code."""
    asked, path = folder / "questions.jsonl", folder / "collect.toml"
    rows = [{"prompt": f"{one} {other}"} for one, other in zip(WORDS[:questions], WORDS[8:], strict=False)]
    asked.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with serving(Teacher()) as server:
        path.write_text(
            f'[run]\nname = "open"\nseed = 1\npurpose = "internal"\n[prompts]\npath = "{asked}"\nlicence = "own"\n'
            f'[teacher]\nurl = "{url or server.base_url}"\nmodel = "{model}"\nlicence = "{licence}"\nattempts = 1\n'
        )
        with pytest.raises(SystemExit) as ended:
            main(["collect", str(path), "--out", str(folder / "answers"), "--quiet"])
    return int(ended.value.code or 0)


def collected_in(run_file: Path, answers: Path, more: str = "") -> Path:
    """The run file with a folder of answers in place of the file of conversations."""
    text = run_file.read_text().replace("validation = 4", "validation = 1")
    start, end = text.index("path ="), text.index("validation")
    path = run_file.with_name(f"from-{answers.name}.toml")
    path.write_text(f'{text[:start]}collected = "{answers}"\n{more}{text[end:]}')
    return path


def test_collected_answers_are_learnt_and_their_teacher_is_named(run_file: Path, tmp_path: Path) -> None:
    assert collect(tmp_path) == 0
    text = collected_in(run_file, tmp_path / "answers").read_text()
    path = tmp_path / "text.toml"
    path.write_text(text[: text.index("[teacher]")] + text[text.index("[student]") :])
    found = do(path, tmp_path / "run", method__loss="cross-entropy")
    assert (found.examples, found.validation_examples) == (7, 1)
    rows = json.loads((tmp_path / "run" / "train" / "sources.json").read_bytes())["rows"]
    text_row = next(row for row in rows if row["role"] == "text-target")
    assert (text_row["licence"], text_row["loss_tokens"]) == ("mit", found.tokens["text-target"])
    judged = json.loads(next((tmp_path / "run" / "terms").glob("*.json")).read_bytes())
    assert judged["answers"]["licence"] == "mit" and judged["data"]["subject"] == "questions.jsonl"
    lineage = json.loads((tmp_path / "run" / "student" / "lineage.json").read_bytes())
    assert "loop" in " ".join(one["subject"] for one in lineage["ancestors"] if one["role"] == "teacher")


def test_answers_without_a_verdict_need_a_person(run_file: Path, tmp_path: Path) -> None:
    rows = [
        {"prompt": f"{one} {other}", "completion": "good"} for one, other in zip(WORDS[:6], WORDS[6:12], strict=True)
    ]
    file, answers = tmp_path / "answers.jsonl", tmp_path / "imported"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with Store(answers / "store") as store:
        import_file(file, store, Declared("somebody", "", "mit"), Secrets({}))
    path = collected_in(run_file, answers)
    with pytest.raises(TutelageError, match="captured or imported"):
        do(path, tmp_path / "run")
    with pytest.raises(TutelageError, match="another record's"):
        do(run_file, answers)
    assert not (answers / "ledger" / "log.jsonl").exists() and not (answers / "config.json").exists()
    risk = {"who": "Ada", "reason": "ours", "scope": "this run"}
    assert do(path, tmp_path / "run", data__accepted_risk=risk).examples == 5
    assert "Ada" in (tmp_path / "run" / "student" / "TERMS.md").read_text()


def test_rows_in_the_usual_forms_are_conversations() -> None:
    def talk(fields: dict[str, Any], **settings: Any) -> list[tuple[str, str]]:
        table = ConversationsTable(path="x", licence="own", **settings)
        return [(turn["role"], turn["content"]) for turn in talk_of(Row(1, fields, b"", ""), table).messages]

    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    expected = [("user", "q"), ("assistant", "a")]
    assert talk({"messages": turns}) == talk({"question": "q", "answer": "a"}) == expected
    assert talk({"prompt": turns[:1], "completion": turns[1:]}) == talk({"prompt": "q", "completion": "a"}) == expected
    assert talk({"x": "q", "y": "a", "prompt": "no", "answer": "no"}, question="x", answer="y") == expected
    assert talk({"question": "q", "answer": "a"}, system="s") == [("system", "s"), *expected]
    table = ConversationsTable(path="x", licence="own")
    assert talk_of(Row(1, {"messages": turns, "metadata": {"finish_reason": "length"}}, b"", ""), table).cut


def test_near_duplicates_are_on_one_side() -> None:
    table = ConversationsTable(path="x", licence="own")
    texts = [f"{word} {word}s and {word}ly things" for word in WORDS[:10]]
    rows = [{"question": text + end, "answer": str(at)} for text in texts for at, end in enumerate(("", " !", " ?"))]
    talks = [talk_of(Row(1, row, b"", ""), table) for row in rows]
    parts = split(talks, 0.2, 7)
    assert parts.groups == 10 and len(parts.validation) == 6
    assert {at // 3 for at in parts.validation}.isdisjoint({at // 3 for at in parts.train})
    assert split(talks, 0.2, 7) == parts != split(talks, 0.2, 8)
    with pytest.raises(DataError, match="in 1 groups"):
        split(talks[:3], 0.2, 7)
    single = [talk_of(Row(1, {"question": f"{one} {other}?", "answer": "a"}, b"", ""), table)
              for one, other in zip(WORDS[:9], WORDS[9:], strict=True)]  # fmt: skip
    for seed in range(20):  # a large group is never taken where a small one will do
        assert len(split([*talks[:3], *single], 2, seed).validation) <= 2


def test_the_example_in_the_docs_runs(teacher: Path, tmp_path: Path, monkeypatch: Any) -> None:
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    (code,) = re.findall(r"## From Python\n.*?```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(teacher, "teacher")
    rows = read_lines(write_talks(tmp_path / "questions.jsonl"))
    turns = [
        [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answer"]}] for row in rows
    ]
    (tmp_path / "talks.jsonl").write_text("".join(json.dumps({"messages": one}) + "\n" for one in turns))
    exec(code.replace("layers=10", "layers=1"), {})
    steps = list(read_lines(tmp_path / "metrics.jsonl"))
    assert steps[-1]["validation_nats"] > 0, steps[-1]
    assert (tmp_path / "trained" / "model.safetensors").is_file()
