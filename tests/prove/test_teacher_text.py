"""Divergence, agreement and overlap on the teacher's text against loops in plain Python; what is refused."""

import base64
import math
import random

import numpy as np
import pytest

from tutelage.errors import DataError, SignalError
from tutelage.prove.teacher_text import (
    FEWEST_TEXTS,
    Pair,
    Reading,
    Texts,
    compare,
    item_rows,
    own_reading,
    reading,
    require_one_tokenizer,
    text_evidence,
)
from tutelage.records import UNATS_PER_NAT, Position, TokenLogprob


def token(spelled: bytes, logp: float) -> TokenLogprob:
    return TokenLogprob(base64.b64encode(spelled).decode(), -1, round(logp * UNATS_PER_NAT))


def model(draw: random.Random, words: list[bytes]) -> list[dict[bytes, float]]:
    """A distribution over four words at every place."""
    found = []
    for _ in words:
        weights = [draw.random() + 0.05 for _ in range(4)]
        found.append({b"w%d" % at: math.log(weight / sum(weights)) for at, weight in enumerate(weights)})
    return found


def read(rows: list[dict[bytes, float]], words: list[bytes], top: int, *, has_end: bool = False) -> Reading:
    positions = []
    for row, word in zip(rows, words, strict=True):
        likeliest = sorted(row, key=lambda one: -row[one])[:top]
        positions.append(
            Position(token(word, row[word]), tuple(token(one, row[one]) for one in likeliest if one != word))
        )
    return reading(positions, has_end=has_end)


@pytest.mark.parametrize("per", ["token", "byte"])
@pytest.mark.parametrize("seed", range(5))
def test_a_pair_is_what_a_loop_finds(seed: int, per: str) -> None:
    draw = random.Random(seed)
    words = [b"w%d" % draw.randrange(4) for _ in range(9)]
    teacher, student = model(draw, words), model(draw, words)
    found = compare(read(teacher, words, 4), read(student, words, 4), 18, per)  # type: ignore[arg-type]
    by = 9.0 if per == "token" else 18 * math.log(2)
    assert found.teacher == pytest.approx(
        sum(row[word] for row, word in zip(teacher, words, strict=True)) / by, abs=1e-6
    )
    assert found.other == pytest.approx(sum(row[word] for row, word in zip(student, words, strict=True)) / by, abs=1e-6)
    same = [max(t, key=t.__getitem__) == max(s, key=s.__getitem__) for t, s in zip(teacher, student, strict=True)]
    assert found.agreement == pytest.approx(sum(same) / 9)
    shared = [sum(min(math.exp(t[w]), math.exp(s[w])) for w in t) for t, s in zip(teacher, student, strict=True)]
    assert found.overlap == pytest.approx(sum(shared) / 9, abs=1e-5)


def test_the_mean_over_drawn_texts_is_the_divergence() -> None:
    """Over texts drawn from the teacher the mean difference tends to KL(teacher‖student): checked against the sum."""
    rng, words = random.Random(1), [b"w0"]
    teacher, student = model(rng, words)[0], model(rng, words)[0]
    kl = sum(math.exp(teacher[w]) * (teacher[w] - student[w]) for w in teacher)
    draws = rng.choices(list(teacher), [math.exp(teacher[w]) for w in teacher], k=4000)
    pairs = [compare(read([teacher], [w], 4), read([student], [w], 4), 2, "token") for w in draws]
    texts = Texts("token", "", {"student": tuple(pairs)}, None)
    (row,) = text_evidence(texts, 0.999, 1)["systems"]
    assert row["divergence_low"] < kl < row["divergence_high"] and row["divergence_high"] - row["divergence_low"] < kl
    assert row["divergence"] == pytest.approx(np.mean([one.teacher - one.other for one in pairs]))


def test_the_end_counts_where_both_give_it() -> None:
    draw, words = random.Random(3), [b"w1", b"w2"]
    teacher, student = model(draw, words), model(draw, words)
    both = compare(read(teacher, words, 4, has_end=True), read(student, words, 4, has_end=True), 2, "token")
    one = compare(read(teacher, words, 4, has_end=True), read(student[:1], words[:1], 4), 2, "token")
    assert both.teacher == pytest.approx((teacher[0][b"w1"] + teacher[1][b"w2"]) / 2, abs=1e-6)
    assert one.teacher == pytest.approx(teacher[0][b"w1"], abs=1e-6) and one.is_split_alike


def test_other_tokens_are_compared_by_bytes_and_tops_are_not() -> None:
    draw = random.Random(4)
    teacher, student = read(model(draw, [b""] * 2), [b"w1", b"w2"], 4), read(model(draw, [b""]), [b"w3"], 4)
    found = compare(teacher, student, 4, "byte")
    assert (found.agreement, found.overlap, found.is_split_alike) == (None, None, False)
    texts = Texts("token", "", {"student": (found,) * 3}, None)
    with pytest.raises(SignalError, match="3 of 3 texts"):
        require_one_tokenizer(texts)
    require_one_tokenizer(Texts("byte", "", {"student": (found,) * 3}, None))


def test_nothing_scored_is_an_error_with_its_reasons() -> None:
    with pytest.raises(DataError, match="7 empty"):
        require_one_tokenizer(Texts("token", "", {"student": (None,) * 7}, None, {"empty": 7}))


def test_a_models_own_tokens_are_its_text_or_nothing() -> None:
    said = [Position(token(word, -0.5), ()) for word in (b"a ", b"\xc3", b"\xa9", b"<end>")]
    found = own_reading(said, "a é", ended=True)
    assert found is not None and found.has_end and len(found.logp_T) == 4
    cut = own_reading(said, "a é", ended=False)
    assert cut is not None and not cut.has_end and len(cut.logp_T) == 3
    assert own_reading(said, "a e", ended=True) is None and own_reading([], "a", ended=True) is None
    blank = own_reading([Position(token(b" Yes", -1.0), ())], "Yes", ended=False)
    assert blank is not None and blank.top_T == ({},)


def pairs(count: int, apart: float) -> tuple[Pair, ...]:
    rng = np.random.default_rng(5)
    return tuple(Pair(-1.0, -1.0 - apart * float(x), 0.5, None, True) for x in rng.gamma(2.0, 0.5, count))


def test_too_few_or_equal_texts_have_no_interval() -> None:
    few = Texts("token", "", {"student": pairs(FEWEST_TEXTS - 1, 0.2)}, None)
    assert "needs 200" in few.problem("student", 0.95, 1)
    equal = Texts("token", "", {"student": pairs(FEWEST_TEXTS, 0.0)}, None)
    assert "nothing varies" in equal.problem("student", 0.95, 1)
    sessions = Texts("token", "", {"student": pairs(120, 0.2)}, np.array([f"s{at % 5}" for at in range(120)]))
    assert sessions.problem("student", 0.95, 1)


def test_the_interval_lies_below_zero_for_a_student_that_knows_less() -> None:
    found = Texts("token", "", {"student": pairs(400, 0.2)}, None).interval("student", 0.95, 1)
    assert found.method.startswith("BCa") and "up to 4 %" in found.method
    assert -0.25 < found.low < -0.2 < found.high < -0.15


def test_lines_hold_no_float() -> None:
    lines = item_rows(Texts("byte", "", {"student": (*pairs(1, 0.2), None)}, None), ["p1", "p2"])
    assert lines[1]["systems"] == {}
    values = lines[0]["systems"]["student"].values()
    assert all(value is None or isinstance(value, int) for value in values)
