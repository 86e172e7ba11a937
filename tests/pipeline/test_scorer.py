"""Training by an endpoint that scores our text: what it costs, what is checked, and that nothing is paid twice."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.models.tiny import save_tiny
from tests.pipeline.scoring_endpoint import Endpoint, scoring
from tests.pipeline.test_training import RUN_FILE, write_talks
from tutelage.errors import BudgetError, ConfigError, Interrupted, SignalError, TeacherError
from tutelage.jsonl import read_lines
from tutelage.ledger.verify import verify
from tutelage.pipeline.rendering import Rows
from tutelage.pipeline.run import Run
from tutelage.pipeline.scorer import TRIED, expected
from tutelage.pipeline.training import Trained, ready, train_student
from tutelage.progress import Quiet, Stop
from tutelage.run_file import load_training_config
from tutelage.store.store import Store
from tutelage.train.examples import Example

TEACHER = '[teacher]\nurl = "{url}"\nmodel = "tiny"\nlicence = "Apache-2.0"\nattempts = 1\ntop_logprobs = 8\n'


class Said(Quiet):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without padded rows: an endpoint's log-probabilities are over all columns of its head."""
    folder = save_tiny(tmp_path_factory.mktemp("weights"))
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.resize_token_embeddings(len(AutoTokenizer.from_pretrained(folder)))
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def endpoint(weights: Path) -> Iterator[Endpoint]:
    with scoring(weights) as running:
        yield running


@pytest.fixture
def run_file(tmp_path: Path, weights: Path, endpoint: Endpoint) -> Path:
    before, after = RUN_FILE.format(data=write_talks(tmp_path / "talks.jsonl"), teacher=weights).split("[teacher]", 1)
    text = before + TEACHER.format(url=endpoint.base_url) + "[student]" + after.split("[student]", 1)[1]
    path = tmp_path / "run.toml"
    path.write_text(text)
    return path


def do(
    run_file: Path, out: Path, progress: Quiet | None = None, stop: Stop | None = None, **overrides: object
) -> Trained:
    settings: dict[str, object] = {"method.loss": "sampled-reverse-kl", "method.prefix": "student", "train.steps": 2}
    settings |= {"train.precision": "float32"} | overrides  # whatever the machine multiplies natively
    config = load_training_config(run_file, settings)
    with Run(out, progress or Quiet(), Stop() if stop is None else stop) as run:
        return train_student(ready(config), run)


def metrics(out: Path) -> list[dict[str, Any]]:
    return list(read_lines(out / "train" / "metrics.jsonl"))


def test_it_is_the_same_training_as_with_the_weights_here(
    run_file: Path, tmp_path: Path, weights: Path, endpoint: Endpoint
) -> None:
    said = Said()
    found = do(run_file, tmp_path / "far", said)
    beside = tmp_path / "near.toml"
    text = run_file.read_text()
    start, end = text.index("[teacher]"), text.index("[student]")
    beside.write_text(
        text[:start] + f'[teacher]\npath = "{weights}"\nlicence = "Apache-2.0"\nprecision = "float32"\n\n' + text[end:]
    )
    do(beside, tmp_path / "near")
    far, near = metrics(tmp_path / "far"), metrics(tmp_path / "near")
    assert far[0]["loss_nats"] == pytest.approx(near[0]["loss_nats"], abs=2e-6)  # what micro-nats and float32 leave
    assert far[-1]["grad_norm"] == pytest.approx(near[-1]["grad_norm"], rel=1e-4)
    assert found.tokens["soft-target"] > 0
    assert any("tokens are the student's" in line for line in said.lines)
    (cost,) = [line for line in said.lines if line.startswith("scores: about")]
    assert f"about {len(endpoint.asked)} texts" in cost, "the look's are counted too"
    assert endpoint.tokens <= int(cost.split("at most ")[1].split(")")[0].replace(",", ""))
    assert {body["logprobs"] for body in endpoint.asked} == {1, 8}


def test_the_record_names_the_endpoint_and_verifies(run_file: Path, tmp_path: Path, endpoint: Endpoint) -> None:
    out = tmp_path / "out"
    found = do(run_file, out)
    rows = json.loads((out / "train" / "sources.json").read_bytes())["rows"]
    (row,) = [row for row in rows if row["role"] == "soft-target"]
    assert (row["teacher"], row["weights"], row["loss_tokens"]) == ("tiny", "", found.tokens["soft-target"])
    assert row["route"].startswith("loopback:")
    assert not verify(out).findings
    with Store(out / "store") as store:
        kept = [line.value for line in store.records("exchange")]
    assert len(kept) == len(endpoint.asked) and {one["role"] for one in kept} == {"scorer"}
    assert all(one["terms_digest"].startswith("sha256:") for one in kept)
    log = [line for line in read_lines(out / "ledger" / "log.jsonl") if line["kind"] == "statement"]
    (trained,) = [line for line in log if line["stage"] == "train"]
    assert trained["facts"]["settled_tokens"] == endpoint.tokens
    lying = json.loads((out / "train" / "sources.json").read_bytes())
    lying["rows"][0]["loss_tokens"] += 1
    (out / "train" / "sources.json").write_text(json.dumps(lying))
    assert verify(out).findings


def test_both_forms_and_top_k_on_either_text(run_file: Path, tmp_path: Path, endpoint: Endpoint) -> None:
    losses = []
    for form in ("echo", "prompt_logprobs"):
        for prefix in ("student", "data", 0.5):
            out = tmp_path / f"{form}-{prefix}"
            changed = {"method.loss": "top-k-reverse-kl", "method.prefix": prefix, "teacher.scores": form}
            do(run_file, out, **changed)
            losses.append([line["loss_nats"] for line in metrics(out)])
            assert not verify(out).findings
    for echo, prompt in zip(losses[:2], losses[3:5], strict=True):
        # Echo names candidates by their text: of those that are no UTF-8 alone, what several share is left in the tail, and
        # merging never raises a divergence.
        assert 0 < echo[0] <= prompt[0] + 1e-3


def test_a_stopped_run_pays_nothing_twice(run_file: Path, tmp_path: Path, endpoint: Endpoint) -> None:
    do(run_file, tmp_path / "whole", **{"train.steps": 4})
    whole, endpoint.asked = len(endpoint.asked), []
    stop = Stop()
    endpoint.bend = lambda answer: stop.set() if len(endpoint.asked) == whole - 6 else None
    with pytest.raises(Interrupted):
        do(run_file, tmp_path / "out", stop=stop, **{"train.steps": 4})
    assert len(endpoint.asked) < whole
    endpoint.bend = lambda answer: None
    do(run_file, tmp_path / "out", **{"train.steps": 4})
    assert len(endpoint.asked) == whole
    texts = [(*body["prompt"], body["logprobs"]) for body in endpoint.asked]
    assert len(set(texts)) == len(texts)
    one, other = (tmp_path / name / "student" / "model.safetensors" for name in ("whole", "out"))
    assert one.read_bytes() == other.read_bytes()


def test_another_tokenizer_is_refused_before_the_first_step(run_file: Path, tmp_path: Path, endpoint: Endpoint) -> None:
    def other(answer: dict[str, Any]) -> None:
        answer["choices"][0]["logprobs"]["tokens"][3] = "else"

    endpoint.bend = other
    with pytest.raises(SignalError, match=r"another tokenizer.*token 3 is .* and 'else' there"):
        do(run_file, tmp_path / "out")
    assert not (tmp_path / "out" / "train").exists()
    with Store(tmp_path / "out" / "store") as store:
        assert not list(store.records("exchange"))

    def fewer(answer: dict[str, Any]) -> None:
        del answer["choices"][0]["prompt_logprobs"][-1]

    endpoint.bend = fewer
    with pytest.raises(SignalError, match="tokens came back for"):
        do(run_file, tmp_path / "out", **{"teacher.scores": "prompt_logprobs"})


def test_what_it_reports_must_be_scores(run_file: Path, tmp_path: Path, endpoint: Endpoint) -> None:
    def none(answer: dict[str, Any]) -> None:
        answer["choices"][0]["logprobs"] = None

    def swollen(answer: dict[str, Any]) -> None:
        answer["choices"][0]["logprobs"]["top_logprobs"][-1] |= {"good": -0.01, "bad": -0.01}

    for bend, words in ((none, "scores no text by echo"), (swollen, "of all probability")):
        endpoint.bend = bend
        with pytest.raises(SignalError, match=words):
            do(run_file, tmp_path / "out")
    endpoint.bend, endpoint.refuse = lambda answer: None, 404
    with pytest.raises(TeacherError, match="404"):
        do(run_file, tmp_path / "out")


def test_a_teacher_that_is_swapped_is_refused(run_file: Path, tmp_path: Path, endpoint: Endpoint) -> None:
    endpoint.stop_after = 9
    with pytest.raises(TeacherError):
        do(run_file, tmp_path / "out")
    endpoint.stop_after, endpoint.fingerprint = None, "fp-two"
    with pytest.raises(SignalError, match=r"'tiny fp-one'.*'tiny fp-two'"):
        do(run_file, tmp_path / "out")


def test_of_a_prompt_with_several_answers_one_is_scored_an_epoch(run_file: Path) -> None:
    changed = {"method.loss": "top-k-forward-kl", "train.steps": None, "train.epochs": 1.0, "train.batch_size": 2}
    free: Any = SimpleNamespace(prices=SimpleNamespace(bound_nusd=lambda given, said: 7), form="echo")
    train = tuple(
        Example((prompt, 1, answer), (2,), f"{prompt}.{answer}") for prompt in range(6) for answer in range(4)
    )
    rows = Rows(train, train[:2], {})
    for over, texts in (("answers", 24 + 2), ("prompts", 6 + 2 + len(train[:TRIED]))):
        config = load_training_config(run_file, changed | {"train.epoch_over": over})
        found = expected(config, free, rows)
        assert (found.texts, found.nusd, found.most_nusd) == (texts, 7 * texts, 7 * texts), "a fee is of each text"


def test_the_budget_holds(run_file: Path, tmp_path: Path, endpoint: Endpoint) -> None:
    for _ in range(2):  # over all starts
        with pytest.raises(BudgetError):
            do(run_file, tmp_path / "out", **{"budget.max_tokens": 400})
        assert endpoint.tokens <= 400


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"method.loss": "forward-kl"}, "nearest to it: loss = \"top-k-forward-kl\""),
        ({"method.loss": "reverse-kl"}, "nearest to it: loss = \"top-k-reverse-kl\""),
        ({"method.loss": "reverse-kl", "teacher.top_logprobs": 1}, "nearest to it: loss = \"sampled-reverse-kl\""),
        ({"method.loss": "alm"}, "nearest to it"),
        ({"method.loss": "cross-entropy", "method.prefix": "data"}, "asks no teacher"),
        ({"method.signal": "dense"}, "leave it out"),
    ],
)  # fmt: skip
def test_methods_that_scores_cannot_support_are_refused(
    run_file: Path, tmp_path: Path, changed: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        do(run_file, tmp_path / "out", **changed)
    assert words in str(refused.value)
