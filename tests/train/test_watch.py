"""What is seen of student and teacher, by hand; and trackers, which may fail without ending a run."""

import itertools
import math
import sys
import types
from typing import Any

import pytest
import torch

from tutelage.errors import ConfigError
from tutelage.losses.catalogue import make
from tutelage.losses.chunked import Part
from tutelage.signals import Dense, Signal, Sparse, Text, TopK
from tutelage.train.batch import Batch, Drawn, Term
from tutelage.train.tracking import tracked
from tutelage.train.watch import LOOKED_AT, Watch, compared


def batch(signal: Signal, loss: str) -> Batch:
    term = Term(torch.arange(len(signal)), (Part(make(loss), signal),))
    return Batch(torch.zeros(1, dtype=torch.long), (1,), (term,), {}, ())


def test_mass_overlap_and_entropy_by_hand() -> None:
    q = torch.tensor([[0.5, 0.25, 0.125, 0.125]])
    top = TopK(torch.tensor([[0, 3]]), torch.tensor([[0.6, 0.3]]).log(), torch.tensor([0.1]).log())
    watch = Watch()
    watch.look(q.log() + 3.0, batch(top, "top-k-forward-kl"), 0, slice(0, 1))
    seen = watch.means()
    assert seen["entropy_nats"] == pytest.approx(1.75 * 0.693147, rel=1e-5)
    assert seen["student_mass"] == pytest.approx(0.625)
    assert seen["teacher_mass"] == pytest.approx(0.9)
    assert seen["overlap"] == pytest.approx(0.5)
    assert watch.means() == {}
    watch.look(
        q.log(), batch(Sparse(torch.tensor([[1, 0]]), torch.tensor([[1.0, 0.0]])), "sparse-forward-kl"), 0, slice(0, 1)
    )
    assert watch.means()["student_mass"] == pytest.approx(0.25)


def test_the_full_distribution_is_compared_at_its_likeliest_tokens() -> None:
    p = torch.randn(200, 40, generator=torch.Generator().manual_seed(1)).log_softmax(-1)
    watch, logits = Watch(), p.clone()
    watch.begin(200)
    watch.look(logits, batch(Dense(p), "forward-kl"), 0, slice(0, 200))
    assert watch._counts["entropy_nats"] == LOOKED_AT
    seen = watch.means()
    assert seen["overlap"] == 1.0
    assert seen["student_mass"] == pytest.approx(seen["teacher_mass"])
    assert torch.equal(logits, p), "the loss still needs them"


@pytest.mark.parametrize(("positions", "seen"), [(40, 40), (64, 64), (65, 64), (1000, 64)])
def test_positions_all_over_a_step_are_looked_at(positions: int, seen: int) -> None:
    """Shown in chunks: the same ones, evenly spread. Drift is the distance of the logs of the drawn tokens."""
    watch, taken = Watch(), list[int]()
    watch.begin(500)
    watch.look(torch.zeros(33, 8), batch(Text(torch.zeros(500, dtype=torch.long)), "cross-entropy"), 0, slice(0, 33))
    for _ in range(2):
        watch.begin(positions)
        for start in range(0, positions, 7):
            at = slice(start, min(start + 7, positions))
            count = watch._counts["drift_nats"]
            logp_NV = torch.full((at.stop - start, 8), 0.125).log()
            drawn = Drawn(torch.zeros(positions, dtype=torch.long), torch.arange(positions) / 100 + math.log(0.125))
            one = batch(Text(drawn.ids_N), "cross-entropy")
            one = one._replace(terms=(one.terms[0]._replace(drawn=drawn),))
            watch.look(logp_NV, one, 0, at)
            taken += [start] * (watch._counts["drift_nats"] - count)
        drift = watch.means()["drift_nats"]
        assert len(taken) == seen
        assert taken[0] == 0
        assert drift == pytest.approx((positions - 1) / 200, rel=0.05)
        assert max(after - before for before, after in itertools.pairwise(taken)) <= positions / seen + 7
        taken.clear()


def test_slots_of_padding_are_no_candidates() -> None:
    """The student's likeliest token is id 0, which is what padding points at."""
    q = torch.tensor([[0.7, 0.2, 0.1, 0.0]])
    logp = torch.tensor([[0.6, 0.0, 0.0]]).log()
    overlap = {}
    for named in (0, 1):
        top = TopK(torch.tensor([[named, 0, 0]]), logp, torch.tensor([0.4]).log())
        overlap[named] = compared(q.log(), top)["overlap"].item()
    assert overlap == {0: 1.0, 1: 0.0}


def test_the_share_that_a_loss_leaves_out_counts_every_position_and_both_bounds() -> None:
    """Ratios q / q_drawn of 0.4, 0.5, 1, 2 and 2.5 by turns, shown in chunks; bounds belong to what is kept."""
    ratio_N = torch.tensor([0.4, 0.5, 1.0, 2.0, 2.5]).repeat(200)
    logq_NV = torch.tensor([0.2, 0.3, 0.5]).log().repeat(len(ratio_N), 1)
    drawn = Drawn(torch.ones(len(ratio_N), dtype=torch.long), math.log(0.3) - ratio_N.log())
    one = batch(Text(drawn.ids_N), "cross-entropy")
    one = one._replace(terms=(one.terms[0]._replace(drawn=drawn),))
    for bounds, share in (((0.499, 2.001), 0.4), ((0.499, math.inf), 0.2), ((0.0, 2.001), 0.2), (None, None)):
        watch = Watch(bounds)
        watch.begin(len(ratio_N))
        for start in range(0, len(ratio_N), 300):
            watch.look(logq_NV[start : start + 300] + 5.0, one, 0, slice(start, min(start + 300, len(ratio_N))))
        assert watch.means().get("masked_share") == (None if share is None else pytest.approx(share))


class Fake(types.ModuleType):
    """A tracker of wandb's form that breaks at its third line."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.lines: list[tuple[dict[str, float], int]] = []

    def init(self, **given: Any) -> None:
        self.given = given

    def log(self, values: dict[str, float], step: int) -> None:
        if len(self.lines) == 2:
            raise ConnectionError("no network")
        self.lines.append((values, step))


def test_a_broken_tracker_is_told_once_and_the_journal_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    fake, journal, said = Fake(), list[dict[str, Any]](), list[str]()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    log = tracked("wandb", "films", "first", journal.append, said.append)
    for step in range(5):
        log({"step": step, "loss_nats": 1.5, "rows": [1, 2], "at_s": 3.0})
    assert fake.given == {"project": "films", "name": "first"}
    assert fake.lines == [({"step": float(step), "loss_nats": 1.5}, step) for step in range(2)]
    assert len(journal) == 5
    assert said == ["wandb failed and is not told any more: no network"]


def test_unknown_and_absent_trackers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="no tracker 'neptune'"):
        tracked("neptune", "a", "b", print, print)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ConfigError, match="mlflow is not installed"):
        tracked("mlflow", "a", "b", print, print)
