"""E12: text alone. A discriminator that stays as it was is hacked, its reward rises while the answers grow; one that learns along
is not. Preferring the teacher's text to one snapshot of the student is no worse than more of that text, and costs a tenth of GAD.

GAD (arXiv 2511.10643): a discriminator learns to tell the teacher's answers from the student's (Bradley-Terry), the student by
policy gradient with advantages within a group to be taken for it. SODA (arXiv 2604.03873): `train.pairs`. The discriminator here
adds up a value for each pair of neighbouring tokens and one for the length, and learns faster than the student, in eight steps to
each of its own: with one it is hacked too. Its cost is counted as published, that of a network as large as the student at a step
to each. Weights, rates, these steps and the teacher's sharpness were chosen on seeds 10 and 11.
Shape legend: B answers, F features, N positions, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from time import process_time
from typing import Any, NamedTuple

import torch

from benchmarks.experiments.oracle import BEGIN, Criterion, Oracle, Setting, copy, divergence, fit, table, tiny, zipf
from tutelage.config import TrainTable
from tutelage.losses.base import Loss
from tutelage.losses.catalogue import make
from tutelage.losses.chunked import Part
from tutelage.losses.joint import log_likelihood
from tutelage.models.causal import Causal
from tutelage.signals import Signal
from tutelage.train.batch import Batch, Term
from tutelage.train.examples import Example
from tutelage.train.loop import Plan, plan_steps, precision
from tutelage.train.offpolicy import DataSource, passage_of
from tutelage.train.onpolicy import written
from tutelage.train.pairs import Pair, PairSource, snapshot
from tutelage.train.rollout import Rollout
from tutelage.train.rollout_local import LocalRoller
from tutelage.train.teaching import Words

VOCABULARY, END = 24, 1
SHARPNESS = 4.0  # of the teacher, so that the student's answers are clearly the worse ones
ENDS = 0.1  # probability that the teacher ends after a token: answers of ten tokens
LONGEST = 64
BATCH, GROUP = 8, 8
RATE, POLICY_RATE = 3e-3, 1e-3
BETA, TEXT_WEIGHT = 0.1, 1.0
JUDGE_STEPS = 8  # of the discriminator that learns along, to each step of the student
TRAINED = 3  # a token that is learnt from costs as much as three that are read or written


class Size(NamedTuple):
    """Answers of the teacher; steps of the start, and after it of more text and of pairs, and of GAD with a discriminator that
    learns (a quarter of them where it does not); answers that are judged."""

    answers: int
    start: int
    more: int
    adversarial: int
    judged: int


SETTING = Setting(Size(256, 256, 64, 160, 512), Size(1024, 1024, 256, 640, 2048))


def run(seed: int, size: str) -> dict[str, Any]:
    """From one student that has learnt the teacher's text for a while: more text, pairs, and both discriminators."""
    own: Size = SETTING.of(size)
    teacher, draw = language(seed), torch.Generator().manual_seed(seed + 1)
    prompts = [(BEGIN, int(token)) for token in torch.randint(2, VOCABULARY, (2 * own.answers,), generator=draw)]
    texts = ended(teacher.write(prompts[: own.answers], LONGEST, draw), 2)
    held = ended(teacher.write(prompts[own.answers :], LONGEST, draw), 2)
    start = tiny(VOCABULARY, seed, width=32, layers=1)
    settings = table(own.start, 2 * BATCH, len(texts), RATE)
    fit(start, DataSource(texts, Words(make("cross-entropy")), settings, seed), settings, seed)
    judged = [(BEGIN, 2 + at % (VOCABULARY - 2)) for at in range(own.judged)]
    found: dict[str, Any] = {
        "teacher": {"length": sum(len(one.targets) for one in held) / len(held)},
        "start": measured(start, teacher, held, judged, seed),
    }
    for name in ("text", "pairs", "frozen", "learning"):
        student, began = copy(start), process_time()
        cost, more = taught(student, name, texts, own, seed)
        found[name] = measured(student, teacher, held, judged, seed) | more
        found[name] |= {"cost_tokens": cost, "cpu_s": process_time() - began}
    return found


def language(seed: int) -> Oracle:
    """Zipf's, in which every token but the first may end the answer."""
    plain = zipf(VOCABULARY, seed, SHARPNESS)

    def logits(before_N: torch.Tensor, last_N: torch.Tensor) -> torch.Tensor:
        logp_NV = plain.logp(before_N, last_N).clone()
        logp_NV[:, END] = -torch.inf
        rest_NV = logp_NV.log_softmax(-1) + torch.log(torch.tensor(1 - ENDS))
        rest_NV[:, END] = torch.log(torch.tensor(ENDS))
        return rest_NV

    return Oracle(VOCABULARY, logits)


def ended(texts: Sequence[Example], prompt: int) -> list[Example]:
    """Texts up to and with their end, where they have one."""
    cut = []
    for at, text in enumerate(texts):
        ids = text.ids[: text.ids.index(END) + 1] if END in text.ids else text.ids
        cut.append(Example(ids, tuple(range(prompt, len(ids))), str(at)))
    return cut


def answers(student: Causal, prompts: Sequence[tuple[int, ...]], seed: int) -> list[Rollout]:
    draw = torch.Generator().manual_seed(seed)
    seeds = torch.randint(1 << 30, (len(prompts),), generator=draw).tolist()
    return LocalRoller(student.model, ends=frozenset({END}), rows=256).write(prompts, LONGEST, 1.0, seeds)


def measured(
    student: Causal, teacher: Oracle, held: Sequence[Example], prompts: Sequence[tuple[int, ...]], seed: int
) -> dict[str, float]:  # fmt: skip
    """Mean length of the student's answers; how likely the teacher finds them, in nats a token, as a judge does that looks at one
    answer at a time; and how far both distributions are apart, on the teacher's text and on the student's."""
    own = [written(one, "") for one in answers(student, prompts, seed + 7)]
    passage = passage_of(own)
    logp_NV = teacher.rows(passage.ids_T, passage.lengths)[passage.positions_N]
    return {
        "judged_nats": -logp_NV.gather(1, passage.target_ids_N[:, None]).mean().item(),
        "length": sum(len(one.targets) for one in own) / len(own),
        "forward_nats": divergence(student, teacher, held),
        "reverse_nats": divergence(student, teacher, own, "reverse-kl"),
    }


def taught(
    student: Causal, name: str, texts: Sequence[Example], own: Size, seed: int
) -> tuple[float, dict[str, Any]]:  # fmt: skip
    """Trains in place; the cost in tokens read or written, and what else was seen."""
    read = sum(len(one.ids) for one in texts) / len(texts)
    if name == "text":
        settings = table(own.more, BATCH, len(texts), RATE)
        fit(student, DataSource(texts, Words(make("cross-entropy")), settings, seed), settings, seed)
        return own.more * BATCH * read * TRAINED, {}
    if name == "pairs":
        rollouts = answers(student, [one.ids[:2] for one in texts], seed + 3)
        pairs = [Pair(one, written(rollout, one.source)) for one, rollout in zip(texts, rollouts, strict=True)]
        pairs = [pair for pair in pairs if not pair.alike]
        first = snapshot(student, pairs, precision("float32"))
        settings = table(own.more, BATCH, len(pairs), RATE)
        source = PairSource(first, make("dpo", beta=BETA), settings, seed, text_weight=TEXT_WEIGHT)
        fit(student, source, settings, seed)
        both = sum(len(example.ids) for pair in pairs for example in pair)
        wrote = sum(len(one.ids) for one in rollouts)
        return wrote + both + own.more * BATCH * TRAINED * both / len(pairs), {}
    learns = name == "learning"
    settings = table(own.adversarial // (1 if learns else 4), BATCH, len(texts), POLICY_RATE)
    source = AdversarialSource(texts, student, settings, seed, learns=learns)
    fit(student, source, settings, seed)
    return source.tokens_spent, {"lengths": source.lengths[:: len(source.lengths) // 8], "rewards": [
        source.rewards[0], source.rewards[-1]]}  # fmt: skip


class Discriminator:
    """The sum of a value for each pair of neighbours and of one for each token, learnt to be higher for the teacher's answers:
    −log σ(D(teacher's) − D(student's)), GAD, eq. 2."""

    def __init__(self, rate: float = 0.03) -> None:
        self.weights_F = torch.zeros(VOCABULARY * VOCABULARY + 1, requires_grad=True)
        self._optimizer = torch.optim.AdamW([self.weights_F], lr=rate, weight_decay=0.01)

    @staticmethod
    def features(texts: Sequence[Example]) -> torch.Tensor:
        """Counts [B, F], a tenth each."""
        found_BF = torch.zeros(len(texts), VOCABULARY * VOCABULARY + 1)
        for row, text in enumerate(texts):
            for at in text.targets:
                found_BF[row, text.ids[at - 1] * VOCABULARY + text.ids[at]] += 0.1
            found_BF[row, -1] = 0.1 * len(text.targets)
        return found_BF

    def __call__(self, features_BF: torch.Tensor) -> torch.Tensor:
        return (features_BF @ self.weights_F).detach()

    def learn(self, teacher_BF: torch.Tensor, student_BF: torch.Tensor) -> None:
        self._optimizer.zero_grad()
        torch.nn.functional.softplus(-(teacher_BF - student_BF) @ self.weights_F).mean().backward()
        self._optimizer.step()


@dataclass(frozen=True, slots=True)
class Rewarded(Signal):
    """Tokens that were drawn, and the advantage of the answer each is of."""

    ids_N: torch.Tensor
    advantage_N: torch.Tensor


POLICY = Loss(
    "policy-gradient", Rewarded, lambda logits_NV, signal: -signal.advantage_N * log_likelihood(logits_NV, signal.ids_N)
)


class AdversarialSource:
    """Groups of answers of the student as it stands, with advantages (r − mean) / deviation within each group."""

    def __init__(
        self, texts: Sequence[Example], student: Causal, table: TrainTable, seed: int, *, learns: bool
    ) -> None:
        self._texts, self._student, self._table, self._seed, self._learns = texts, student, table, seed, learns
        self._judge, self.tokens_spent = Discriminator(), 0.0
        self.lengths, self.rewards = list[float](), list[float]()
        self._current: list[Example] = []
        self._advantage_B = torch.zeros(0)
        self.look = None
        self._warm()

    @property
    def plan(self) -> Plan:
        return plan_steps(len(self._texts), self._table)

    def rows(self, step: int) -> tuple[int, ...]:
        draw = torch.Generator().manual_seed(1000 * self._seed + step)
        chosen = [self._texts[at] for at in torch.randint(len(self._texts), (BATCH,), generator=draw).tolist()]
        self._current, own_BF, teacher_BF = self._group(chosen, step)
        reward_BG = self._judge(own_BF).view(BATCH, GROUP)
        for _ in range(JUDGE_STEPS if self._learns else 0):
            self._judge.learn(teacher_BF, own_BF)
        apart_BG = reward_BG - reward_BG.mean(1, keepdim=True)
        self._advantage_B = (apart_BG / (reward_BG.std(1, keepdim=True) + 1e-3)).flatten()
        self.lengths.append(sum(len(one.targets) for one in self._current) / len(self._current))
        self.rewards.append(reward_BG.mean().item())
        self._spend(chosen, self._current, learnt=True)
        return tuple(range(len(self._current)))

    def tokens(self, row: int) -> int:
        return len(self._current[row].ids)

    def loss_tokens(self, rows: Sequence[int]) -> int:
        return sum(len(self._current[row].targets) for row in rows)

    def batch(self, rows: Sequence[int]) -> Batch:
        some = [self._current[row] for row in rows]
        passage = passage_of(some)
        sizes = torch.tensor([len(one.targets) for one in some])
        signal = Rewarded(passage.target_ids_N, self._advantage_B[list(rows)].repeat_interleave(sizes))
        term = Term(passage.positions_N, (Part(POLICY, signal),))
        return Batch(passage.ids_T, passage.lengths, (term,), {"own": self.loss_tokens(rows)}, tuple(rows))

    def metrics(self) -> dict[str, float]:
        return {}

    def _warm(self, steps: int = 60) -> None:
        """The discriminator first learns to know the starting student, as in GAD's warm-up."""
        own, student_BF, teacher_BF = self._group(self._texts[:64], -1)
        for _ in range(steps):
            self._judge.learn(teacher_BF, student_BF)
        self._spend(self._texts[:64], own, learnt=False)

    def _spend(self, chosen: Sequence[Example], own: Sequence[Example], *, learnt: bool) -> None:
        """The student writes, and learns; the discriminator reads its answers, or learns on them and the teacher's."""
        theirs, mine = (sum(len(one.targets) for one in some) for some in (chosen, own))
        judged = TRAINED * (mine + theirs) if self._learns or not learnt else mine
        self.tokens_spent += mine * (1 + TRAINED * learnt) + judged

    def _group(self, chosen: Sequence[Example], step: int) -> tuple[list[Example], torch.Tensor, torch.Tensor]:
        prompts = [one.ids[:2] for one in chosen for _ in range(GROUP)]
        own = [written(one, "") for one in answers(self._student, prompts, 7000 * self._seed + step + 1)]
        teacher_BF = Discriminator.features(chosen).repeat_interleave(GROUP, 0)
        return own, Discriminator.features(own), teacher_BF


def judge(found: dict[str, Any]) -> list[Criterion]:
    usual = found["start"]["length"]
    frozen, learning, pairs, text = (found[name] for name in ("frozen", "learning", "pairs", "text"))
    share = pairs["cost_tokens"] / learning["cost_tokens"]
    return [
        Criterion(
            "frozen discriminator: the answers grow to twice their length or more while its reward rises",
            frozen["length"] > 2 * usual and frozen["rewards"][1] > frozen["rewards"][0],
            f"{usual:.1f} → {frozen['length']:.1f} tokens, the teacher's {found['teacher']['length']:.1f}; reward "
            f"{frozen['rewards'][0]:.2f} → {frozen['rewards'][1]:.2f}",
        ),
        Criterion(
            "learning discriminator: they do not grow by half",
            learning["length"] < 1.5 * usual,
            f"{usual:.1f} → {learning['length']:.1f} tokens",
        ),
        Criterion(
            "pairs are no worse than more text, by how likely the teacher finds the answers",
            pairs["judged_nats"] <= text["judged_nats"],
            f"{pairs['judged_nats']:.3f} and {text['judged_nats']:.3f} nats a token, before {found['start']['judged_nats']:.3f}, "
            f"GAD {learning['judged_nats']:.3f}; reverse KL {pairs['reverse_nats']:.3f} and {text['reverse_nats']:.3f}, forward "
            f"{pairs['forward_nats']:.3f} and {text['forward_nats']:.3f}",
        ),
        Criterion(
            "pairs do not make the answers longer than the teacher's by a tenth",
            pairs["length"] < 1.1 * found["teacher"]["length"],
            f"{usual:.1f} → {pairs['length']:.1f} tokens, the teacher's {found['teacher']['length']:.1f}",
        ),
        Criterion(
            "pairs are no worse than GAD at a tenth of its cost or less",
            share <= 0.1 and pairs["judged_nats"] <= learning["judged_nats"],
            f"{share:.1%}: {pairs['cost_tokens']:,.0f} and {learning['cost_tokens']:,.0f} tokens ({pairs['cpu_s']:.1f} and "
            f"{learning['cpu_s']:.1f} s of CPU, the discriminator's next to nothing)",
        ),
    ]
