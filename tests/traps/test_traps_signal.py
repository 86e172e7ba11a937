"""Traps in what is learnt from: gradients under adapters, precision, padding, vocabularies, failed answers. Ids as in
docs/traps.md."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tests.models.tiny import save_tiny
from tests.test_records import exchange
from tests.train.students import student as small_student
from tutelage.collect.conversations import split as split_talks
from tutelage.collect.conversations import stored_talks
from tutelage.collect.importing import Declared, import_file
from tutelage.config import TrainTable
from tutelage.errors import DataError
from tutelage.losses.catalogue import make
from tutelage.models.causal import Causal
from tutelage.progress import Quiet
from tutelage.records import Exchange, Message, Request
from tutelage.redact import Secrets
from tutelage.store.signal_kinds import TopKTail
from tutelage.store.signals import Identity, SignalCache, SignalWriter
from tutelage.store.store import Store
from tutelage.train.capture import capture
from tutelage.train.examples import CUT, Example, render
from tutelage.train.loop import choose_trainable, plan_steps, precision, take
from tutelage.train.lora import add_lora
from tutelage.train.memory import Fit
from tutelage.train.offpolicy import DataSource, passage_of
from tutelage.train.teaching import LiveTeacher, ScoringTeacher, Teaching, Together, Words
from tutelage.train.vocabulary import token_ids_by_bytes
from tutelage.training_config import ConversationsTable

IDS = tuple(torch.randint(0, 61, (20,), generator=torch.Generator().manual_seed(3)).tolist())
ROWS = (Example(IDS, tuple(range(8, 20)), "a"), Example(IDS[5:12], (3, 6), "b"), Example(IDS[2:19], (1, 2, 3), "c"))
TABLE = TrainTable(epochs=1.0, batch_size=3)


def step(student: Causal, teaching: Teaching, bf16: bool = False) -> tuple[float, torch.Tensor]:
    """Mean nats of a step on all rows, and its gradient as one vector."""
    autocast = precision("bfloat16" if bf16 else "float32")
    result = take(student, DataSource(ROWS, teaching, TABLE, 0), range(3), Fit(None), 1e9, autocast)
    trained = [p for p in student.model.parameters() if p.requires_grad]
    slopes = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
    assert all(slope.dtype == p.dtype for slope, p in zip(slopes, trained, strict=True))
    return result.objective_nats / result.loss_tokens, torch.cat([slope.flatten() for slope in slopes])


def distilling(weight: float = 1.0) -> LiveTeacher:
    return LiveTeacher(Causal(small_student(seed=5)), make("forward-kl"), weight=weight)


def test_trap_a5_padding_changes_nothing() -> None:
    """Rows of 19, 6 and 16 tokens, packed and padded to the longest: the same loss and gradient."""
    found = []
    for packs in (True, False):
        student = Causal(small_student())
        assert student.packs
        student.packs = packs
        found.append(step(student, distilling()))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    assert torch.allclose(found[0][1], found[1][1], atol=1e-5)


@pytest.mark.parametrize("count", [1, 7, 8, 9, 23])
def test_trap_a7_an_epochs_last_examples_are_stepped_on_once(count: int) -> None:
    some = [ROWS[at % 3] for at in range(count)]
    table = TrainTable(epochs=2.0, batch_size=4)
    source = DataSource(some, Words(make("cross-entropy")), table, 1)
    plan = source.plan
    assert plan == plan_steps(count, table) == (-(-count // 4), 2 * -(-count // 4))
    for epoch in range(2):
        first = epoch * plan.per_epoch
        taken = [row for at in range(first, first + plan.per_epoch) for row in source.rows(at)]
        assert sorted(taken) == list(range(count))


def test_trap_b1_every_weight_moves_the_gradient_by_its_share() -> None:
    """Total = words + w · distillation, for the reported loss and for the gradient, at each w, 0 among them."""
    words, full = Words(make("cross-entropy")), distilling()
    alone = [step(Causal(small_student()), teaching) for teaching in (words, full)]
    assert alone[1][1].norm() > 0.1
    for weight in (0.0, 0.5, 2.0):
        total = step(Causal(small_student()), Together([words, distilling(weight)]))
        assert total[0] == pytest.approx(alone[0][0] + weight * alone[1][0], rel=1e-5)
        assert torch.allclose(total[1], alone[0][1] + weight * alone[1][1], atol=1e-5)


def test_trap_b2_adapters_learn_from_the_teacher_and_nothing_else_does() -> None:
    def adapted() -> Causal:
        learner = Causal(add_lora(small_student(), 4, 8.0))
        with torch.no_grad():
            for name, parameter in learner.model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(0, 0.05, generator=torch.Generator().manual_seed(1))
        choose_trainable(learner, TABLE)
        assert {"lora_" in name for name, p in learner.model.named_parameters() if p.requires_grad} == {True}
        return learner

    with torch.random.fork_rng():
        torch.manual_seed(0)
        first = adapted()
    loss, slope = step(first, distilling())
    named = [(name, p) for name, p in first.model.named_parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.norm() > 0 for _, p in named)
    # Finite differences through transformers' own forward pass: the adapters that are trained are those that answer.
    teacher = small_student(seed=5)
    for name, parameter in named[:2]:
        at = parameter.grad.abs().flatten().argmax()
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter.view(-1)[at] += sign * 1e-2
                values.append(plain_kl(first.model, teacher))
                parameter.view(-1)[at] -= sign * 1e-2
        assert (values[0] - values[1]) / 2e-2 == pytest.approx(parameter.grad.flatten()[at].item(), rel=0.05), name
    assert loss == pytest.approx(plain_kl(first.model, teacher), rel=1e-4)
    assert slope.norm() > 0


@torch.no_grad()
def plain_kl(model: Any, teacher: Any) -> float:
    total, count = 0.0, 0
    for row in ROWS:
        at = torch.tensor(row.targets) - 1
        logp, logq = (
            one(input_ids=torch.tensor([row.ids])).logits[0, at].double().log_softmax(-1) for one in (teacher, model)
        )
        total, count = total + float((logp.exp() * (logp - logq)).sum()), count + len(at)
    return total / count


def test_trap_b10_a_live_teacher_is_deterministic_and_out_of_the_graph() -> None:
    """Dropout in its configuration, handed over in training mode."""
    teacher = small_student(seed=5, attention_dropout=0.5).train()
    teaching = LiveTeacher(Causal(teacher), make("forward-kl"))
    one, other = (step(Causal(small_student()), teaching) for _ in range(2))
    assert one[0] == other[0] and torch.equal(one[1], other[1])
    assert not any(p.requires_grad or p.grad is not None for p in teacher.parameters())
    assert one[0] == pytest.approx(step(Causal(small_student()), distilling())[0], rel=1e-6)


def test_trap_b10_what_a_teacher_scores_or_is_captured_with_has_no_dropout(tmp_path: Path) -> None:
    """Both in training mode, with dropout that would show; against transformers' own forward pass without it."""
    plain = small_student(seed=5)
    expected = []
    with torch.no_grad():
        for row in ROWS:
            logp_TV = plain(input_ids=torch.tensor([row.ids])).logits[0].log_softmax(-1)
            expected.append(logp_TV[torch.tensor(row.targets) - 1])
    passage = passage_of(ROWS, drawn=[[-1.0] * len(row.targets) for row in ROWS])
    scoring = ScoringTeacher(Causal(small_student(seed=5, attention_dropout=0.5).train()), make("sampled-reverse-kl"))
    (part,) = scoring.parts(passage)
    wanted_N = torch.cat(expected).gather(1, passage.target_ids_N[:, None])[:, 0]
    assert torch.allclose(part.signal.logp_N, wanted_N, atol=1e-4)
    identity = Identity(TopKTail(61), *["sha256:x"] * 7, vocabulary=61)
    with SignalWriter(tmp_path, identity) as writer:
        capture(ROWS, Causal(small_student(seed=5, attention_dropout=0.5).train()), 61, writer, Quiet())
    cache = SignalCache(tmp_path, identity)
    for row, logp_NV in zip(ROWS, expected, strict=True):
        signal: Any = cache.read(torch.tensor(row.ids)).signal
        assert torch.allclose(signal.logp_NK, logp_NV.gather(1, signal.ids_NK), atol=1 / 128)


def test_trap_d7_a_teacher_with_a_padded_head_teaches_the_same() -> None:
    """64 columns that are no tokens, as likely as any: loss, gradient and scores are those of the teacher without them."""
    plain, padded = small_student(seed=5), small_student(seed=6, vocab_size=125)
    with torch.no_grad():
        for narrow, wide in zip(plain.parameters(), padded.parameters(), strict=True):
            wide[: len(narrow)] = narrow
    passage = passage_of(ROWS, drawn=[[-1.0] * len(row.targets) for row in ROWS])
    steps, scores = [], []
    for teacher in (plain, padded):
        steps.append(step(Causal(small_student()), LiveTeacher(Causal(teacher), make("forward-kl"), 61)))
        (part,) = ScoringTeacher(Causal(teacher), make("sampled-reverse-kl"), 61).parts(passage)
        scores.append(part.signal.logp_N)
    assert steps[0][0] == pytest.approx(steps[1][0], rel=1e-5)
    assert torch.allclose(steps[0][1], steps[1][1], atol=1e-6)
    assert torch.allclose(*scores, atol=1e-5)


def test_trap_b11_a_small_step_is_not_lost_to_half_precision(tmp_path: Path) -> None:
    """bf16 only inside the products: weights and gradients stay float32, and a step of 1e-5 of a weight arrives."""
    student = Causal.load(save_tiny(tmp_path))
    weights = [p for p in student.model.parameters() if p.requires_grad]
    assert {p.dtype for p in weights} == {torch.float32}
    before = torch.cat([p.detach().flatten().clone() for p in weights])
    teaching = LiveTeacher(Causal(small_student(vocab_size=328, seed=5)), make("forward-kl"))
    _, slope = step(student, teaching, bf16=True)
    assert slope.dtype == torch.float32
    with torch.no_grad():
        for parameter in weights:
            parameter.mul_(1 + 1e-5)
    after = torch.cat([p.detach().flatten() for p in weights])
    assert ((after != before) | (before == 0)).all()
    exact = step(Causal.load(tmp_path), teaching)[1]
    assert torch.nn.functional.cosine_similarity(slope, exact, dim=0) > 0.99


def test_trap_d12_bytes_that_are_two_tokens_are_none() -> None:
    """SentencePiece vocabularies spell `A` twice, as a byte and as text: texts hold the text's id. What is left ambiguous is no
    one's."""
    names = ["<unk>", "<0x41>", "<0x42>", "A", "▁A", " A", "film"]
    inner = Tokenizer(
        models.BPE({name: at for at, name in enumerate(names)}, [], unk_token="<unk>", byte_fallback=True)
    )
    inner.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    ids = token_ids_by_bytes(PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>"))
    assert ids == {b"A": 3, b"B": 2, b"film": 6}


def answer(number: int, finish: str = "stop", said: str = "good") -> tuple[Request, Exchange, bytes]:
    request = Request((Message("user", f"the film {number * 7919}"),), {}, "m", "remote", "train", 0)
    value = {**exchange(request).to_json(), "answer": said, "finish_reason": finish, "logprobs": []}
    return request, Exchange.from_json(value), b"{}"


def test_trap_c9_e4_cut_and_empty_answers_are_counted_and_never_learnt(tmp_path: Path) -> None:
    """Of six answers two were cut at their limit and one is empty: three are learnt, and the numbers add up."""
    finishes = ("stop", "length", "stop", "length", "stop", "stop")
    with Store(tmp_path / "store") as store:
        for number, finish in enumerate(finishes):
            store.put(*answer(number, finish, "" if number == 2 else "good"))
        addresses = [line.digest for line in store.records("request")]
        found = stored_talks(store.pairs(addresses), ConversationsTable(collected=str(tmp_path)))
    cut = {talk.id for talk in found.talks if talk.cut}
    tokenizer: Any = AutoTokenizer.from_pretrained(save_tiny(tmp_path / "tiny"))
    rendered = render([(t.id, t.messages) for t in found.talks], tokenizer, 64, cut=lambda source: source in cut)
    assert rendered.dropped == {CUT: 2}
    assert len(rendered.examples) == 3 == len(finishes) - 2 - 1


@pytest.mark.parametrize("said", ["", "  \n", None])
def test_trap_e4_a_row_without_an_answer_is_named_and_not_stored(tmp_path: Path, said: str | None) -> None:
    good = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
    bad = {"messages": [{"role": "user", "content": "r"}, {"role": "assistant", "content": said}]}
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(good) + "\n" + json.dumps(bad) + "\n")
    declared = Declared("m", "p", "own")
    with Store(tmp_path / "store") as store:
        with pytest.raises(DataError, match="1 bad rows of 2: line 2"):
            import_file(path, store, declared, Secrets({}))
        found = import_file(path, store, declared, Secrets({}), bad_rows="skip")
        assert (found.added, found.known, len(found.bad), found.rows) == (1, 0, 1, 2)
        assert len(list(store.records("exchange"))) == 1


def test_collected_answers_that_teach_nothing_stop_the_training_unless_they_are_skipped(tmp_path: Path) -> None:
    with Store(tmp_path / "store") as store:
        for at, said in enumerate(("why</think>so", "why</think>")):
            request = Request((Message("user", f"question {at}"),), {}, "m", "remote", "train", 0)
            store.put(request, Exchange.from_json({**exchange(request).to_json(), "answer": said}), b"{}")
        addresses = [line.digest for line in store.records("request")]
        table = ConversationsTable(collected=str(tmp_path), rationale_marker="</think>")
        with pytest.raises(DataError, match="1 of 2 collected answers teach nothing, the first answer 2") as caught:
            stored_talks(store.pairs(addresses), table)
        assert "data.rationale_marker" in caught.value.fix
        found = stored_talks(store.pairs(addresses), table.model_copy(update={"bad_rows": "skip"}))
    assert (len(found.talks), len(found.bad)) == (1, 1)


def test_trap_e5_near_duplicates_of_a_question_are_on_one_side(tmp_path: Path) -> None:
    """Twenty questions, each asked again with another mark at its end, and the same question with two answers."""
    words = ["alpha", "beta", "gamma", "delta", "omega"]
    with Store(tmp_path / "store") as store:
        for at in range(20):
            text = f"{words[at % 5]} number {at} and {words[(at * 3) % 5]} again {at * 7}"
            for mark, said in (("", "one"), ("!", "two"), ("", "three")):
                request = Request((Message("user", text + mark),), {}, "m", "remote", "train", int(said == "three"))
                store.put(request, Exchange.from_json({**exchange(request).to_json(), "answer": said}), b"{}")
        addresses = [line.digest for line in store.records("request")]
        talks = stored_talks(store.pairs(addresses), ConversationsTable(collected=str(tmp_path))).talks
    assert len(talks) == 60
    found = split_talks(talks, 0.25, 3)
    questions = [{talks[at].messages[0]["content"].rstrip("!") for at in part} for part in found[:2]]
    assert not questions[0] & questions[1]
    assert (len(found.train), len(found.validation), found.groups) == (45, 15, 20)
