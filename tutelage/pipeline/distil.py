"""The whole arc, in order: terms, data, collect, curate, student, train, ship, prove, report."""

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tutelage.canon import decimals, digest_file, digest_of
from tutelage.collect.sources import read_rows
from tutelage.collect.split import Origin
from tutelage.collect.stages import collect, make_prompts
from tutelage.config import RunConfig
from tutelage.curate.select import curate
from tutelage.jsonl import read_lines, write_whole
from tutelage.meter import Meter
from tutelage.models.ask import Asking, Terms
from tutelage.models.limits import Budget, Pace
from tutelage.models.openai import OpenAIModel
from tutelage.models.prices import price_list
from tutelage.models.questions import label_params
from tutelage.pipeline import evidence, learning
from tutelage.pipeline.commit import commit_exchanges
from tutelage.pipeline.gate import Gate, check_terms, require_terms
from tutelage.pipeline.run import Done, Facts, Run
from tutelage.pipeline.serving import Served, serve_teacher
from tutelage.prompts import read_prompts
from tutelage.prove.claims import declare, power
from tutelage.records import NUSD_PER_USD, Claim, Role
from tutelage.resources import fetch, resource

COLLECT_PURPOSE = "train"  # the namespace of answers that may be trained on


class Distillation:
    """One run of the arc over a run folder; each method is one stage."""

    def __init__(self, config: RunConfig, run: Run) -> None:
        self.config = config
        self.run = run
        self.folder = run.folder
        money = round(config.budget.max_cost_usd * NUSD_PER_USD)
        self.budget = Budget(money, config.budget.max_tokens, *self._spent())

    def all(self) -> Path:
        """Runs every stage that is not done; returns the report's path."""
        today = datetime.now(UTC).date().isoformat()
        claim = self._open(today)
        gate = self.terms(today)
        data = self.data()
        collected = self.collect(data, gate)
        curated = self.curate(collected)
        student = learning.student(self.run, self.config)
        trained = learning.train(self.run, self.config, curated, student)
        shipped = learning.ship(self.run, self.config, gate, trained, student)
        proved = evidence.prove(self, gate, claim, data, curated, shipped, student)
        return evidence.report(self, gate, claim, proved)

    def terms(self, today: str) -> Gate:
        gate = check_terms(self.config, today)
        out = self.folder / "terms" / "verdicts.json"

        def work(scratch: Path) -> Facts:
            require_terms(gate, out)
            return {"status": str(gate.together.status), "warnings": list(gate.together.warnings)}

        inputs = {"registry": gate.standing}
        config = {"purpose": self.config.run.purpose, "date": today, "teacher": gate.teacher.subject}
        done = self.run.stage("terms", 1, config, inputs, ("terms/verdicts.json",), work)
        for warning in done.facts["warnings"]:
            self.run.progress.say(f"terms: warning: {warning}")
        self.run.progress.say(f"terms: {gate.together.status} for {self.config.run.purpose}")
        return gate

    def data(self) -> Done:
        table = self.config.data
        if table.resource:
            pinned = resource(table.resource)
            path, origin = fetch(pinned), Origin(pinned.name, f"sha256:{pinned.sha256}", pinned.licence)
        else:
            path = Path(table.path or "")
            rows = read_rows(path, table)  # names a missing file or its bad rows before anything is recorded
            origin = Origin(path.name, digest_file(path), table.licence or "")
            del rows

        def work(scratch: Path) -> Facts:
            rows = read_rows(path, table)
            if rows.bad:
                self.run.progress.say(f"data: {len(rows.bad)} bad rows skipped, the first at line {rows.bad[0].line}")
            seed = self.config.run.seed
            return make_prompts(rows, table, self.config.task.labels, origin, seed, self.folder / "data")

        config = {**table.model_dump(mode="json", exclude={"path"}), "labels": list(self.config.task.labels)}
        config["seed"] = self.config.run.seed
        outputs = ("data/prompts.jsonl", "data/gold.json")
        return self.run.stage("data", 1, config, {"file": origin.digest}, outputs, work)

    def collect(self, data: Done, gate: Gate) -> Done:
        prompts = read_prompts(self.folder / "data" / "prompts.jsonl")
        teacher, task = self.config.teacher, self.config.task

        def work(scratch: Path) -> Facts:
            meter = Meter(self.folder / "work" / "meters" / "collect.json")
            with serve_teacher(self.config, self.folder) as served:
                asking = self.asking(served, gate, Role.TEXT_TARGET if teacher.signal == "text" else Role.SOFT_TARGET)
                began = served.cpu_s() if served.cpu_s else 0.0
                try:
                    facts = collect(
                        asking, task, prompts, label_params(teacher), COLLECT_PURPOSE, teacher.concurrency,
                        self.folder / "collect",
                    )  # fmt: skip
                finally:
                    meter.add(served.cpu_s() - began if served.cpu_s else 0.0, asking.answered)
            rows = list(read_lines(self.folder / "collect" / "exchanges.jsonl"))
            cpu_ms, asked = meter.read()
            facts |= {"commitment": commit_exchanges(self.run, [row["address"] for row in rows])}
            return facts | {"cpu_ms": cpu_ms, "cpu_questions": asked, **self._bought(rows)}

        inputs = {"data": data.outputs_digest, "terms": gate.standing}
        config = {"task": task.model_dump(mode="json"), "teacher": _asked_of(self.config)}
        return self.run.stage("collect", 1, config, inputs, ("collect/exchanges.jsonl",), work)

    def curate(self, collected: Done) -> Done:
        def work(scratch: Path) -> Facts:
            prompts = read_prompts(self.folder / "data" / "prompts.jsonl")
            out = self.folder / "curate"
            facts = curate(
                self.config.task, self.config.teacher.signal, prompts, self.folder / "collect" / "exchanges.jsonl",
                self.run.store, self.config.run.seed, out,
            )  # fmt: skip
            rows = learning.read_selection(self.folder)["train"]
            # Committed before training starts: what is stepped on can be compared with it.
            return facts | {"commitment": commit_exchanges(self.run, [row["address"] for row in rows])}

        config = {"task": self.config.task.model_dump(mode="json"), "seed": self.config.run.seed}
        outputs = ("curate/selection.json", "curate/drops.jsonl", "curate/decision.json")
        return self.run.stage("curate", 1, config, {"collect": collected.outputs_digest}, outputs, work)

    def asking(self, served: Served, gate: Gate, role: Role) -> Asking:
        """An `ask` on this endpoint, under this run's budget and terms."""
        teacher = self.config.teacher
        today = datetime.now(UTC).date().isoformat()
        ours = served.endpoint.provider == "tutelage"
        return Asking(
            model=OpenAIModel(served.endpoint, connections=64),
            store=self.run.store,
            terms=Terms(gate.teacher.digest, role),
            budget=self.budget,
            prices=price_list(served.endpoint, None if ours else teacher.price, today),
            progress=self.run.progress,
            stop=self.run.stop,
            attempts=teacher.attempts,
            pace=Pace(None if ours else teacher.requests_per_minute),
            seed=self.config.run.seed,
        )

    def _open(self, today: str) -> Claim:
        """Resolved configuration and claim into the log, before anything is asked; a resumed run keeps its claim."""
        claim = declare(self.config, today)
        core = {**claim.to_json(), "declared_on": ""}
        for entry in self.run.log.statements():
            if entry.kind == "opened" and {**entry.facts["claim"], "declared_on": ""} == core:
                claim = Claim.from_json(entry.facts["claim"])
        resolved = self.config.resolved()
        resolved["data"]["path"] = Path(resolved["data"]["path"]).name if resolved["data"]["path"] else None
        self.run.opened(
            {
                "config": digest_of(decimals(resolved)),
                "claim": claim.to_json(),
                "claim_digest": claim.digest,
                "power_ppm": round(1e6 * power(self.config)),
            }
        )
        write_whole(self.folder / "config.json", evidence.pretty(resolved))
        return claim

    def _spent(self) -> tuple[int, int]:
        """What earlier tries of this run already spent: the limit holds for the run, not for one start of it."""
        money = tokens = 0
        for _, line in self.run.store.lines():
            if line.kind == "exchange" and line.value["model"]["provider"] != "tutelage":
                money += line.value["price"]["cost_nusd"]
                tokens += line.value["usage"]["prompt_tokens"] + line.value["usage"]["completion_tokens"]
        return money, tokens

    def _bought(self, rows: list[dict[str, Any]]) -> Facts:
        exchanges = [self.run.store.get(row["address"]) for row in rows]
        return {
            "cost_nusd": sum(exchange.price.cost_nusd for exchange in exchanges),
            "prompt_tokens": sum(exchange.usage.prompt_tokens for exchange in exchanges),
            "completion_tokens": sum(exchange.usage.completion_tokens for exchange in exchanges),
        }


def _asked_of(config: RunConfig) -> dict[str, Any]:
    """What of the teacher's table changes its answers (not speed, price or key)."""
    return config.teacher.model_dump(mode="json", include={"resource", "url", "model", "signal", "top_logprobs"})


def clean_work(folder: Path) -> None:
    """Scratch of finished stages; meters stay."""
    for path in (folder / "work").glob("*-*"):
        shutil.rmtree(path, ignore_errors=True)
