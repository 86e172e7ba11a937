"""What the experiments reproduce of published behaviour. Of a criterion that is not met nothing but a report is asked."""

import json
import math
from typing import Any

import pytest
import torch

from benchmarks.experiments import e2, e5, e6, e9
from benchmarks.experiments.__main__ import NAMES, RESULT, experiment
from benchmarks.experiments.counting import all_prompts, counting, right_after
from benchmarks.experiments.oracle import Taught, divergence, fit, own_text, roller, table, tiny, zipf
from tutelage.losses.catalogue import make
from tutelage.train.offpolicy import DataSource

HALF = "after supervised training it works: the reverse KL falls by half"
SHARED = "the shared of the 16 likeliest rise to more than 0.95 of the mass"
GAIN = "at least 0.9 of what a teacher with the student's tokenizer gains over the text"
CHEAPER = "pairs are no worse than GAD at a tenth of its cost or less"
STAY = "and the facts stay: 90 % of them at least"
BOTH_STAY = "with the facts' rows beside it, taught by the student that knows them, both stay: 90 % at least"
UNMET = (
    {("E10", 1, SHARED), ("E10", 2, HALF)}
    | {("E4", seed, "rises with λ from a quarter on") for seed in (0, 1, 2)}
    | {("E11", seed, GAIN) for seed in (0, 1, 2)}
    | {("E7", seed, "the order is DistiLLM-2, DistiLLM, GKD, SeqKD, KD") for seed in (0, 1, 2)}
    | {("E8", seed, "forward KL's student does") for seed in (0, 1, 2)}
    | {("E12", 0, CHEAPER)}
    | {("E12", 2, "pairs are no worse than more text, by how likely the teacher finds the answers")}
    | {("E22", seed, name) for seed in (0, 1, 2) for name in (STAY, BOTH_STAY)}
)


def require_reproduced(name: str, seed: int, criteria: list[dict[str, Any]]) -> None:
    for one in criteria:
        assert one["words"]
        assert one["passed"] or (name, seed, one["name"]) in UNMET, one


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_published_behaviour_is_reproduced(name: str) -> None:
    require_reproduced(name, 0, experiment(name, 0, "ci")["criteria"])


def test_results_tell_of_every_experiment_and_of_what_is_not_met() -> None:
    found = json.loads(RESULT.read_bytes())["ci"]
    assert set(found) == set(NAMES)
    runs = [(name, int(seed), run["criteria"]) for name, kept in found.items() for seed, run in kept["seeds"].items()]
    for run in runs:
        require_reproduced(*run)
    assert {
        (name, seed, one["name"]) for name, seed, criteria in runs for one in criteria if not one["passed"]
    } == UNMET


def test_forward_kl_covers_and_reverse_kl_seeks() -> None:
    require_reproduced("E5", 0, [one._asdict() for one in e5.judge(e5.run(0, "ci"))])


def test_rows_that_are_unbiased_have_the_whole_gradient() -> None:
    oracle, student = zipf(256, 0, e2.SHARPNESS, e2.RANK), tiny(256, 0)
    texts = oracle.texts(128, 32, 1)
    e2.teach(student, oracle, e2.FULL, texts, 30, 0)
    whole_P = e2.gradient(student, oracle, e2.FULL, texts)
    found = {name: e2.gradient(student, oracle, name, texts) for name in e2.THINNED}
    angle = {
        name: math.degrees(math.acos(whole_P @ one_P / (whole_P.norm() * one_P.norm())))
        for name, one_P in found.items()
    }
    along = {name: float(whole_P @ one_P / (whole_P @ whole_P)) for name, one_P in found.items()}
    assert angle["top-12"] > angle["top-50"] > 2 * max(angle["draws"], angle["threshold"])
    assert all(abs(along[name] - 1) < 0.03 for name in ("draws", "threshold", "top-20+sampled"))
    assert all(along[name] > 1.05 for name in ("top-12", "top-50"))


def test_drawn_tokens_give_the_whole_gradient_on_average() -> None:
    oracle, student = zipf(e6.VOCABULARY, 0, e6.SHARPNESS), tiny(e6.VOCABULARY, 0)
    texts = oracle.texts(15 * 16, e6.TOKENS, 1)
    settings = table(15, 16, len(texts))
    fit(student, DataSource(texts, Taught(oracle, make("forward-kl")), settings, 0), settings, 0)
    named, biased = e6.teachings(oracle, student), f"top-{e6.K} renormalised"
    found = e6.gradients(oracle, student, {name: named[name] for name in ("full", *e6.UNBIASED, biased)}, 16, 0)
    assert all(abs(found[name]["z_along"]) < 3 for name in e6.UNBIASED)
    assert abs(found[biased]["z_along"]) > 10
    assert found["full"]["variance"] < found["vopd"]["variance"] < found["sampled"]["variance"]


def test_with_all_tokens_allowed_the_student_writes_as_it_does_alone() -> None:
    oracle, student, prompts = counting(), tiny(e9.EVERY, 0), all_prompts(0)[:16]
    seeds = list(range(100, 116))
    alone = roller(student).write(prompts, 24, 1.0, seeds)
    assert e9.Interleaved(student, oracle, e9.EVERY).write(prompts, 24, 1.0, seeds) == alone
    helped = e9.Interleaved(student, oracle, 1).write(prompts, 24, 1.0, seeds)
    ids_BT = torch.tensor([one.prompt_ids + one.ids for one in helped])
    assert (right_after(ids_BT[:, 1:-2], ids_BT[:, 2:-1]) == ids_BT[:, 3:]).float().mean() > 0.99
    assert divergence(student, oracle, own_text(student, prompts, 24, 0), "reverse-kl") > 1
