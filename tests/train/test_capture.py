"""From a live teacher through the cache to the same gradient, and what the cache refuses."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from tests.models.tiny import save_tiny
from tutelage.canon import digest_of
from tutelage.config import TrainTable
from tutelage.errors import Interrupted, SignalError
from tutelage.losses.catalogue import make
from tutelage.models.causal import Causal
from tutelage.progress import Quiet, Stop
from tutelage.signals.joining import joined
from tutelage.signals.types import NO_TAIL, TopK
from tutelage.store.signal_kinds import Draws, Full, HiddenStates, Kind, Threshold, TopKTail
from tutelage.store.signals import Identity, SignalCache, SignalWriter
from tutelage.train.capture import capture, size_of
from tutelage.train.examples import Example, render
from tutelage.train.loop import precision, take
from tutelage.train.memory import Fit
from tutelage.train.offpolicy import DataSource
from tutelage.train.teaching import CachedTeacher, LiveTeacher, Teaching

VOCABULARY = 328


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def examples(folder: Path) -> tuple[Example, ...]:
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    words = ["good", "bad and slow", "a story about love", "the plot is good", "the film is bad and the plot is"]
    talks = [
        (str(at), [{"role": "user", "content": "the film"}, {"role": "assistant", "content": word}])
        for at, word in enumerate(words)
    ]
    return render(talks, tokenizer, 64).examples


def teacher_of(folder: Path) -> Causal:
    teacher = Causal.load(folder)
    with torch.no_grad():
        for parameter in teacher.model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return teacher


def identity(kind: Kind, **changes: Any) -> Identity:
    named = {name: digest_of(name) for name in ("teacher", "tokenizer", "student_tokenizer", "template", "dataset")}
    return Identity(kind=kind, **(named | {"sampling": "given", "logprobs": "raw", "vocabulary": VOCABULARY} | changes))


def gradients(folder: Path, examples: tuple[Example, ...], teaching: Teaching) -> torch.Tensor:
    student = Causal.load(folder)
    source = DataSource(examples, teaching, TrainTable(epochs=1.0, batch_size=len(examples)), 0)
    take(student, source, range(len(examples)), Fit(None), 1e9, precision("float32"))
    return torch.cat([p.grad.flatten() for p in student.model.parameters() if p.grad is not None])


def test_a_stopped_capture_keeps_what_it_has_and_ends_in_the_same_rows(
    folder: Path, examples: tuple[Example, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tutelage.train.capture.PASS_TOKENS", 1)  # a sequence a pass
    teacher, stop, kind = teacher_of(folder), Stop(), Threshold(1 / 50)
    stop.set()
    with SignalWriter(tmp_path / "parts", identity(kind)) as writer, pytest.raises(Interrupted):
        capture(examples, teacher, VOCABULARY, writer, Quiet(), stop=stop)
    assert 0 < writer.positions < sum(len(example.targets) for example in examples)
    for name in ("parts", "whole"):
        with SignalWriter(tmp_path / name, identity(kind)) as writer:
            capture(examples, teacher, VOCABULARY, writer, Quiet(), stop=Stop())
    caches = [SignalCache(tmp_path / name, identity(kind)) for name in ("parts", "whole")]
    for example in examples:
        parts, whole = (
            cache.read(torch.tensor(example.ids), torch.tensor(example.targets) - 1).signal for cache in caches
        )
        dense = [
            torch.zeros(len(one), VOCABULARY).scatter_add_(1, one.ids_NK, one.weights_NK) for one in (parts, whole)
        ]
        assert torch.equal(*dense)


@pytest.mark.parametrize(
    ("kind", "loss", "apart"),
    [(Full(), "forward-kl", 1e-2), ("hidden", "reverse-kl", 2e-2), (TopKTail(300), "top-k-forward-kl", 3e-2),
     (Threshold(1 / 400), "sparse-forward-kl", 0.15), (Draws(20_000), "sparse-forward-kl", 0.15)],
    ids=("dense", "hidden", "top-k", "threshold", "random"),
)  # fmt: skip
def test_cached_signals_give_nearly_the_live_gradient(
    folder: Path, examples: tuple[Example, ...], tmp_path: Path, kind: Any, loss: str, apart: float
) -> None:
    teacher = teacher_of(folder)
    kind = HiddenStates.of(teacher.head(VOCABULARY), "float16") if kind == "hidden" else kind
    with SignalWriter(tmp_path, identity(kind)) as writer:
        capture(examples, teacher, VOCABULARY, writer, Quiet())
    cached = gradients(folder, examples, CachedTeacher(SignalCache(tmp_path, identity(kind)), make(loss)))
    live = gradients(
        folder, examples, LiveTeacher(teacher, make("reverse-kl" if loss == "reverse-kl" else "forward-kl"))
    )
    assert (cached - live).norm() < apart * live.norm()
    assert size_of(examples, teacher, VOCABULARY, kind) > 0


def spread(signal: Any) -> torch.Tensor:
    """[N, V]: the order of ids in a row is each shard's own."""
    return torch.zeros(len(signal), VOCABULARY).scatter_add_(1, signal.ids_NK, signal.weights_NK)


def test_an_interrupted_capture_draws_the_same(folder: Path, examples: tuple[Example, ...], tmp_path: Path) -> None:
    teacher, kind = teacher_of(folder), Threshold(1 / 20)
    for name, parts in (("whole", [examples]), ("broken", [examples[3:4], examples])):
        for part in parts:
            with SignalWriter(tmp_path / name, identity(kind)) as writer:
                capture(part, teacher, VOCABULARY, writer, Quiet())
    whole, broken = (SignalCache(tmp_path / name, identity(kind)) for name in ("whole", "broken"))
    for example in examples:
        one, other = (cache.read(torch.tensor(example.ids)).signal for cache in (whole, broken))
        assert torch.equal(spread(one), spread(other))


def test_a_loss_that_cannot_use_the_kind_is_refused(
    folder: Path, examples: tuple[Example, ...], tmp_path: Path
) -> None:
    with SignalWriter(tmp_path, identity(Threshold(1 / 20))) as writer:
        capture(examples[:1], teacher_of(folder), VOCABULARY, writer, Quiet())
    cache = SignalCache(tmp_path, identity(Threshold(1 / 20)))
    with pytest.raises(SignalError, match=r"reverse-kl takes Dense signals; the cache .* holds Sparse"):
        CachedTeacher(cache, make("reverse-kl"))
    with pytest.raises(SignalError, match="holds no sequence"):
        gradients(folder, examples[1:2], CachedTeacher(cache, make("sparse-forward-kl")))


def test_rows_of_other_widths_are_padded_with_nothing() -> None:
    one = TopK(torch.tensor([[3]]), torch.tensor([[-0.1]]), torch.tensor([-2.4]))
    other = TopK(torch.tensor([[0, 5]]), torch.tensor([[-0.7, -0.7]]), torch.tensor([NO_TAIL]))
    both = joined([one, other])
    assert both.ids_NK.tolist() == [[3, 0], [0, 5]]
    assert both.logp_NK[0, 1] == NO_TAIL
    assert both.tail_N.tolist()[1] == NO_TAIL
