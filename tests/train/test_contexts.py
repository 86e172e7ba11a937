"""Teachers that read another prompt than the student, and several teachers of one passage: each row is what that teacher says."""

import random
from typing import Any

import pytest
import torch

from tests.train.students import VOCABULARY, student
from tutelage.losses.catalogue import make
from tutelage.models.causal import Causal
from tutelage.signals import Hidden, Text, TopK
from tutelage.signals.several import HiddenOfSeveral, merged
from tutelage.train.contexts import InContext, reread, with_prompt
from tutelage.train.examples import Example
from tutelage.train.offpolicy import passage_of
from tutelage.train.routing import Routed
from tutelage.train.teaching import LiveTeacher, MovingTeacher, Passage, ScoringTeacher, Together, Words


def examples(count: int, seed: int = 0) -> list[Example]:
    """Answers of several lengths after prompts of several lengths."""
    draw = random.Random(seed)
    found = []
    for at in range(count):
        prompt, answer = draw.randint(2, 6), draw.randint(1, 5)
        ids = tuple(draw.randrange(VOCABULARY) for _ in range(prompt + answer))
        found.append(Example(ids, tuple(range(prompt, prompt + answer)), f"talk {at}"))
    return found


def prompts_of(found: list[Example], seed: int = 9) -> dict[str, tuple[int, ...]]:
    draw = random.Random(seed)
    return {one.source: tuple(draw.randrange(VOCABULARY) for _ in range(draw.randint(3, 20))) for one in found}


@torch.no_grad()
def alone(model: Any, prompt: tuple[int, ...], answer: tuple[int, ...]) -> torch.Tensor:
    """log p [N, V] at the answer's places after a prompt, by one plain forward pass."""
    logits_TV = model(input_ids=torch.tensor([prompt + answer]), use_cache=False).logits[0].float()
    return logits_TV.log_softmax(-1)[len(prompt) - 1 : -1]


def dense(parts: Any) -> torch.Tensor:
    (part,) = parts
    return part.signal.dense().logp_NV


def test_a_teacher_in_context_says_what_it_says_after_its_own_prompt() -> None:
    model, found = student(seed=1), examples(5)
    prompts = prompts_of(found)
    teaching = InContext(LiveTeacher(Causal(model), make("forward-kl")), prompts)
    said_NV = dense(teaching.parts(passage_of(found)))
    expected_NV = torch.cat([alone(model, prompts[one.source], one.ids[one.targets[0] :]) for one in found])
    assert torch.allclose(said_NV, expected_NV, atol=1e-5)
    without_NV = dense(LiveTeacher(Causal(model), make("forward-kl")).parts(passage_of(found)))
    assert (said_NV - without_NV).abs().max() > 0.1


@pytest.mark.parametrize("drawn", [False, True])
def test_a_target_that_moves_moves_in_context_and_among_several(drawn: bool) -> None:
    """How far training has gone is told to whoever is asked in the end."""
    model, found = student(seed=1), examples(5)
    moving = MovingTeacher(Causal(model), make("taid", t=0.2), start=0.2)
    logp = [[-1.0] * len(one.targets) for one in found] if drawn else None
    names = {one.source: "ab"[at % 2] for at, one in enumerate(found)}
    for teaching in (InContext(moving, prompts_of(found)), Routed({"a": moving, "b": moving}, names)):
        values = []
        for progress in (0.0, 1.0):
            (part,) = teaching.parts(passage_of(found, "cpu", logp)._replace(progress=progress))
            logits_NV = torch.randn(len(part.signal), VOCABULARY, generator=torch.Generator().manual_seed(3))
            values.append(part.loss(logits_NV, part.signal))
        assert (values[1] > 1.05 * values[0]).all()  # at 0.2 the target is near the student itself


def test_an_answer_moves_to_its_place_after_the_teachers_prompt() -> None:
    moved = with_prompt(Example((1, 2, 3, 4, 5, 6), (2, 3, 5), "a"), (7, 8, 9, 10))
    assert moved == Example((7, 8, 9, 10, 3, 4, 5, 6), (4, 5, 7), "a")
    found = examples(4)
    passage = passage_of(found, drawn=[[-0.5 * at] * len(one.targets) for at, one in enumerate(found)], temperature=0.7)
    read = reread(passage, prompts_of(found))
    assert torch.equal(read.target_ids_N, passage.target_ids_N) and read.temperature == 0.7
    assert read.drawn_logp_N is passage.drawn_logp_N


def stepped(found: list[Example], rows: tuple[int, ...]) -> Passage:
    """Rows of a step of the student's own text."""
    drawn = [[-1.0 - 0.1 * at] * len(one.targets) for at, one in enumerate(found)]
    step = passage_of(found, drawn=drawn)
    return passage_of([found[row] for row in rows], drawn=[drawn[row] for row in rows])._replace(step=step, rows=rows)


def test_scores_in_context_do_not_depend_on_passes() -> None:
    model, found = student(seed=1), examples(6)
    prompts = prompts_of(found)
    teaching = InContext(ScoringTeacher(Causal(model), make("sampled-reverse-kl")), prompts)
    whole = teaching.parts(stepped(found, tuple(range(6))))[0].signal
    expected_N = torch.cat([
        alone(model, prompts[one.source], one.ids[one.targets[0] :]).gather(
            1, torch.tensor(one.ids[one.targets[0] :])[:, None]
        )[:, 0]
        for one in found
    ])  # fmt: skip
    assert torch.allclose(whole.logp_N, expected_N, atol=1e-5)
    split = [teaching.parts(stepped(found, rows))[0].signal for rows in ((0, 1), (2,), (3, 4, 5))]
    assert torch.allclose(torch.cat([one.baseline_N for one in split]), whole.baseline_N, atol=1e-6)
    assert torch.allclose(torch.cat([one.logp_N for one in split]), whole.logp_N, atol=1e-5)


WHOSE = ("one", "two", "one", "three", "two", "one")


def three() -> tuple[dict[str, Any], list[Example], dict[str, str]]:
    """Models of different widths, and who teaches which example."""
    models = {
        "one": student(seed=1),
        "two": student(seed=2, hidden_size=32),
        "three": student("qwen2", seed=3),
    }
    found = examples(6)
    return models, found, {one.source: who for one, who in zip(found, WHOSE, strict=True)}


def test_each_example_is_taught_by_its_own_teacher() -> None:
    models, found, whose = three()
    loss = make("forward-kl")
    routed = Routed({name: LiveTeacher(Causal(model), loss) for name, model in models.items()}, whose)
    (part,) = routed.parts(passage_of(found))
    expected_NV = torch.cat([
        alone(models[whose[one.source]], one.ids[: one.targets[0]], one.ids[one.targets[0] :]) for one in found
    ])  # fmt: skip
    assert isinstance(part.signal, HiddenOfSeveral)
    assert torch.allclose(part.signal.dense().logp_NV, expected_NV, atol=1e-5)
    rows = slice(3, 9)
    assert torch.allclose(part.signal.rows(rows).dense().logp_NV, expected_NV[rows], atol=1e-5)
    assert torch.allclose(part.signal.to("cpu").dense().logp_NV, expected_NV, atol=1e-5)
    (only,) = routed.parts(passage_of([found[1], found[4]]))
    assert not isinstance(only.signal, HiddenOfSeveral), "one teacher is asked as if there were no other"


def test_text_and_weights_stay_with_their_rows() -> None:
    models, found, whose = three()
    both = {
        name: Together([LiveTeacher(Causal(model), make("jsd")), Words(make("cross-entropy"), 0.25)])
        for name, model in models.items()
    }
    passage = passage_of(found)
    parts = Routed(both, whose).parts(passage)
    assert [(part.loss.name, part.weight) for part in parts] == [(make("jsd").name, 1.0), ("cross-entropy", 0.25)]
    assert isinstance(parts[1].signal, Text) and torch.equal(parts[1].signal.ids_N, passage.target_ids_N)


def test_the_baseline_is_of_the_same_teachers_answers() -> None:
    models, found, whose = three()
    loss = make("sampled-reverse-kl")
    routed = Routed({name: ScoringTeacher(Causal(model), loss) for name, model in models.items()}, whose)
    whole = routed.parts(stepped(found, tuple(range(6))))[0].signal
    split = [routed.parts(stepped(found, rows))[0].signal for rows in ((0, 1, 2), (3,), (4, 5))]
    assert torch.allclose(torch.cat([one.baseline_N for one in split]), whole.baseline_N, atol=1e-6)
    own = [at for at, who in enumerate(WHOSE) if who == "one"]
    drawn = [[-1.0 - 0.1 * at] * len(found[at].targets) for at in own]
    step = passage_of([found[at] for at in own], drawn=drawn)
    expected = ScoringTeacher(Causal(models["one"]), loss).parts(step)[0].signal
    ends = torch.tensor([0, *[len(one.targets) for one in found]]).cumsum(0)
    at_N = torch.cat([torch.arange(int(ends[at]), int(ends[at + 1])) for at in own])
    assert torch.allclose(whole.baseline_N[at_N], expected.baseline_N, atol=1e-6)
    assert torch.allclose(whole.logp_N[at_N], expected.logp_N, atol=1e-5)


def test_rows_of_several_widths_are_padded() -> None:
    one = TopK(torch.tensor([[1], [2]]), torch.tensor([[-0.1], [-0.2]]), torch.tensor([-2.0, -2.1]))
    two = TopK(torch.tensor([[3, 4]]), torch.tensor([[-0.3, -1.5]]), torch.tensor([-3.0]))
    found = merged([one, two], [torch.tensor([0, 2]), torch.tensor([1])])
    assert isinstance(found, TopK)
    assert found.ids_NK.tolist() == [[1, 0], [3, 4], [2, 0]] and found.tail_N.tolist() == pytest.approx([-2, -3, -2.1])
    assert found.logp_NK[0, 1] == -torch.inf


def test_hidden_states_in_half_precision_meet_their_own_head() -> None:
    torch.manual_seed(0)
    heads = [Causal(student(seed=at)).head() for at in (1, 2)]
    half = Hidden(torch.randn(2, 64).bfloat16(), heads[0].__class__(heads[0].weight_VD.bfloat16()))
    full = Hidden(torch.randn(1, 64), heads[1])
    found = merged([half, full], [torch.tensor([2, 0]), torch.tensor([1])])
    assert isinstance(found, HiddenOfSeveral)
    expected_NV = torch.stack([half.dense().logp_NV[1], full.dense().logp_NV[0], half.dense().logp_NV[0]])
    assert torch.equal(found.dense().logp_NV, expected_NV)
