"""A teacher with another tokenizer: what it reads, and that its log-probabilities stand at the student's chunks."""

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.models.tokenizers_for_tests import byte_tokenizer, metaspace, small_bpe
from tutelage.errors import SignalError
from tutelage.losses.catalogue import make
from tutelage.losses.chunked import values
from tutelage.models.causal import Causal
from tutelage.models.tokens import TokenBytes
from tutelage.pipeline.crossing import require_common
from tutelage.train.chunks import (
    ChunkTeacher,
    MatchTeacher,
    RankTeacher,
    RecordedChunks,
    bits_per_byte,
    log_likelihoods,
)
from tutelage.train.crossing import LONG, OTHER, SPECIAL, Crossing
from tutelage.train.examples import Example, end_of_turn_ids, render
from tutelage.train.offpolicy import batch_of, passage_of
from tutelage.train.vocabulary import token_ids_by_bytes

BYTES, BPE = byte_tokenizer(), small_bpe()
TALKS = [
    (
        "a",
        [{"role": "user", "content": "the cat?"}, {"role": "assistant", "content": "The cat sat on the mat; 日本 🙂"}],
    ),
    ("b", [{"role": "user", "content": "cost"}, {"role": "assistant", "content": "12 € and <eos>\n\nthere"}]),
]
HEARD = dict(TALKS)


def model(tokenizer: Any, seed: int) -> Causal:
    config = LlamaConfig(
        vocab_size=len(tokenizer.get_vocab()), hidden_size=32, intermediate_size=48, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=256, initializer_range=0.3,
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Causal(LlamaForCausalLM(config).eval())


def crossing(student: Any = BYTES, teacher: Any = BPE, limit: int = 256) -> Crossing:
    return Crossing(student, teacher, HEARD, end_of_turn_ids(student), limit)


def examples(tokenizer: Any = BYTES) -> tuple[Example, ...]:
    return render(TALKS, tokenizer, 256).examples


@pytest.mark.parametrize("student", [BYTES, BPE, metaspace()], ids=["bytes", "bpe", "metaspace"])
@pytest.mark.parametrize("teacher", [BYTES, BPE, metaspace()], ids=["bytes", "bpe", "metaspace"])
def test_the_teacher_reads_its_own_prompt_and_the_same_bytes(student: Any, teacher: Any) -> None:
    for example, (_, messages) in zip(examples(student), TALKS, strict=True):
        one = crossing(student, teacher)(example)
        if student is BPE and "<eos>" in messages[-1]["content"]:
            assert one.missing == SPECIAL  # the student's template makes the special token of it
            continue
        assert not one.missing
        prompt = teacher.apply_chat_template(messages[:-1], add_generation_prompt=True, return_dict=False)
        assert list(one.ids[: one.first]) == prompt
        assert one.ids[-1] == teacher.eos_token_id if teacher is not BPE else one.ids[-1] in end_of_turn_ids(BPE)
        assert [chunk.left_stop for chunk in one.chunks][-1] == len(example.targets)
        assert one.sizes[-1] == 0
        assert sum(one.sizes) == len(messages[-1]["content"].encode())
        if student is teacher:
            assert [tuple(chunk) for chunk in one.chunks] == [
                (at, at + 1, at, at + 1) for at in range(len(example.targets))
            ]


def test_what_cannot_be_compared_is_named_and_left_out() -> None:
    whole, start = examples()[1], examples()[1].targets[0]
    changed = Crossing(BYTES, metaspace(lowercase=True), HEARD, end_of_turn_ids(BYTES), 256)(examples()[0])
    assert (changed.missing, changed.chunks) == (OTHER, ())  # "The": the first byte is another one
    assert crossing(limit=20)(whole).missing == LONG
    assert all(one.right_stop + crossing(limit=20)(whole).first <= 20 for one in crossing(limit=20)(whole).chunks)
    special = BYTES.convert_tokens_to_ids("<|im_start|>")
    inside = Example(
        (*whole.ids[: start + 3], special, *whole.ids[start + 3 :]), (*whole.targets, whole.targets[-1] + 1), "b"
    )
    found = crossing()(inside)
    assert found.missing == SPECIAL
    assert sum(found.sizes) == 3
    cut = Example(whole.ids[:-1], whole.targets[:-1], "b")
    assert not crossing()(cut).missing
    assert crossing()(cut).chunks == crossing()(whole).chunks[:-2], (
        "the last piece of an answer that was cut says nothing"
    )
    half = Example((*whole.ids[:start], BYTES.convert_tokens_to_ids("Ã")), (start,), "b")
    assert crossing()(half).missing == OTHER
    assert crossing()(Example((*whole.ids[:start], BYTES.eos_token_id), (start,), "b")).sizes == (0,), (
        "an empty answer ends"
    )


def test_a_teacher_without_a_template_reads_plain_text_and_knows_no_end() -> None:
    plain = small_bpe()
    plain.chat_template = None
    one = Crossing(BYTES, plain, HEARD, end_of_turn_ids(BYTES), 256)(examples()[1])
    assert plain.decode(one.ids) == "<bos>cost\n\n12 € and <eos>\n\nthere"
    assert not one.missing
    assert one.chunks[-1].left_stop == len(examples()[1].targets) - 1
    assert 0 not in one.sizes


def test_log_probabilities_stand_at_the_chunks_that_they_are_of() -> None:
    teacher, student, loss = model(BPE, 1), model(BYTES, 2), make("alm", tau=5.0)
    found = batch_of(examples(), ChunkTeacher(teacher, loss, crossing(), weight=2.0), (0, 1), "cpu")
    (part,) = found.terms[0].parts
    number = 0
    place = 0
    for example in examples():
        one = crossing()(example)
        with torch.no_grad():
            logits_TV = teacher.model(input_ids=torch.tensor([one.ids])).logits[0].log_softmax(-1)
        logp = logits_TV[one.first - 1 : -1].gather(1, torch.tensor(one.ids[one.first :])[:, None])[:, 0]
        for chunk in one.chunks:
            mine = part.signal.unit_N == number
            assert mine.nonzero()[:, 0].tolist() == list(range(place + chunk.left_start, place + chunk.left_stop))
            expected = logp[chunk.right_start : chunk.right_stop].sum()
            torch.testing.assert_close(part.signal.logp_N[mine].sum(), expected, rtol=1e-4, atol=1e-4)
            number += 1
        place += len(example.targets)
    hidden = student.hidden(found.ids_T, found.lengths)[found.terms[0].positions_N]
    assert torch.isfinite(values(hidden, student.head(), (part,))[0]).all()


def test_an_answer_that_shares_no_piece_with_what_was_collected_has_no_loss_and_is_told() -> None:
    some, told = examples(), list[str]()
    first = (b"\n\nno such beginning", -1.0)
    said = {one.source: [first] if one.source == "b" else [(b"The cat sat", -2.0)] for one in some}
    recorded = RecordedChunks(said, make("alm", tau=5.0), BYTES, end_of_turn_ids(BYTES))
    student = model(BYTES, 3)
    for one in some:
        passage = passage_of([one])
        hidden = student.hidden(passage.ids_T, passage.lengths)[passage.positions_N]
        (nats_N,) = values(hidden, student.head(), recorded.parts(passage))
        assert torch.isfinite(nats_N).all()
        assert bool(nats_N.any()) == (one.source == "a")
    with pytest.raises(SignalError, match=r"only 11 of \d+ tokens"):
        require_common(recorded, some, told.append)
    assert told[0].startswith("warning: 1 of 2 answers") and "no such beginning" in told[0]
    whole = {one.source: [(b"".join(recorded.spelled(one).ours), -2.0)] for one in some}
    require_common(RecordedChunks(whole, make("alm"), BYTES, end_of_turn_ids(BYTES)), some, told.append)
    assert len(told) == 1


def test_likelihoods_do_not_depend_on_what_is_read_together(monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = model(BPE, 1)
    texts = [(one.ids, one.first) for one in map(crossing(), examples())]
    texts.insert(1, ((5, 6), 2))  # nothing to score
    together = log_likelihoods(teacher, texts)
    monkeypatch.setattr("tutelage.train.chunks.PASS_TOKENS", 1)
    for one, other in zip(together, log_likelihoods(teacher, texts), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    assert len(together[1]) == 0


def test_with_one_tokenizer_and_model_twice_both_cost_the_same_and_the_loss_is_least() -> None:
    student = model(BPE, 3)
    own = Crossing(BPE, BPE, HEARD, end_of_turn_ids(BPE), 256)
    crossed = [own(example) for example in examples(BPE)]
    ours = log_likelihoods(student, [(one.ids, one.targets[0]) for one in examples(BPE)])
    theirs = log_likelihoods(student, [(one.ids, one.first) for one in crossed])
    assert bits_per_byte(crossed, ours, student=True) == pytest.approx(bits_per_byte(crossed, theirs, student=False))
    passage = passage_of(examples(BPE))
    loss = make("alm")
    (part,) = ChunkTeacher(student, loss, own).parts(passage)
    logq = torch.cat(ours).requires_grad_()
    loss.joint(logq, part.signal).sum().backward()
    assert logq.grad is not None
    assert logq.grad.abs().max() < 1e-6


def test_ranks_are_the_teachers_distribution_where_both_have_read_the_same() -> None:
    teacher = model(BPE, 1)
    (part,) = RankTeacher(teacher, make("uld"), crossing()).parts(passage_of(examples()))
    one = crossing()(examples()[0])
    assert part.signal.there_N[: len(examples()[0].targets)].nonzero()[:, 0].tolist() == [
        c.left_start for c in one.chunks
    ]
    with torch.no_grad():
        p_TV = teacher.model(input_ids=torch.tensor([one.ids])).logits[0].softmax(-1)
    at = one.chunks[2]
    torch.testing.assert_close(
        part.signal.p_NK[at.left_start],
        p_TV[one.first - 1 + at.right_start].sort(descending=True).values,
        rtol=1e-4,
        atol=1e-6,
    )


@pytest.mark.parametrize("theirs", [BPE, metaspace()], ids=["bpe", "byte fallback"])
def test_what_both_spell_alike_is_apart_from_what_has_only_a_rank(theirs: Any) -> None:
    """A byte token of a vocabulary with byte fallback is no letter: the token that writes the letter is matched."""
    teacher, spelled = model(theirs, 1), TokenBytes(theirs)
    ids_of = token_ids_by_bytes(theirs)
    crossed = crossing(teacher=theirs)
    taught = MatchTeacher(teacher, make("gold"), crossed, token_ids_by_bytes(BYTES), ids_of, len(theirs.get_vocab()))
    (part,) = taught.parts(passage_of(examples()))
    one, signal = crossed(examples()[0]), part.signal
    with torch.no_grad():
        p_TV = teacher.model(input_ids=torch.tensor([one.ids])).logits[0].softmax(-1)
    at = one.chunks[2]
    p_V = p_TV[one.first - 1 + at.right_start]
    ids = signal.overlap.ids_M.tolist()
    assert ids and len(set(ids)) == len(ids)
    assert signal.overlap.share == pytest.approx(len(ids) / len(theirs.get_vocab()))
    own = TokenBytes(BYTES)
    for place, token in enumerate(ids):
        other = ids_of[own[token]]
        assert spelled[other] == own[token]
        assert signal.p_NM[at.left_start, place].item() == pytest.approx(p_V[other].item(), rel=1e-3, abs=1e-6)
    written = {spelled[token]: token for token in one.ids[one.first :]}
    letters = {own[token]: ids_of[own[token]] for token in ids if own[token].isalpha() and own[token] in written}
    assert (letters or theirs is BPE) and all(token == written[letter] for letter, token in letters.items())
    both = signal.p_NM.sum(-1) + signal.rest_NK.sum(-1)
    torch.testing.assert_close(both[signal.there_N], torch.ones(int(signal.there_N.sum())), rtol=1e-4, atol=1e-4)
    with pytest.raises(SignalError, match="none is"):
        MatchTeacher(teacher, make("gold"), crossed, {b"no such token": 1}, ids_of, 9)
