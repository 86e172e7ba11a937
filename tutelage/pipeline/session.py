"""What every stage of one run shares: its configuration, its folder, its budget, and how it asks."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from tutelage.canon import digest_bytes
from tutelage.config import BudgetTable, RunConfig, TeacherTable
from tutelage.jsonl import pretty, write_whole
from tutelage.models.ask import Asking
from tutelage.models.base import Endpoint
from tutelage.models.batches.opening import open_batches
from tutelage.models.budget import Budget
from tutelage.models.exchange import NOTHING_BEYOND, Beyond, Terms
from tutelage.models.prices import context_window, price_list
from tutelage.models.probe import Probe, require_signal
from tutelage.models.throttle import RateLimits, Throttle
from tutelage.pipeline.gate import Gate
from tutelage.pipeline.run import Run
from tutelage.pipeline.serving import STUDENT_CONCURRENCY, Served
from tutelage.pipeline.supervision import known_probe, prices_of
from tutelage.records import NUSD_PER_USD, Claim, Role
from tutelage.store.store import Store


def today() -> str:
    """The day in UTC, as YYYY-MM-DD."""
    return datetime.now(UTC).date().isoformat()


class Session:
    """One configuration at work in one run folder."""

    def __init__(self, config: RunConfig, run: Run) -> None:
        self.config = config
        self.run = run
        self.folder = run.folder
        self.budget = budget_of(config.budget, run.store)

    def open(self) -> Claim:
        """Resolved configuration and claim into the log, before anything is asked; a resumed run keeps its claim."""
        from tutelage.prove.claims import declare, power  # numpy: not for those who only ask

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
            },
            "run",
        )
        write_whole(self.folder / "config.json", file)
        return claim

    def asking(self, served: Served, gate: Gate, role: Role) -> Asking:
        """An `ask` on this endpoint, under this run's budget and terms."""
        ours = served.endpoint.provider == "tutelage"  # the student: its answers cost no money and no budget
        terms = Terms("" if ours else gate.standing, role)
        budget = Budget(0, 2**62) if ours else self.budget
        return asking(self.run, served, self.config.teacher, terms, budget, self.config.run.seed)


def budget_of(table: BudgetTable, store: Store) -> Budget:
    """The limit holds for the run, not for one start of it: what earlier starts spent is spent, and so is what they may
    have spent when they were killed."""
    spent = store.spent()
    return Budget(
        round(table.max_cost_usd * NUSD_PER_USD),
        table.max_tokens,
        spent.settled_nusd + spent.unresolved_nusd,
        spent.settled_tokens + spent.unresolved_tokens,
    )


def asking(
    run: Run, served: Served, teacher: TeacherTable, terms: Terms, budget: Budget, seed: int, temperature: str = "0"
) -> Asking:
    """An `ask` on an endpoint, in a run, of questions at that temperature. Our student's has neither price nor pace."""
    endpoint = served.endpoint
    ours = endpoint.provider == "tutelage"
    found = None if ours else known_probe(teacher)
    if found is not None and endpoint.route.startswith("loopback") and found.probed_at[:10] != today():
        found = None  # a port is nobody's name: another server may have it by now
    if found is not None:
        require_signal(found, teacher.signal, teacher.top_logprobs, temperature)  # before any money is spent
        endpoint = _probed(run.store, endpoint, found)
    at_once = STUDENT_CONCURRENCY if ours else teacher.concurrency
    own_machine = endpoint.route.split(":")[0] in ("embedded", "loopback")
    limits = RateLimits(
        None if ours else teacher.requests_per_minute,
        None if ours else teacher.tokens_per_minute,
        at_once,
        at_once if own_machine else None,
    )
    return Asking(
        model=open_batches(endpoint) if teacher.batch and not ours else served.open(endpoint, at_once),
        store=run.store,
        terms=terms,
        budget=budget,
        prices=price_list(endpoint, None, today()) if ours else prices_of(teacher, endpoint),
        progress=run.progress,
        stop=run.stop,
        attempts=teacher.attempts,
        throttle=Throttle(limits),
        seed=seed,
        window_tokens=None if ours else _window_tokens(teacher, endpoint, found),
        beyond=NOTHING_BEYOND if found is None else Beyond(max(0, found.tokens_before), 0),
    )


def _probed(store: Store, endpoint: Endpoint, found: Probe) -> Endpoint:
    """The endpoint with what a probe found out of it, which the store keeps."""
    if found.digest not in {line.digest for line in store.records("probe")}:
        store.put_record("probe", found.to_json())
    return replace(
        endpoint, probe_digest=found.digest, tokenizer_digest=endpoint.tokenizer_digest or found.tokenizer_digest
    )


def _window_tokens(teacher: TeacherTable, endpoint: Endpoint, found: Probe | None) -> int | None:
    """The model's limit: as the run file says, as the endpoint told when it was probed, or as price lists have it."""
    if teacher.context_tokens is not None:
        return teacher.context_tokens
    return found.context_tokens if found is not None and found.context_tokens > 0 else context_window(endpoint)
