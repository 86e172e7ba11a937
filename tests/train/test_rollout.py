"""What may be asked for, what an engine may answer, and when rollouts are called unhealthy."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.reference import rollout_naive
from tests.train.students import END, student
from tutelage.errors import ConfigError, DataError, TeacherError
from tutelage.train.health import START_STEPS, Limits, Start, health, repeated_share
from tutelage.train.rollout import Rollout, check, end_ids, from_engine

ENDS = frozenset([END])


def rollout(ids: tuple[int, ...], *, finished: bool = True) -> Rollout:
    return Rollout((1,), ids, (-1.0,) * len(ids), finished)


@pytest.mark.parametrize(
    ("prompts", "new", "temperature", "seeds", "said"),
    [
        ([(1,), ()], 4, 1.0, [1, 2], "prompt 1 is empty"),
        ([(1,) * 90], 4, 1.0, [1], "prompt 0 has 90 tokens; with 4 new ones"),
        ([(1,)], 93, 1.0, [1], "with 93 new ones that is more than the context of 93"),
        ([(1,)], 0, 1.0, [1], "max_new_tokens is 0"),
        ([(1,)], 4, -0.5, [1], "temperature is -0.5"),
        ([(1,)], 4, float("nan"), [1], "temperature is nan"),
        ([(1,), (2,)], 4, 1.0, [1], "1 seeds for 2 prompts"),
        ([(1,)], 4, 1.0, [1 << 31], "seed 2147483648"),
        ([(1,)], 4, 1.0, [-1], "seed -1"),
    ],
)
def test_what_cannot_be_answered_is_refused(prompts, new, temperature, seeds, said) -> None:
    with pytest.raises(DataError) as caught:
        check(prompts, new, temperature, seeds, 93)
    assert said in caught.value.message
    assert caught.value.fix


def test_a_prompt_that_just_fits_is_taken() -> None:
    check([(1,) * 89], 4, 0.0, [0], 93)


def test_trap_c6_every_end_token_of_a_list_ends_and_none_is_an_error() -> None:
    model = student()
    model.generation_config.eos_token_id = [3, 9]
    assert end_ids(model) == {3, 9}
    assert end_ids(model, 4) == {3, 4, 9}
    model.generation_config.eos_token_id = None
    assert end_ids(model) == {END}
    model.config.eos_token_id = None
    with pytest.raises(ConfigError, match="no end token"):
        end_ids(model)
    assert end_ids(model, 0) == {0}


def test_trap_c8_an_engines_answer_is_cut_after_its_end_token() -> None:
    assert from_engine((1,), [4, END, 5], [-1.0, -2.0, -3.0], ENDS, 3) == Rollout((1,), (4, END), (-1.0, -2.0), True)


def test_trap_c9_an_answer_that_was_cut_gets_no_end_token() -> None:
    assert from_engine((1,), [4, 5], [-1.0, 1e-6], ENDS, 2) == Rollout((1,), (4, 5), (-1.0, 0.0), False)


@pytest.mark.parametrize(
    ("ids", "logp"),
    [
        ([], []),
        ([4, 5], [-1.0]),
        ([4, END], [-1.0, float("nan")]),
        ([4, END], [float("-inf"), -1.0]),
        ([4, END], [-1.0, 0.5]),
        ([4, END], [-9999.0, -1.0]),  # a server's word for "none" (trap D12)
        ([4, 5], [-1.0, -1.0]),  # stopped early, by an end token that is not the student's (trap C7)
    ],
)
def test_traps_c7_d12_what_is_no_answer_is_refused(ids, logp) -> None:
    with pytest.raises(TeacherError):
        from_engine((1,), ids, logp, ENDS, 3)


def test_healthy_rollouts_have_no_findings() -> None:
    batch = [rollout((1, 2, 3, END)), rollout((4, 5, 6, 8, 9, 10))]
    found = health(batch, 1.0, Start().add(5.0, 1.2))
    assert found.findings == ()
    assert found.metrics["rollout/length_tokens"] == 5
    assert found.metrics["rollout/stop_rate"] == 1


@pytest.mark.parametrize(
    ("name", "batch", "entropy", "drift"),
    [
        ("length_inflation", [rollout(tuple(range(9)))], 1.0, 0.0),
        ("entropy_collapse", [rollout((1, 2, 3))], 0.1, 0.0),
        ("truncation", [rollout((1, 2), finished=False), rollout((1, 3), finished=False), rollout((1,))], 1.0, 0.0),
        ("repetition", [rollout((1, 2, 1, 2, 1, 2, 1, 2))], 1.0, 0.0),
        ("engine_drift", [rollout((1, 2, 3))], 1.0, 0.2),
    ],
)
def test_each_sign_is_found_alone_and_silenced_by_its_own_limit(name, batch, entropy, drift) -> None:
    start = Start().add(4.0, 1.0)
    (finding,) = health(batch, entropy, start, drift_nats=drift).findings
    assert finding.name == name
    assert finding.words
    loose = Limits(length_ratio=3, cut_share=0.9, entropy_share=0.05, repeated_share=0.9, drift_nats=0.5)
    assert not health(batch, entropy, start, loose, drift).findings


def test_nothing_is_held_against_a_start_that_is_not_there() -> None:
    assert not health([rollout(tuple(range(500)))], 0.0, Start()).findings


def test_the_start_is_a_running_mean() -> None:
    """Of the first steps on the student's own text, and the same from the journal of a run that is gone on with."""
    assert Start().add(2.0, 1.0).add(6.0, 2.0) == Start(2, 4.0, 1.5)
    start, journal = Start(), []
    for step in range(START_STEPS + 3):
        start = start.add(10.0 * step, step / 2)
        journal += [{"rollout/length_tokens": 10.0 * step, "rollout/entropy_nats": step / 2}, {"rollout/own_text": 0.0}]
    assert start == Start.of(journal) == Start(START_STEPS, 20.0, 1.0)


@given(st.lists(st.integers(0, 3), max_size=30), st.integers(1, 5))
def test_repeated_share_is_what_counting_says(ids, gram) -> None:
    assert repeated_share(ids, gram) == pytest.approx(rollout_naive.repeated_share(ids, gram))


def test_no_generator_of_torch_is_touched() -> None:
    before = torch.get_rng_state()
    health([rollout((1, 2))], 1.0, Start())
    assert torch.equal(before, torch.get_rng_state())
