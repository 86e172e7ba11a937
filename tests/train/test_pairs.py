"""Pairs of answers: DPO's loss and gradient exactly, means that do not depend on passes, what is no pair, and exact resuming."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.models.tiny import save_tiny
from tutelage.config import TrainTable
from tutelage.errors import DataError, Interrupted
from tutelage.losses.catalogue import make
from tutelage.models.causal import Causal
from tutelage.progress import Quiet, Stop
from tutelage.train.examples import Example
from tutelage.train.judging import HeldOutJudge
from tutelage.train.loop import Loop, precision, take, train
from tutelage.train.memory import Fit
from tutelage.train.onpolicy import written
from tutelage.train.pairs import Pair, PairJudge, PairSource, Snapshot, snapshot
from tutelage.train.rollout_local import LocalRoller
from tutelage.train.teaching import Words

BETA, END = 0.3, 2
PLAIN = precision("float32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


def example(prompt: tuple[int, ...], answer: tuple[int, ...], source: str = "") -> Example:
    ids = prompt + answer
    return Example(ids, tuple(range(len(prompt), len(ids))), source)


def pair(at: int, chosen: tuple[int, ...], rejected: tuple[int, ...]) -> Pair:
    prompt = (70 + at, 80, 90 + at)
    return Pair(example(prompt, chosen, str(at)), example(prompt, rejected, str(at)))


PAIRS = (
    pair(0, (100, 101, END), (102, END)),
    pair(1, (103, END), (104, 105, 106, 107, 108)),  # cut
    pair(2, (109, 110, 111, 112, END), (END,)),  # empty
    pair(3, (113, END), (114, END)),
)


def moved(folder: Path) -> Causal:
    """The student after it has learnt something."""
    student = Causal.load(folder)
    with torch.no_grad():
        for parameter in student.model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
    return student


def logq(model: Any, one: Example) -> torch.Tensor:
    """log q of the answer's tokens, by the plain way."""
    logits = model(input_ids=torch.tensor([one.ids]), use_cache=False).logits[0].log_softmax(-1)
    at = torch.tensor(one.targets)
    return logits[at - 1, torch.tensor(one.ids)[at]]


def by_hand(folder: Path, student: Any, text_weight: float) -> torch.Tensor:
    """Mean over pairs of −log σ(β · margin), and the mean cross-entropy of the preferred tokens."""
    reference = Causal.load(folder).model
    losses, words = [], []
    for one in PAIRS:
        with torch.no_grad():
            before = [logq(reference, answer).sum() for answer in one]
        now = [logq(student, answer) for answer in one]
        margin = (now[0].sum() - before[0]) - (now[1].sum() - before[1])
        losses.append(-torch.nn.functional.logsigmoid(BETA * margin))
        words.append(-now[0])
    return torch.stack(losses).mean() + text_weight * torch.cat(words).mean()


@pytest.mark.parametrize("text_weight", [0.0, 0.5])
@pytest.mark.parametrize("limit", [None, 12])
def test_a_step_is_the_mean_over_pairs_whatever_the_passes(folder: Path, text_weight: float, limit: int | None) -> None:
    student, plain = moved(folder), moved(folder).model
    first = snapshot(Causal.load(folder), PAIRS, PLAIN)
    source = PairSource(first, make("dpo", beta=BETA), TrainTable(epochs=1, batch_size=4), 0, text_weight=text_weight)
    rows = source.rows(0)
    result = take(student, source, rows, Fit(limit), 1e9, PLAIN)
    expected = by_hand(folder, plain, text_weight)
    expected.backward()
    assert result.objective_nats / result.loss_tokens == pytest.approx(expected.item(), rel=1e-5)
    assert result.by_role == {"text-target": 12, "own-text": 10}
    for (name, one), other in zip(student.model.named_parameters(), plain.parameters(), strict=True):
        assert one.grad is not None and other.grad is not None
        assert torch.allclose(one.grad, other.grad, rtol=1e-3, atol=1e-6), name
    assert [source.by_role(row) for row in range(4)] == [
        {"text-target": chosen, "own-text": rejected} for chosen, rejected in ((3, 2), (2, 5), (5, 1), (2, 2))
    ]


def test_the_loss_and_its_gradient_are_trls(folder: Path, tmp_path: Path) -> None:
    trl = pytest.importorskip("trl")
    from datasets import Dataset
    from transformers import AutoTokenizer

    arguments = trl.DPOConfig(str(tmp_path), beta=BETA, report_to=[], use_cpu=True, bf16=False)
    data = Dataset.from_list([{"prompt": "the", "chosen": " film", "rejected": " plot"}])
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    theirs = moved(folder).model
    trainer: Any = trl.DPOTrainer(
        theirs, Causal.load(folder).model, arguments, train_dataset=data, processing_class=tokenizer
    )
    every = [one.chosen for one in PAIRS] + [one.rejected for one in PAIRS]
    width = max(len(one.ids) for one in every)
    inputs = {"input_ids": [], "attention_mask": [], "completion_mask": []}
    for one in every:
        padding, count = [0] * (width - len(one.ids)), len(one.ids)
        inputs["input_ids"].append([*one.ids, *padding])
        inputs["attention_mask"].append([1] * count + padding)
        inputs["completion_mask"].append([int(at in one.targets) for at in range(count)] + padding)
    expected = trainer._compute_loss(theirs, {name: torch.tensor(rows) for name, rows in inputs.items()}, False)
    expected.backward()
    student, first = moved(folder), snapshot(Causal.load(folder), PAIRS, PLAIN)
    source = PairSource(first, make("dpo", beta=BETA), TrainTable(epochs=1, batch_size=4), 0)
    found = take(student, source, source.rows(0), Fit(None), 1e9, PLAIN)
    assert found.objective_nats / 4 == pytest.approx(expected.item(), rel=1e-5)
    for (name, one), other in zip(student.model.named_parameters(), theirs.parameters(), strict=True):
        assert one.grad is not None and other.grad is not None
        assert torch.allclose(one.grad, other.grad, rtol=1e-3, atol=1e-6), name


def test_the_judge_says_how_often_and_by_how_much_the_preferred_answer_wins(folder: Path) -> None:
    first, loss = snapshot(Causal.load(folder), PAIRS, PLAIN), make("dpo", beta=BETA)
    text = HeldOutJudge([one.chosen for one in PAIRS], Words(make("cross-entropy")))
    judge = PairJudge(first, loss, text, 0.5)
    before = judge(Causal.load(folder), PLAIN)
    assert before.metrics["validation_margin_nats"] == pytest.approx(0, abs=1e-5)
    student = moved(folder)
    seen = judge(student, PLAIN)
    assert seen.score_nats == pytest.approx(by_hand(folder, student.model, 0.5).item(), rel=1e-5)
    with torch.no_grad():
        won = [sum((logq(student.model, answer).sum() - logq(Causal.load(folder).model, answer).sum()).item() * side
                   for side, answer in zip((1, -1), one, strict=True)) for one in PAIRS]  # fmt: skip
    assert seen.metrics["validation_margin_nats"] == pytest.approx(sum(won) / 4, rel=1e-4)
    assert seen.metrics["validation_preferred"] == sum(one > 0 for one in won) / 4
    assert 0 < seen.metrics["validation_preferred"] < 1, "both signs are tried"
    assert (seen.metrics["validation_chosen_tokens"], seen.metrics["validation_rejected_tokens"]) == (3.0, 2.5)
    assert seen.facts["objective_unats"] == round(1e6 * seen.score_nats)


def test_an_answer_that_says_nothing_else_is_no_pair() -> None:
    chosen = (100, 101, END)
    assert pair(0, chosen, chosen).alike
    assert pair(0, chosen, (100, 101)).alike, "cut while it said the same"
    assert not pair(0, chosen, (100, END)).alike and not pair(0, chosen, (100, 101, 102)).alike
    assert not pair(0, chosen, (END,)).alike and not pair(0, (100, END), (100, END, END)).alike
    with pytest.raises(DataError, match="no pair"):
        snapshot(None, (), PLAIN)  # type: ignore[arg-type]


class Renewing:
    """Snapshots of the student as it stands, kept by the epoch."""

    def __init__(self, student: Causal) -> None:
        self._student, self.kept, self.asked = student, dict[int, Snapshot](), list[tuple[int, bool]]()

    def __call__(self, epoch: int, begins: bool) -> Snapshot:
        self.asked.append((epoch, begins))
        if begins:
            prompts = [one.chosen.ids[:3] for one in PAIRS]
            own = LocalRoller(self._student.model).write(prompts, 6, 1.0, [epoch * 10 + at for at in range(4)])
            new = [Pair(old.chosen, written(one, old.chosen.source)) for old, one in zip(PAIRS, own, strict=True)]
            self.kept[epoch] = snapshot(self._student, new, PLAIN)
        return self.kept[epoch]


@pytest.mark.parametrize("renews", [False, True])
def test_a_resumed_run_ends_in_the_same_bits(folder: Path, tmp_path: Path, renews: bool) -> None:
    table = TrainTable(epochs=3, batch_size=2, learning_rate=1e-3, precision="float32", checkpoint_every_s=1e-9)
    kept: dict[int, Snapshot] = {}

    def run(work: Path, stop: Stop, log: list[dict[str, Any]]) -> Causal:
        student = Causal.load(folder)
        first, again = snapshot(student, PAIRS, PLAIN), Renewing(student)
        again.kept = kept
        loss = make("dpo", beta=BETA)
        source = PairSource(first, loss, table, 3, text_weight=0.1, again=again if renews else None)
        judge = PairJudge(first, loss, HeldOutJudge([one.chosen for one in PAIRS], Words(make("cross-entropy"))))

        class Log(list):
            def append(self, entry: dict[str, Any]) -> None:
                log.append(entry)
                if entry["step"] == 5:
                    stop.set()

        train(student, source, judge, Loop(table, 3, work, Quiet(), stop, Log().append))
        return student

    class Never(Stop):
        def set(self, *args: Any) -> None:
            pass

    full, parts = list[dict[str, Any]](), list[dict[str, Any]]()
    whole = run(tmp_path / "one", Never(), full)
    kept.clear()
    with pytest.raises(Interrupted):
        run(tmp_path / "two", Stop(), parts)
    again = run(tmp_path / "two", Never(), parts)
    for one, other in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert [step["loss_nats"] for step in full] == [step["loss_nats"] for step in parts]
    assert len(full) == 6 and (sorted(kept) == [1, 2]) == renews
