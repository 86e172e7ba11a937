"""Conversations to batches, and a live teacher against the plain way of computing its loss."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from tests.models.tiny import save_tiny
from tutelage.config import TrainTable
from tutelage.errors import ConfigError, DataError
from tutelage.losses.base import Loss
from tutelage.losses.supervised import cross_entropy
from tutelage.models.causal import Causal
from tutelage.models.kernels import economical
from tutelage.progress import Quiet, Stop
from tutelage.records import Role
from tutelage.signals import Dense, Text
from tutelage.train.examples import CUT, EMPTY, TOO_LONG, Example, end_of_turn_ids, render
from tutelage.train.loop import Loop, Seen, train
from tutelage.train.memory import Fit
from tutelage.train.offpolicy import DataSource, batch_of, passage_of
from tutelage.train.teaching import LiveTeacher, Together, Words, require_same_tokens

TEXT = Loss("cross-entropy", Text, cross_entropy)
DENSE = Loss(
    "forward-kl", Dense, lambda z, signal: (signal.logp_NV.exp() * (signal.logp_NV - z.float().log_softmax(-1))).sum(-1)
)
END = 2  # <|im_end|>


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder)


def talk(*turns: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(turns)]


def test_traps_c5_c10_the_end_of_turn_is_learnt_and_nothing_after_it(tokenizer: Any) -> None:
    """Also where the pad token is the end token: what is learnt goes by place, never by id."""
    tokenizer.pad_token = tokenizer.eos_token
    (example,) = render([("a", talk("the film", "good"))], tokenizer, 64).examples
    assert example.ids[-1] == END == example.ids[example.targets[-1]]
    learnt = tokenizer.decode([example.ids[at] for at in example.targets])
    assert learnt == "good<|im_end|>"


def test_trap_c3_a_one_token_answer_has_one_term_and_its_end(tokenizer: Any) -> None:
    (example,) = render([("a", talk("the film", "g"))], tokenizer, 64).examples
    passage = passage_of([example])
    assert passage.target_ids_N.tolist() == [tokenizer("g")["input_ids"][0], END]
    assert passage.positions_N.tolist() == [len(example.ids) - 3, len(example.ids) - 2]


def test_trap_c20_prompt_and_answer_are_tokenised_as_they_are_served(tokenizer: Any) -> None:
    (example,) = render([("a", talk("the plot", "is bad"))], tokenizer, 64).examples
    prompt = tokenizer.apply_chat_template(talk("the plot"), add_generation_prompt=True, return_dict=False)
    assert list(example.ids[: example.targets[0]]) == prompt


def test_trap_c19_earlier_answers_are_learnt_only_when_asked_for(tokenizer: Any) -> None:
    conversation = [("a", talk("the film", "good", "the plot", "bad"))]
    (last,) = render(conversation, tokenizer, 99).examples
    (every,) = render(conversation, tokenizer, 99, last_turn_only=False).examples
    assert tokenizer.decode([last.ids[at] for at in last.targets]) == "bad<|im_end|>"
    assert tokenizer.decode([every.ids[at] for at in every.targets]) == "good<|im_end|>bad<|im_end|>"


def test_traps_c9_c14_cut_and_over_long_rows_are_dropped_and_counted(tokenizer: Any) -> None:
    given = [("short", talk("a", "b")), ("cut", talk("a", "b")), ("long", talk("a", "b " * 60)), ("none", talk("a"))]
    found = render(given, tokenizer, 40, cut=lambda source: source == "cut")
    assert [example.source for example in found.examples] == ["short"]
    assert found.dropped == {CUT: 1, TOO_LONG: 1, EMPTY: 1}
    with pytest.raises(DataError, match=r"1 cut off before its end"):
        render(given[1:2], tokenizer, 40, cut=lambda source: True)


def test_trap_c10_a_template_that_ends_no_turn_is_refused(folder: Path) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    assert end_of_turn_ids(tokenizer) == {END}
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
    with pytest.raises(ConfigError, match="never learn to stop"):
        render([("a", talk("a", "b"))], tokenizer, 64)


def test_trap_c20_a_template_that_rewrites_the_prompt_is_refused(folder: Path) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = (
        "{{ messages|length }}{% for m in messages %}{{ m['content'] + '<|im_end|>' }}{% endfor %}"
    )
    with pytest.raises(ConfigError, match="otherwise with its answer"):
        render([("a", talk("a", "b"))], tokenizer, 64)


def examples(tokenizer: Any) -> tuple[Example, ...]:
    words = ["good", "bad and slow", "a story about love", "the plot is good"]
    return render([(str(at), talk("the film", word)) for at, word in enumerate(words)], tokenizer, 64).examples


def test_traps_b1_b10_c2_c4_a_live_teacher_gives_the_gradient_of_plain_autograd(folder: Path, tokenizer: Any) -> None:
    """Traps B1, C2, C4: what is reported is what is learnt, shifted by one, and prompts carry nothing."""
    student, teacher = Causal.load(folder), Causal.load(folder)
    with torch.no_grad():
        for parameter in teacher.model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    some = examples(tokenizer)
    teaching = Together([LiveTeacher(teacher, DENSE), Words(TEXT, 0.25)])
    source = DataSource(some, teaching, TrainTable(epochs=1.0, batch_size=4), 0)
    economical(student.model)
    from tutelage.train.loop import precision, take

    result = take(student, source, range(4), Fit(None), 1e9, precision("float32"))
    plain = Causal.load(folder).model
    losses = []
    for example in some:
        ids = torch.tensor([example.ids])
        with torch.no_grad():
            p = teacher.model(input_ids=ids).logits[0].float().softmax(-1)
        q = plain(input_ids=ids).logits[0].log_softmax(-1)
        for at in example.targets:
            losses.append((p[at - 1] * (p[at - 1].log() - q[at - 1])).sum() - 0.25 * q[at - 1, example.ids[at]])
    expected = torch.stack(losses).mean()
    expected.backward()
    assert result.objective_nats / result.loss_tokens == pytest.approx(expected.item(), rel=1e-4)
    assert result.by_role == {Role.SOFT_TARGET: len(losses)}
    for (name, one), other in zip(student.model.named_parameters(), plain.parameters(), strict=True):
        assert one.grad is not None and other.grad is not None
        assert torch.allclose(one.grad, other.grad, rtol=1e-3, atol=1e-5), name
    assert all(parameter.grad is None for parameter in teacher.model.parameters()), "trap B10"
    assert not teacher.model.training


def test_trap_d8_equal_sizes_are_not_equal_tokenizers() -> None:
    one, other = [b"a", b"b", b"c"], [b"a", b"c", b"b"]
    require_same_tokens(one, one, DENSE)
    with pytest.raises(ConfigError, match=r"token 1 is b'b' for the student and b'c'"):
        require_same_tokens(one, other, DENSE)
    with pytest.raises(ConfigError, match="has 3 tokens and the teacher's 2"):
        require_same_tokens(one, one[:2], DENSE)


def test_a_student_of_other_weights_learns_the_teachers_distribution(
    folder: Path, tokenizer: Any, tmp_path: Path
) -> None:
    student, teacher = Causal.load(folder), Causal.load(folder)
    with torch.no_grad():
        for name, parameter in student.model.named_parameters():
            if "layers.1" in name:
                parameter.mul_(0.3)
    some = examples(tokenizer)
    teaching = LiveTeacher(teacher, DENSE, columns=None)

    class Nothing:
        def __call__(self, student: Causal, autocast: torch.autocast) -> Seen:
            return Seen(0.0, {}, {})

    log: list[dict[str, Any]] = []
    table = TrainTable(epochs=40.0, batch_size=4, learning_rate=5e-3, precision="float32", average_last=0.0)
    train(
        student, DataSource(some, teaching, table, 1), Nothing(), Loop(table, 1, tmp_path, Quiet(), Stop(), log.append)
    )
    assert log[-1]["forward-kl_nats"] < log[0]["forward-kl_nats"] / 5
    assert math.isfinite(log[-1]["grad_norm"])


def test_batches_know_what_they_hold(folder: Path, tokenizer: Any) -> None:
    some = examples(tokenizer)
    batch = batch_of(some[:2], Words(TEXT), (0, 1), "cpu")
    assert sum(batch.lengths) == len(batch.ids_T) == sum(len(example.ids) - 1 for example in some[:2])
    assert batch.loss_tokens == {Role.TEXT_TARGET: sum(len(example.targets) for example in some[:2])}
    assert some[0].key != some[1].key
