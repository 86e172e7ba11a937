"""A teacher of the full vocabulary and a student of fewer tokens: what it says is of those, and what that leaves out is told."""

from pathlib import Path

import pytest
import torch

from tests.models.tiny import CORPUS, save_tiny
from tutelage.errors import ConfigError
from tutelage.losses.catalogue import make
from tutelage.models.causal import Causal
from tutelage.pipeline.pupil import FRAME
from tutelage.train.examples import render
from tutelage.train.offpolicy import passage_of
from tutelage.train.student import load_student
from tutelage.train.subset import Subset, kept_of
from tutelage.train.teaching import LiveTeacher
from tutelage.train.trim import kept_ids, trim

TALKS = [
    ("a", [{"role": "user", "content": "the film"}, {"role": "assistant", "content": "is good and the plot is bad"}])
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("teacher"))


def test_the_kept_tokens_are_read_and_scored_as_the_teacher_does(folder: Path) -> None:
    model, tokenizer = load_student(folder)
    small = trim(
        *load_student(folder), kept_ids(tokenizer, [CORPUS[0], tokenizer.apply_chat_template(FRAME, tokenize=False)])
    )
    kept = kept_of(small.tokenizer, tokenizer)
    assert len(kept) == len(small.new_ids) < len(tokenizer.get_vocab())
    teacher = Subset(Causal(model), kept, len(tokenizer.get_vocab()))
    examples = render(TALKS, small.tokenizer, 100).examples
    whole = render(TALKS, tokenizer, 100).examples
    assert [kept[token] for token in examples[0].ids] == list(whole[0].ids), "what is trained on has the same tokens"
    passage = passage_of(examples)
    (part,) = LiveTeacher(teacher, make("forward-kl"), len(kept)).parts(passage)
    with torch.no_grad():
        p_TW = model(input_ids=torch.tensor([whole[0].ids])).logits[0].softmax(-1)
    p_NV = p_TW[passage.positions_N][:, list(kept)]
    torch.testing.assert_close(
        part.signal.dense().logp_NV.exp(), p_NV / p_NV.sum(-1, keepdim=True), rtol=1e-3, atol=1e-5
    )
    words = p_TW[passage.positions_N][:, : len(tokenizer.get_vocab())]
    expected = (p_NV.sum(-1) / words.sum(-1)).mean().item()
    assert teacher.kept_mass(examples) == pytest.approx(expected, rel=1e-3)
    assert expected < 0.99


def test_a_token_that_the_teacher_lacks_is_named(folder: Path) -> None:
    _, tokenizer = load_student(folder)
    _, other = load_student(folder)
    other.add_tokens(["zzz"])
    with pytest.raises(ConfigError, match="'zzz' is none of the teacher's"):
        kept_of(other, tokenizer)
