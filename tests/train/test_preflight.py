"""What is refused before the first step, and with which way out. Traps C1, C7 and C11 are in tests/traps."""

from typing import Any

import pytest
import torch

from tests.train.students import student
from tutelage.errors import ConfigError, SignalError
from tutelage.losses.catalogue import make, names
from tutelage.train.preflight import REVEALS, choose_signal, require_finite, require_stop


@pytest.mark.parametrize("loss", names())
@pytest.mark.parametrize("signal", REVEALS)
def test_a_signal_is_taken_just_when_the_loss_takes_its_type(loss: str, signal: str) -> None:
    made, share = make(loss), 1.0 if signal == "sampled" else 0.0
    if REVEALS[signal] is made.takes:
        assert choose_signal(made, signal, share) == signal
    else:
        with pytest.raises(SignalError) as caught:
            choose_signal(made, signal, share)
        usual = choose_signal(made, None, 1.0 if loss.startswith("sampled") else 0.0)
        assert repr(usual) in caught.value.fix and repr(signal) in caught.value.message


@pytest.mark.parametrize(
    ("loss", "usual"),
    [("jsd", "dense"), ("top-k-reverse-kl", "top-k"), ("sparse-forward-kl", "threshold"), ("cross-entropy", "text")],
)
def test_the_usual_signal_of_a_loss(loss: str, usual: str) -> None:
    assert choose_signal(make(loss), None, 0.0) == usual


@pytest.mark.parametrize(
    ("loss", "share", "words"),
    [
        ("sparse-forward-kl", 0.5, "captured before training"),
        ("top-k-forward-kl", 1.0, "captured before training"),
        ("cross-entropy", 1.0, "what it says already"),
        ("sampled-reverse-kl", 0.5, "50% of the steps"),
        ("sampled-reverse-kl", 0.0, "0% of the steps"),
    ],
)
def test_signals_that_there_are_none_of_for_this_text(loss: str, share: float, words: str) -> None:
    with pytest.raises(SignalError, match=words) as caught:
        choose_signal(make(loss), None, share)
    assert "prefix" in caught.value.fix


def test_trap_c7_an_end_that_nobody_who_serves_it_would_notice_is_refused() -> None:
    require_stop([2], [0, 2])
    with pytest.raises(ConfigError, match=r"\[2\].*\[0\]"):
        require_stop([2], [0])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(value: float) -> None:
    model: Any = student()
    require_finite(model, "teacher")
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 5] = value
    with pytest.raises(SignalError, match=r"the teacher's weights .* model\.layers\.1\.mlp\.up_proj\.weight"):
        require_finite(model, "teacher")
