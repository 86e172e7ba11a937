"""Several answers to a question, collected and learnt: all of them, a question on one side, and prompts that count alike."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.loopback import Teacher, serving
from tests.models.tiny import save_tiny
from tests.pipeline.test_training import RUN_FILE, WORDS, Words, collected_in, do
from tests.train.test_pairs import END, example
from tutelage.cli.main import main
from tutelage.config import TrainTable
from tutelage.errors import TutelageError
from tutelage.jsonl import read_lines, write_lines
from tutelage.ledger.verify import verify
from tutelage.losses.catalogue import make
from tutelage.train.per_prompt import PromptSource, by_prompt
from tutelage.train.teaching import Words as Text

QUESTIONS = [f"{at} {one} {other}" for at, (one, other) in enumerate(zip(WORDS[:9], WORDS[9:], strict=True))]
SAMPLES = 3


class Various(Teacher):
    """Answers the questions of an even number otherwise each time, the others always alike."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()
        self.fault = lambda number, request: self.various(request)

    async def various(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        asked = body["messages"][-1]["content"]
        self.seen[asked] += 1
        said = WORDS[self.seen[asked]] if int(asked.split()[0]) % 2 == 0 else "good"
        choice = {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 7, "completion_tokens": 1, "total_tokens": 8}
        answer = {"id": f"chatcmpl-{sum(self.seen.values())}", "object": "chat.completion", "created": 1,
                  "model": body["model"], "choices": [choice], "usage": usage}  # fmt: skip
        return web.json_response(answer)


@pytest.fixture(scope="module")
def run_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a training on text alone, from three answers to each of nine questions."""
    folder = tmp_path_factory.mktemp("collected")
    write_lines(folder / "questions.jsonl", [{"prompt": question} for question in QUESTIONS])
    path = folder / "collect.toml"
    with serving(Various()) as server:
        path.write_text(
            f'[run]\nname = "open"\nseed = 1\npurpose = "internal"\n[prompts]\npath = "{folder / "questions.jsonl"}"\n'
            f'licence = "own"\n[sampling]\nsamples = {SAMPLES}\ntemperature = 1.0\n'
            f'[teacher]\nurl = "{server.base_url}"\nmodel = "loop"\nlicence = "mit"\nattempts = 1\n'
        )
        with pytest.raises(SystemExit) as ended:
            main(["collect", str(path), "--out", str(folder / "answers"), "--quiet"])
    assert not ended.value.code
    run = folder / "run.toml"
    run.write_text(RUN_FILE.format(data="x", teacher=save_tiny(folder / "base")))
    text = collected_in(run, folder / "answers").read_text().replace("validation = 1", "validation = 5")
    run.write_text(text[: text.index("[teacher]")] + text[text.index("[student]") :])
    return run


def taken(out: Path) -> list[dict[str, Any]]:
    return list(read_lines(out / "train" / "consumed.jsonl"))


def test_all_answers_are_learnt_each_once_an_epoch_and_counted(run_file: Path, tmp_path: Path) -> None:
    words = Words()
    found = do(run_file, tmp_path, words, method__loss="cross-entropy", train__steps=None, train__epochs=2.0)
    talks = {row["id"]: row for row in read_lines(tmp_path / "data" / "conversations.jsonl")}
    assert len(talks) == 5 * SAMPLES + 4, "those that say the same are taken once"
    assert "data: 8 conversations repeat an earlier one and are taken once" in words.said
    asked = {name: row["messages"][0]["content"] for name, row in talks.items()}
    sides = {
        kind: {asked[name] for name, row in talks.items() if row["kind"] == kind} for kind in ("train", "validation")
    }
    assert not sides["train"] & sides["validation"] and all(sides.values()), "no question on both sides"
    names = [name for step in taken(tmp_path) for name in step["examples"]]
    assert set(Counter(names).values()) == {2} and len(set(names)) == found.examples
    rows = json.loads((tmp_path / "train" / "sources.json").read_bytes())["rows"]
    (text,) = [row for row in rows if row["role"] == "text-target"]
    counted = sum(one["text-target"] for step in taken(tmp_path) for one in step["loss_tokens"])
    assert (
        (text["examples"], text["loss_tokens"])
        == (found.examples, counted)
        == (found.examples, found.tokens["text-target"])
    )
    assert verify(tmp_path).findings == ()


def test_an_epoch_over_prompts_takes_one_answer_of_each_in_turn(run_file: Path, tmp_path: Path) -> None:
    settings = {"method__loss": "cross-entropy", "train__steps": None, "train__epochs": float(SAMPLES)}
    do(run_file, tmp_path, train__epoch_over="prompts", **settings)
    rows = list(read_lines(tmp_path / "data" / "conversations.jsonl"))
    asked = {row["id"]: row["messages"][0]["content"] for row in rows}
    training = {asked[row["id"]] for row in rows if row["kind"] == "train"}
    names = [name for step in taken(tmp_path) for name in step["examples"]]
    for epoch in range(SAMPLES):
        some = names[epoch * len(training) : (epoch + 1) * len(training)]
        assert {asked[name] for name in some} == training and len(some) == len(training)
    times = Counter(names)
    for question in training:
        answers = [name for name, text in asked.items() if text == question]
        assert {times[name] for name in answers} == {SAMPLES // len(answers)}, "each answer has its turn"
    assert verify(tmp_path).findings == ()


def test_prompts_are_told_apart_by_their_tokens() -> None:
    some = [example((1, 2), (5, END), "a"), example((1,), (2, 5, END), "b"), example((1, 2), (6, END), "c")]
    assert by_prompt(some) == [(0, 2), (1,)]
    source = PromptSource(some, Text(make("cross-entropy")), TrainTable(epochs=4, batch_size=1), 0)
    assert source.plan == (2, 8)
    rows = [source.rows(step)[0] for step in range(8)]
    assert Counter(rows) == {1: 4, 0: 2, 2: 2}
    again = PromptSource(some, Text(make("cross-entropy")), TrainTable(epochs=4, batch_size=1), 0)
    assert [again.rows(step)[0] for step in (7, 3, 0)] == [rows[7], rows[3], rows[0]], "a function of the step"


def test_it_is_for_answers_of_the_data_alone(run_file: Path, tmp_path: Path) -> None:
    for changes in ({"method__loss": "dpo"}, {"method__loss": "cross-entropy", "data__rationale_marker": "####"}):
        with pytest.raises(TutelageError, match="answers of the data alone"):
            do(run_file, tmp_path / "run", train__epoch_over="prompts", **changes)
