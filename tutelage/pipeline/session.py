"""What every stage of one run shares: its configuration, its folder, its budget, and how it asks."""

from datetime import UTC, datetime
from pathlib import Path

from tutelage.canon import digest_bytes
from tutelage.config import RunConfig
from tutelage.jsonl import pretty, write_whole
from tutelage.models.ask import Asking, Terms
from tutelage.models.limits import Budget, Pace
from tutelage.models.openai import OpenAIModel
from tutelage.models.prices import price_list
from tutelage.pipeline.gate import Gate
from tutelage.pipeline.run import Run
from tutelage.pipeline.serving import Served
from tutelage.prove.claims import declare, power
from tutelage.records import NUSD_PER_USD, Claim, Role


def today() -> str:
    """The day in UTC, as YYYY-MM-DD."""
    return datetime.now(UTC).date().isoformat()


class Session:
    """One configuration at work in one run folder."""

    def __init__(self, config: RunConfig, run: Run) -> None:
        self.config = config
        self.run = run
        self.folder = run.folder
        money = round(config.budget.max_cost_usd * NUSD_PER_USD)
        self.budget = Budget(money, config.budget.max_tokens, *self._spent())

    def open(self) -> Claim:
        """Resolved configuration and claim into the log, before anything is asked; a resumed run keeps its claim."""
        claim = declare(self.config, today())
        core = {**claim.to_json(), "declared_on": ""}
        for entry in self.run.log.statements():
            if entry.kind == "opened" and {**entry.facts["claim"], "declared_on": ""} == core:
                claim = Claim.from_json(entry.facts["claim"])
        resolved = self.config.resolved()
        for table in ("data", "student"):  # a record does not tell where things lie on somebody's disk
            path = resolved[table]["path"]
            resolved[table]["path"] = Path(path).name if path else None
        if self.config.teacher.lineage:
            resolved["teacher"]["lineage"] = Path(self.config.teacher.lineage).name
        resolved["ship"]["licence_files"] = [Path(path).name for path in resolved["ship"]["licence_files"]]
        file = pretty(resolved)
        self.run.opened(
            {
                "origin": self.run.log.origin,
                "name": self.config.run.name,
                "seed": self.config.run.seed,
                "config": digest_bytes(file),
                "claim": claim.to_json(),
                "claim_digest": claim.digest,
                "power_ppm": round(1e6 * power(self.config)),
            }
        )
        write_whole(self.folder / "config.json", file)
        return claim

    def asking(self, served: Served, gate: Gate, role: Role) -> Asking:
        """An `ask` on this endpoint, under this run's budget and terms."""
        teacher = self.config.teacher
        ours = served.endpoint.provider == "tutelage"  # the student: its answers cost no money and no budget
        return Asking(
            model=OpenAIModel(served.endpoint, connections=64),
            store=self.run.store,
            terms=Terms("" if ours else gate.standing, role),
            budget=Budget(0, 2**62) if ours else self.budget,
            prices=price_list(served.endpoint, None if ours else teacher.price, today()),
            progress=self.run.progress,
            stop=self.run.stop,
            attempts=teacher.attempts,
            pace=Pace(None if ours else teacher.requests_per_minute),
            seed=self.config.run.seed,
        )

    def _spent(self) -> tuple[int, int]:
        """What earlier tries of this run already spent: the limit holds for the run, not for one start of it."""
        money = tokens = 0
        for _, line in self.run.store.lines():
            if line.kind == "exchange" and line.value["model"]["provider"] != "tutelage":
                money += line.value["price"]["cost_nusd"]
                tokens += line.value["usage"]["prompt_tokens"] + line.value["usage"]["completion_tokens"]
        return money, tokens
