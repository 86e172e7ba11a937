"""Losses by name: what is there, and what is refused with which advice."""

import math
from typing import Any

import pytest
import torch

from tests.losses.cases import draw_dense, draw_logits, draw_text
from tutelage.errors import ConfigError, SignalError
from tutelage.losses.catalogue import make, names
from tutelage.losses.divergence import jsd
from tutelage.signals import Head, Hidden, Text
from tutelage.train.preflight import REVEALS
from tutelage.training_config import LOSSES


def test_all_are_there_and_say_their_parameters() -> None:
    assert names() == tuple(LOSSES)
    by_loss = {
        loss: tuple(signal for signal, reveals in REVEALS.items() if reveals is make(loss).takes) for loss in names()
    }
    assert by_loss == LOSSES
    assert make("jsd").name == "jsd(beta=0.5)"
    assert make("forward-kl").name == "forward-kl"
    logits, signal = draw_logits(1), draw_dense(1)
    torch.testing.assert_close(make("jsd", beta=0.2)(logits, signal), jsd(logits, signal, 0.2))


@pytest.mark.parametrize(
    ("name", "parameters", "message", "fix"),
    [
        ("jsd", {"beta": 0.0}, "beta = 0.0", "forward-kl"),
        ("jsd", {"beta": 1}, "beta = 1 ", "reverse-kl"),
        ("jsd", {"beta": math.nan}, "beta = nan", "beta"),
        ("jsd", {"beta": "half"}, "beta = 'half'", "beta"),
        ("jsd", {"beta": True}, "beta = True", "beta"),
        ("skew-kl", {"alpha": 0}, "alpha = 0 ", "forward-kl"),
        ("skew-reverse-kl", {"alpha": 1.5}, "alpha = 1.5", "reverse-kl"),
        ("jsd", {"alpha": 0.1}, "'alpha'", "takes beta"),
        ("forward-kl", {"temperature": 2.0}, "'temperature'", "takes no parameters"),
        ("top-k-reverse-kl", {"least_tail": 0.0}, "least_tail = 0.0", "least_tail"),
        ("sampled-reverse-kl", {"ratio_high": 0.5}, "ratio_high = 0.5", "ratio_high ≥ 1"),
        ("kl", {}, "'kl'", "cross-entropy"),
    ],
)
def test_what_is_wrong_is_refused_by_name(name: str, parameters: dict[str, Any], message: str, fix: str) -> None:
    with pytest.raises(ConfigError) as refused:
        make(name, **parameters)
    assert message in refused.value.message
    assert fix in refused.value.fix


def test_a_loss_takes_one_type_of_signal() -> None:
    with pytest.raises(SignalError, match="forward-kl takes Dense signals, not Text"):
        make("forward-kl")(draw_logits(1), draw_text(1))
    with pytest.raises(SignalError, match="cross-entropy takes Text signals, not Dense"):
        make("cross-entropy")(draw_logits(1), draw_dense(1))


def test_trap_d7_teacher_columns_beyond_the_tokenizer_are_no_mass() -> None:
    """A teacher 64 columns wider, narrowed before its softmax, gives the loss of the teacher without them."""
    generator = torch.Generator().manual_seed(7)
    weight = torch.randn(75, 5, generator=generator)
    hidden = torch.randn(4, 5, generator=generator)
    padded = Hidden(hidden, Head(weight).narrow(11))
    plain = Hidden(hidden, Head(weight[:11].clone()))
    for name in ("forward-kl", "reverse-kl", "jsd"):
        loss = make(name)
        assert torch.equal(loss(draw_logits(7), padded), loss(draw_logits(7), plain))
    wide = Hidden(hidden, Head(weight)).dense().logp_NV[:, :11]
    assert (wide.exp().sum(-1) < 0.9).all(), "sliced after its softmax it would be no distribution"


def test_text_of_the_catalogue_is_text() -> None:
    loss = make("cross-entropy")
    assert loss.takes is Text
    assert loss.gradient is not None
