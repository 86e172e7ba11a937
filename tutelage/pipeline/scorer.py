"""A teacher behind an API that scores our text: asked as training goes, under budget, store and terms as for any question.

A text's address is known before it is sent, so what was scored once is never paid again: a resumed run writes the same answers
and finds their scores in the store.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from tutelage.errors import ConfigError, PartialError, SignalError
from tutelage.losses.catalogue import make
from tutelage.models.exchange import Terms
from tutelage.models.http import HttpModel
from tutelage.models.probe import NO, Probe
from tutelage.models.questions import ask_all
from tutelage.models.scores import Form, Ids, ScoresDialect, Spelling, request_of
from tutelage.pipeline.choosing import Access, Tokens, nearest
from tutelage.pipeline.gate import teacher_name
from tutelage.pipeline.rendering import Rows
from tutelage.pipeline.run import Run
from tutelage.pipeline.serving import Served, remote
from tutelage.pipeline.session import asking, budget_of
from tutelage.pipeline.supervision import known_probe
from tutelage.pipeline.teaching_plan import Method, Reader, table_of
from tutelage.pipeline.tuition import Taught
from tutelage.progress import Progress, Quiet
from tutelage.records import NUSD_PER_USD, UNATS_PER_NAT, Position, Role, TokenLogprob
from tutelage.train.examples import Example
from tutelage.train.loop import plan_steps
from tutelage.train.order import epoch_order
from tutelage.train.per_prompt import by_prompt
from tutelage.train.preflight import TRIED
from tutelage.train.scored import Ask, AskedScores, AskedTopK, ids_of_example
from tutelage.train.teaching import Teaching, Together, Words
from tutelage.training_config import ScorerTable, TrainingConfig

PURPOSE = "train"  # the namespace of answers that may be trained on
SCORE_K = 1  # candidates asked for where only the token that stands there counts: 0 means "none at all" to some servers


class Expected(NamedTuple):
    """What scoring comes to: texts, their tokens as expected and at most, and both in nano-USD."""

    texts: int
    tokens: int
    most_tokens: int
    nusd: int
    most_nusd: int


def scorer_of(config: TrainingConfig) -> ScorerTable:
    """The run file names one."""
    assert config.scorer is not None
    return config.scorer


def asked_as(config: TrainingConfig) -> dict[str, Any]:
    """What of the table changes what comes back, as settings of a stage; empty where there is none."""
    named = {"api", "url", "model", "provider", "licence", "scores", "top_logprobs"}
    return {"scorer": config.scorer.model_dump(mode="json", include=named)} if config.scorer is not None else {}


class Scorer:
    """Asks for the scores of texts; each text a question of its own."""

    def __init__(self, config: TrainingConfig, run: Run, spelling: Spelling) -> None:
        """Raises `ConfigError` and `TeacherError` as `asking` does, and `ConfigError` for an endpoint that was found to score
        nothing."""
        table = scorer_of(config)
        found = known_probe(table)
        self._table, self._run, self._spelling = table, run, spelling
        self.form = form_of(table, found, config.method.loss)
        self._name, self._identity = teacher_name(table), ""
        text = table.model_copy(update={"signal": "text"})  # nothing is asked about its own output
        terms = Terms(_standing(run), Role.SCORER)
        budget = budget_of(config.budget, run.store)
        self._asking = asking(run, Served(remote(table), None), text, terms, budget, config.run.seed, "1")
        self._asking.progress = _Beside(run.progress)
        endpoint = self._asking.model.endpoint
        self._asking.model = HttpModel(endpoint, ScoresDialect(spelling), table.concurrency)
        self._endpoint, self.prices = endpoint, self._asking.prices
        top = min(table.top_logprobs, found.top_k_supplied) if found is not None and found.top_k_supplied else 0
        self.k = top or table.top_logprobs

    def asked(self, k: int) -> Ask:
        """Scores with k candidates a place."""
        return lambda texts: self(texts, k)

    def __call__(self, texts: Sequence[Ids], k: int) -> list[tuple[Position, ...]]:
        """A position for each scored token of each text. Raises what `ask` raises, and `SignalError` for an endpoint whose model
        is not the one that answered first."""
        requests = [request_of(self._endpoint, ids, self.form, k, PURPOSE) for ids in texts]
        with self._run.stop.heeded():
            ask_all(self._asking, requests, self._table.concurrency, f"scores of {self._name}")
        addresses = [request.digest for request in requests]
        missing = set(addresses) - self._run.store.known(addresses)
        if missing:
            last = next(iter([*self._asking.refusals[-1:], *self._asking.failures[-1:]]), None)
            raise PartialError(
                f"{len(missing)} of {len(texts)} texts were not scored by {self._name}: {last.reason if last else 'no reason'}",
                fix="lower data.max_tokens or method.max_new_tokens if they are too long for it; then run again",
            )
        return [
            self._read(pair.exchange, ids) for pair, ids in zip(self._run.store.pairs(addresses), texts, strict=True)
        ]

    def _read(self, exchange: dict[str, Any], ids: Ids) -> tuple[Position, ...]:
        """What the store holds, held against our tokens again: a student of another tokenizer may have asked."""
        said = f"{exchange['model']['model_reported']} {exchange['model']['fingerprint']}".strip()
        self._identity = self._identity or said
        if said != self._identity:
            raise SignalError(
                f"{self._name} was {self._identity!r} when its first scores were taken, and is {said!r} now: scores of two "
                "teachers are not mixed",
                fix="let it serve the first one again, or begin anew in another --out",
            )
        rows = tuple(
            Position(TokenLogprob(**row["chosen"]), tuple(TokenLogprob(**one) for one in row["top"]))
            for row in exchange["logprobs"]
        )
        spelled = [self._spelling.spelled[token] for token in ids.scored]
        if [row.chosen.token_id for row in rows] != list(ids.scored) or [
            row.chosen.token_bytes for row in rows
        ] != spelled:
            raise SignalError(
                f"the stored scores of {self._name} are of other tokens than the student's",
                fix="begin anew in another --out: this store was filled for a student with another tokenizer",
            )
        return rows

    @property
    def identity(self) -> str:
        """The model and fingerprint that its answers name; empty before the first one."""
        return self._identity


def form_of(table: ScorerTable, found: Probe | None, loss: str) -> Form:
    """How to ask: as the run file says, else as a probe found, else `echo`. Raises `ConfigError` when the probe found that it
    scores nothing, with the nearest method that it can teach by."""
    if table.scores is not None:
        return table.scores
    if found is None or found.is_yes("scores_echo"):
        return "echo"
    if found.is_yes("scores_prompt_logprobs"):
        return "prompt_logprobs"
    if {found.item("scores_echo").answer, found.item("scores_prompt_logprobs").answer} == {NO}:
        way = nearest(loss, Access.TEXT, Tokens.UNKNOWN)
        raise ConfigError(
            f"{loss} needs {Access.SCORES}, and {found.model_asked} at {found.route} gives none: "
            f"{found.item('scores_echo').words or 'so it was probed'}",
            fix=f"nearest to it: {way.keys} ({way.words})",
        )
    return "echo"


def taught_by_scorer(
    config: TrainingConfig, method: Method, run: Run, pupil: Reader, rows: Rows, *, has_scores: bool = False
) -> Taught:
    """Teaching and judging by scores, after a look: what is asked is told with its cost, and a few answers are scored.
    `has_scores`: those of the student's own answers were taken before, and what they cost was told then."""
    scorer = Scorer(config, run, Spelling(pupil.spelled))
    if not has_scores:
        _tell_cost(config, run.progress, scorer, expected(config, scorer, rows))
    facts = _look(run.progress, scorer, rows.train)
    judging: Teaching
    if method.signal == "sampled":
        teaching: Teaching = AskedScores(scorer.asked(SCORE_K), method.loss)
        judging = AskedTopK(scorer.asked(scorer.k), make("top-k-reverse-kl"))
    else:
        judging = teaching = AskedTopK(scorer.asked(scorer.k), method.loss)
        if config.method.text_weight:
            judging = teaching = Together([teaching, Words(make("cross-entropy"), config.method.text_weight)])
    return Taught(teaching, judging, facts)


def _look(progress: Progress, scorer: Scorer, train: Sequence[Example]) -> dict[str, Any]:
    """Whether it scores, with our tokens, and what the answers cost it. Facts in micro-nats."""
    said = scorer([ids_of_example(example) for example in train[:TRIED]], scorer.k)
    unats = [-row.chosen.logprob_unats for rows in said for row in rows]
    mean, named = sum(unats) / len(unats), min(len(row.top) for rows in said for row in rows)
    progress.say(
        f"look: the endpoint's tokens are the student's ({len(unats):,} compared); the answers cost it "
        f"{mean / UNATS_PER_NAT:.3f} nats a token; at least {named} candidates a place"
    )
    return {"teacher_unats": round(mean), "scored_by": scorer.identity, "candidates": named}


def expected(config: TrainingConfig, scorer: Scorer, rows: Rows) -> Expected:
    """Every step's texts, and once those to judge by and those of the look
    that no step takes: what the store has already is not taken off."""
    asked, answers = ([len(one.ids) for one in side] for side in (rows.train, rows.validation))
    prompts = [one.targets[0] for one in rows.train]
    if config.train.epoch_over == "prompts":
        prompts = [prompts[row] for row, *_ in by_prompt(rows.train)]
    table = table_of(config, len(prompts))
    per_epoch, steps = plan_steps(len(prompts), table)
    epochs = (epoch_order(prompts, table.batch_size, config.run.seed, at) for at in range(math.ceil(steps / per_epoch)))
    taken = [row for step in [step for epoch in epochs for step in epoch][:steps] for row in step]
    share = config.method.student_share
    usual = min(config.method.max_new_tokens, sum(len(one.targets) for one in rows.train) / len(asked))
    once = min(len(taken), len(asked)) if share < 1 else 0  # the data's text is scored once
    looked = asked[:TRIED] if once < len(asked) else []
    own, judged = round(share * len(taken)), sum(answers) + sum(looked)
    data, before = sum(asked) / len(asked) * once, share * sum(prompts[row] for row in taken)
    tokens, most = (round(before + own * new + data + judged) for new in (usual, config.method.max_new_tokens))
    texts, said = own + once + len(answers) + len(looked), 0 if scorer.form == "echo" else 1
    each = [math.ceil(count / max(1, texts)) for count in (tokens, most)]  # fees and steps of a price are a text's
    return Expected(texts, tokens, most, *(texts * scorer.prices.bound_nusd(size, said) for size in each))


def _tell_cost(config: TrainingConfig, progress: Progress, scorer: Scorer, found: Expected) -> None:
    words = f"scores: about {found.texts:,} texts of {found.tokens:,} tokens (at most {found.most_tokens:,})"
    if not scorer.prices.bound_nusd(1, 1):
        progress.say(f"{words}; cost: none ({scorer.prices.source})")
        return
    limit = config.budget.max_cost_usd
    enough = "" if found.nusd <= limit * NUSD_PER_USD else ": it will not do for all steps"
    progress.say(
        f"{words}; cost: about ${found.nusd / NUSD_PER_USD:.4f}, at most ${found.most_nusd / NUSD_PER_USD:.4f} "
        f"({scorer.prices.source}); limit ${limit:g}{enough}"
    )


def _standing(run: Run) -> str:
    """The verdicts under which this run's teacher is asked: its latest terms stage."""
    found = [entry for entry in run.log.statements() if (entry.kind, entry.stage) == ("statement", "terms")]
    return found[-1].inputs["registry"]


class _Beside(Quiet):
    """What asking says while training shows its own line."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def say(self, line: str) -> None:
        self._progress.say(line)
