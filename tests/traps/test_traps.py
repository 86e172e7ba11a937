"""Traps that systems of this kind have fallen into, by their ids in docs/traps.md: those without a better place."""

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from tests.models.tiny import save_tiny
from tutelage.config import TrainTable
from tutelage.errors import ConfigError, SignalError
from tutelage.losses.catalogue import make
from tutelage.losses.chunked import Part, head_gradients
from tutelage.models.causal import Causal
from tutelage.signals import Head, Hidden, Text, TopK
from tutelage.signals.joining import joined
from tutelage.train.examples import Example, render
from tutelage.train.loop import precision, take
from tutelage.train.memory import Fit
from tutelage.train.offpolicy import DataSource, passage_of
from tutelage.train.onpolicy import RolloutSource
from tutelage.train.preflight import Rendering, check_learnt, choose_rendering, nats_a_token, same_ends
from tutelage.train.rollout import Rollout
from tutelage.train.rollout_local import LocalRoller
from tutelage.train.teaching import LiveTeacher, Words

ROOT = Path(__file__).parents[2]
WORDS = (
    "good",
    "bad and slow",
    "a story about love and",
    "the plot is",
    "is it bad",
    "good film",
    "love",
    "so slow a plot",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def examples(folder: Path) -> tuple[Example, ...]:
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    talks = [
        (str(at), [{"role": "user", "content": "the film"}, {"role": "assistant", "content": word}])
        for at, word in enumerate(WORDS)
    ]
    return render(talks, tokenizer, 64).examples


def source_of(examples: tuple[Example, ...]) -> DataSource:
    return DataSource(examples, Words(make("cross-entropy")), TrainTable(epochs=1.0, batch_size=8), 0)


def test_trap_a2_the_denominator_is_what_the_student_wrote(folder: Path, examples: tuple[Example, ...]) -> None:
    """Counted after the rollouts, not from the data's labels."""
    student = Causal.load(folder)
    teaching = LiveTeacher(Causal.load(folder), make("reverse-kl"))
    table = TrainTable(epochs=1.0, batch_size=8)
    source = RolloutSource(examples, student, LocalRoller(student.model), teaching, table, 0, max_new_tokens=9)
    rows = source.rows(0)
    result = take(student, source, rows, Fit(None), 1e9, precision("float32"))
    written = sum(len(rollout.ids) for rollout in source._rollouts)
    assert result.loss_tokens == written == sum(result.by_role.values()) == result.positions["reverse-kl"]
    assert written != sum(len(example.targets) for example in examples)


def test_trap_a3_eight_passes_do_not_make_the_loss_eightfold(folder: Path, examples: tuple[Example, ...]) -> None:
    norms, losses = [], []
    for limit in (None, 1):
        student = Causal.load(folder)
        result = take(student, source_of(examples), range(8), Fit(limit), 1e9, precision("float32"))
        norms.append(result.grad_norm)
        losses.append(result.objective_nats / result.loss_tokens)
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_trap_a4_three_tokens_by_hand() -> None:
    """Logits 0, ln 2 and ln 3 under a head of ones: losses ln 6, ln 3 and ln 2, whose mean is ln 36 / 3."""
    head = Head(torch.tensor([[0.0], [math.log(2)], [math.log(3)]]))
    parts = (Part(make("cross-entropy"), Text(torch.tensor([0, 1, 2]))),)
    found = head_gradients(torch.ones(3, 1), head, parts, 1 / 3, weight_gradient_VD=None)
    assert found.nats[0] / 3 == pytest.approx(math.log(36) / 3)
    q = torch.tensor([1 / 6, 1 / 3, 1 / 2])
    expected = [(float(q @ head.weight_VD[:, 0]) - float(head.weight_VD[at, 0])) / 3 for at in range(3)]
    assert found.gradient_ND.flatten().tolist() == pytest.approx(expected, abs=1e-6)


RANKS = """
import os, sys, traceback, torch, torch.distributed as dist
from pathlib import Path
from transformers import AutoTokenizer
from tests.traps.test_traps import WORDS, source_of
from tutelage.models.causal import Causal
from tutelage.train.examples import render
from tutelage.train.loop import precision, take
from tutelage.train.memory import Fit

def work(folder, out, rank, size):
    torch.set_num_threads(1)
    if size > 1:
        dist.init_process_group("gloo", init_method=f"file://{out}/meeting", rank=rank, world_size=size)
    asked = {"role": "user", "content": "the film"}
    talks = [(str(at), [asked, {"role": "assistant", "content": word}]) for at, word in enumerate(WORDS)]
    examples = render(talks, AutoTokenizer.from_pretrained(folder), 64).examples
    student = Causal.load(folder)
    optimizer = torch.optim.SGD(student.model.parameters(), lr=0.01)
    seen = []
    for rows in ((0, 1, 2, 3, 4), (5, 6, 7), (2,)):
        result = take(student, source_of(examples), rows, Fit(None), 1e9, precision("float32"))
        counts = (*result.nats.values(), *result.positions.values(), *result.by_role.values())
        seen.append(torch.tensor([result.objective_nats, result.loss_tokens, result.tokens, *counts]))
        optimizer.step()
        optimizer.zero_grad()
    torch.save(seen + [p.detach() for p in student.model.parameters()], out / f"{size}-{rank}.pt")
    if size > 1:
        dist.destroy_process_group()

folder, out = map(Path, sys.argv[1:])
started = []
for rank, size in ((0, 1), (0, 2), (1, 2)):
    started.append(os.fork())
    if not started[-1]:
        try:
            work(folder, out, rank, size)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in started))
"""


def test_traps_a6_b3_two_ragged_processes_are_one(folder: Path, tmp_path: Path) -> None:
    """Five rows, three, then one, dealt to two ranks: parameters, sums and counts are those of a single process, and the same on
    both. Gradients are not clipped, which would hide their scale."""
    done = subprocess.run(
        [sys.executable, "-c", RANKS, str(folder), str(tmp_path)],
        cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    single, first, second = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("1-0", "2-0", "2-1"))
    for alone, one, other in zip(single, first, second, strict=True):
        assert torch.equal(one, other)
        assert torch.allclose(one, alone, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("beta", [0.1, 0.5, 0.9])
def test_trap_b6_the_fused_loss_is_the_plain_one_at_temperature_1(beta: float) -> None:
    draw = torch.Generator().manual_seed(2)
    hidden, head = torch.randn(9, 6, generator=draw), Head(torch.randn(30, 6, generator=draw))
    teacher = Hidden(torch.randn(9, 5, generator=draw), Head(torch.randn(30, 5, generator=draw)))
    found = head_gradients(hidden, head, (Part(make("jsd", beta=beta), teacher),), 1.0, weight_gradient_VD=None, rows=4)
    leaf = hidden.clone().requires_grad_()
    q, p = head.logits(leaf).log_softmax(-1), teacher.head.logits(teacher.hidden_ND).log_softmax(-1)
    m = (beta * p.exp() + (1 - beta) * q.exp()).log()
    plain = (beta * (p.exp() * (p - m)).sum(-1) + (1 - beta) * (q.exp() * (q - m)).sum(-1)).sum()
    plain.backward()
    assert found.nats[0] == pytest.approx(plain.item(), rel=1e-4)
    assert leaf.grad is not None
    assert torch.allclose(found.gradient_ND, leaf.grad, rtol=1e-4, atol=1e-6)


def test_trap_c1_a_rendering_that_surprises_the_teacher_is_refused(folder: Path, examples: tuple[Example, ...]) -> None:
    teacher = Causal.load(folder)
    own = nats_a_token(teacher, examples, "teacher")
    assert choose_rendering([Rendering("its own template", 1.0), Rendering("the student's", 1.05)], "the student's")
    with pytest.raises(ConfigError, match=r"1\.287 nats a token as the student's writes them, and 1\.000"):
        choose_rendering([Rendering("its own template", 1.0), Rendering("the student's", 1.287)], "the student's")
    shuffled = [example._replace(ids=example.ids[::-1]) for example in examples]
    assert own != nats_a_token(teacher, shuffled, "teacher")


def test_trap_c7_other_ends_of_turn_are_refused() -> None:
    same_ends((2, 0), (2,))
    with pytest.raises(ConfigError, match=r"token \[2\], the teacher with \[5, 7\]"):
        same_ends((2,), (7, 5))


@pytest.mark.parametrize("fast", [True, False])
def test_trap_c8_answers_go_to_their_end_and_no_further(
    folder: Path, examples: tuple[Example, ...], fast: bool
) -> None:
    """What was drawn with no end in sight is the same up to the first end token, which is the last of the answer."""
    model = Causal.load(folder).model
    prompts = [example.ids[: example.targets[0]] for example in examples]

    def write(ends: set[int]) -> list[Rollout]:
        roller = LocalRoller(model, frozenset(ends))
        roller.fast = fast
        return roller.write(prompts, 30, 1.0, range(8))

    endless = write({999})
    assert not any(rollout.finished for rollout in endless)
    ends = {endless[0].ids[3], endless[1].ids[7]}
    for found, whole in zip(write(ends), endless, strict=True):
        first = next((at for at, token in enumerate(whole.ids) if token in ends), None)
        assert found.finished is (first is not None)
        assert found.ids == whole.ids[: None if first is None else first + 1]


@pytest.mark.parametrize("targets", [(), tuple(range(10)), (0, 1)], ids=("nothing", "everything", "the first"))
def test_trap_c11_a_mask_of_nothing_or_everything_is_refused(
    examples: tuple[Example, ...], targets: tuple[int, ...]
) -> None:
    check_learnt(examples)
    with pytest.raises(ConfigError, match="tokens of a are learnt"):
        check_learnt([*examples, Example(tuple(range(10)), targets, "a")])


def test_trap_c13_what_is_read_is_written_down(folder: Path, examples: tuple[Example, ...]) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    golden = "<|im_start|>user\nthe film<|im_end|>\n<|im_start|>assistant\nbad and slow<|im_end|>"
    assert tokenizer.decode(examples[1].ids) == golden


def test_trap_d5_ragged_rows_keep_their_ends() -> None:
    one = TopK(torch.tensor([[3, 1]]), torch.tensor([[-0.5, -1.5]]), torch.tensor([-1.8]))
    other = TopK(torch.tensor([[4, 2, 9]]), torch.tensor([[-0.7, -1.5, -2.5]]), torch.tensor([-1.9]))
    both = joined([one, other])
    for at, single in enumerate((one, other)):
        logits = torch.randn(1, 12, generator=torch.Generator().manual_seed(at))
        loss = make("top-k-forward-kl")
        assert torch.allclose(loss(logits, both.rows(slice(at, at + 1))), loss(logits, single))


def test_nan_logits_are_named_before_the_first_step(folder: Path, examples: tuple[Example, ...]) -> None:
    student = Causal.load(folder)
    with torch.no_grad():
        student.body.norm.weight[3] = float("nan")
    with pytest.raises(SignalError, match="the student's logits are not finite on 0"):
        nats_a_token(student, examples, "student")


def test_trap_c4_prompt_positions_change_nothing(folder: Path, examples: tuple[Example, ...]) -> None:
    """Trap C4: whatever the teacher says where no loss stands is not read."""
    passage = passage_of(examples[:2])
    read: list[torch.Tensor] = []

    class Spy(LiveTeacher):
        def parts(self, passage: Any) -> Any:
            found = super().parts(passage)
            read.append(found[0].signal.hidden_ND)
            return found

    Spy(Causal.load(folder), make("forward-kl")).parts(passage)
    assert len(read[0]) == len(passage.positions_N) == sum(len(example.targets) for example in examples[:2])
