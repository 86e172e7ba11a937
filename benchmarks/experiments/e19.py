"""E19: a student with a shorter memory than its teacher, left to its own answers, repeats itself until it is cut; with the data's
text in nine steps of ten it does not, after half as much of its own text.

Stable-OPD (arXiv 2604.08527): on-policy, answers grow until they are cut, since repeated text is cheap in reverse KL, and a
mixture with the data's text prevents it. The teacher here goes on repeating one token once it stands twice, and hardly ever
brings it there. The student sees one token: it cannot tell the first from the third, and the more it repeats, the more of its
text says that repeating is right. Shape legend: N positions, V vocabulary.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from benchmarks.experiments.oracle import BEGIN, Criterion, Oracle, Setting, Taught, copy, fit, table, tiny
from tutelage.losses.catalogue import make
from tutelage.models.causal import Causal
from tutelage.train.examples import Example
from tutelage.train.offpolicy import DataSource
from tutelage.train.onpolicy import RolloutSource
from tutelage.train.rollout_local import LocalRoller
from tutelage.train.teaching import Words

VOCABULARY, END, AGAIN = 24, 1, 2  # AGAIN is the token that is repeated
ENDS, COMES, SECOND, STAYS = 0.1, 0.05, 0.1, 0.99  # after a token: the end; AGAIN; AGAIN after one; after two
LONGEST, SHORT = 128, 48
BATCH = 16
RATE = 1e-2
LONGER, SHARE = 5, 0.1  # of the steps on the student's own text, where the data's is mixed in


class Size(NamedTuple):
    """Texts; steps of the start and on the student's own text alone (`LONGER` times as many with the data's); answers that are
    judged."""

    texts: int
    start: int
    own: int
    judged: int


SETTING = Setting(Size(512, 150, 200, 512), Size(4096, 1000, 1000, 4096))


def language(seed: int) -> Oracle:
    """What follows a token is as frequent as by Zipf, in another order after each; but for `AGAIN` and the end."""
    draw = torch.Generator().manual_seed(seed)
    p_VV = torch.zeros(VOCABULARY, VOCABULARY)
    for row_V in p_VV:
        order = 3 + torch.randperm(VOCABULARY - 3, generator=draw)
        row_V[order] = 1 / torch.arange(1, VOCABULARY - 2).float()
    p_VV /= p_VV.sum(-1, keepdim=True)

    def logits(before_N: torch.Tensor, last_N: torch.Tensor) -> torch.Tensor:
        again_N = torch.full((len(last_N),), COMES)
        again_N[last_N == AGAIN] = SECOND
        again_N[(last_N == AGAIN) & (before_N == AGAIN)] = STAYS
        ends_N = torch.where(last_N == AGAIN, 1e-9, ENDS)
        ends_N[last_N == BEGIN] = 1e-9
        p_NV = p_VV[last_N] * (1 - again_N - ends_N)[:, None]
        p_NV[:, AGAIN], p_NV[:, END], p_NV[:, BEGIN] = again_N, ends_N, 1e-9
        return p_NV.log()

    return Oracle(VOCABULARY, logits)


class Watched(RolloutSource):
    """Which step each kind of trouble was first told in, and how long the answers were."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, warn=lambda finding: self.told.setdefault(finding.name, self.steps), **named)
        self.told, self.steps = dict[str, int](), 0

    def metrics(self) -> dict[str, float]:
        self.steps += 1
        return super().metrics()


def run(seed: int, size: str) -> dict[str, Any]:
    """Mean length and share of cut answers, at the start and after each arm; lengths on the way, and when trouble was told."""
    own: Size = SETTING.of(size)
    teacher, draw = language(seed), torch.Generator().manual_seed(seed + 1)
    texts = ended(teacher.write([(BEGIN,)] * (2 * own.texts), SHORT, draw))[: own.texts]
    start, settings = tiny(VOCABULARY, seed, width=32, layers=0), table(own.start, BATCH, len(texts), RATE)
    fit(start, DataSource(texts, Words(make("cross-entropy")), settings, seed), settings, seed)
    said = teacher.write([(BEGIN,)] * own.judged, LONGEST, draw)
    found: dict[str, Any] = {
        "teacher": shape([text.ids[1:] for text in said]),
        "start": measured(start, own.judged, seed),
    }
    for name, share in (("alone", 1.0), ("mixed", SHARE)):
        steps = own.own * (1 if share == 1 else LONGER)
        student, settings = copy(start), table(steps, BATCH, len(texts), RATE)
        roller, teaching = LocalRoller(student.model, ends=frozenset({END})), Taught(teacher, make("reverse-kl"))
        source = Watched(texts, student, roller, teaching, settings, seed, max_new_tokens=LONGEST, student_share=share)
        log = fit(student, source, settings, seed)
        lengths = [entry["rollout/length_tokens"] for entry in log if "rollout/length_tokens" in entry]
        many = next((entry["step"] for entry in log if entry.get("rollout/cut_share", 0) > 0.1), None)
        found[name] = measured(student, own.judged, seed) | {
            "own_steps": len(lengths), "lengths": lengths[:: max(1, len(lengths) // 10)], "told": source.told, "cut_at": many
        }  # fmt: skip
    return found


def ended(texts: Sequence[Example]) -> list[Example]:
    """The texts that end, up to their end: what data are usually like."""
    cut = [text.ids[: text.ids.index(END) + 1] for text in texts if END in text.ids]
    return [Example(ids, tuple(range(1, len(ids))), str(at)) for at, ids in enumerate(cut)]


def measured(student: Causal, judged: int, seed: int) -> dict[str, float]:
    draw = torch.Generator().manual_seed(seed + 7)
    seeds = torch.randint(1 << 30, (judged,), generator=draw).tolist()
    roller = LocalRoller(student.model, ends=frozenset({END}), rows=256)
    return shape([one.ids for one in roller.write([(BEGIN,)] * judged, LONGEST, 1.0, seeds)])


def shape(answers: Sequence[Sequence[int]]) -> dict[str, float]:
    """Mean length in tokens with the end, and the share that has none."""
    lengths = [ids.index(END) + 1 if END in ids else len(ids) for ids in answers]
    return {"length": sum(lengths) / len(lengths), "cut": sum(END not in ids for ids in answers) / len(answers)}


def judge(found: dict[str, Any]) -> list[Criterion]:
    usual, start, alone, mixed = (found[name] for name in ("teacher", "start", "alone", "mixed"))
    told, many = alone["told"].get("length_inflation"), alone["cut_at"]
    return [
        Criterion(
            "on its own text alone its answers grow to more than twice the teacher's, and a tenth are cut",
            alone["length"] > 2 * usual["length"] and alone["cut"] > 0.1,
            f"{start['length']:.1f} → {alone['length']:.1f} tokens, the teacher's {usual['length']:.1f}; {start['cut']:.1%} → "
            f"{alone['cut']:.1%} cut at {LONGEST}, the teacher's {usual['cut']:.1%}",
        ),
        Criterion(
            f"with the data's text in {1 - SHARE:.0%} of the steps they stay within half more than the teacher's",
            mixed["length"] < 1.5 * usual["length"] and mixed["cut"] < 0.1,
            f"{start['length']:.1f} → {mixed['length']:.1f} tokens, {mixed['cut']:.1%} cut, after {mixed['own_steps']} steps on "
            f"its own text; alone {alone['own_steps']}",
        ),
        Criterion(
            "the guard tells of their length before a tenth of a step's answers is cut",
            told is not None and many is not None and told < many,
            f"told in step {told}, a tenth cut in step {many}; all that was told: {alone['told']}",
        ),
        Criterion(
            "of cut and repeated answers it tells there alone",
            {"truncation", "repetition"} <= {*alone["told"]} - {*mixed["told"]},
            f"told: {mixed['told'] or 'nothing'}",
        ),
    ]
