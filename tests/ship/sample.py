"""One small account; `text` is put over every word in it that comes from a person, a model or a provider."""

from collections.abc import Callable

from tutelage.ledger.sources import UNKNOWN_UPSTREAM, SourceRow
from tutelage.records import Role
from tutelage.ship.account import Account, LogHead, Metric, Part
from tutelage.terms.model import AcceptedRisk, Condition, Fact, Purpose, Reason, Status, Verdict, When

HOSTILE = (
    '"]\n---\n<script>alert(1)</script>',
    "a | b\n| c | d |\n|---|---|",
    "# x\n\n- y\n> z\n```\ncode",
    "[x](javascript:alert(1)) ![y](https://evil.example/z) <https://evil.example>",
    "`` ` $$x$$ **b** _e_ ~~s~~ \\",
    "</code><img src=x onerror=alert(1)> &lt;",
    "\u202egnp.exe\u2066 \u200b\x1b[31m\x00\u2028\u0085x",
    "key: value\n...\n--- !!python/object:os.system {}",
    "https://evil.example/?q=1 www.evil.example a@evil.example",
    "no",
    "1. x",
    "=====",
    " ",
)


def digest(letter: str) -> str:
    return "sha256:" + letter * 64


def row(text: Callable[[str], str], role: Role, loss: int, examples: int, **more: str) -> SourceRow:
    given = {"teacher": "smol-teacher", "weights": digest("a"), "provider": "example", "route": "loopback"} | more
    words = {name: value if name in ("weights", "route") else text(value) for name, value in given.items()}
    return SourceRow(
        **{"licence": text("Apache-2.0")} | words,
        role=role,
        upstream=UNKNOWN_UPSTREAM,
        examples=examples,
        loss_tokens=loss,
        leaves=digest("1"),
        sums=digest("2"),
    )


def verdict(text: Callable[[str], str], subject: str, licence: str, status: Status, route: str = "loopback") -> Verdict:
    reason = Reason(
        subject=text(subject),
        asked=text(licence),
        entry=text(licence.lower()),
        entry_name=text("A licence"),
        entry_digest=digest("3"),
        status=status,
        number=text("§4"),
        gist=text("Hand the licence on."),
        source=text("https://licences.example/text"),
        effective="2004-01",
        checked_on="2026-11-23",
        text_digest="",
        accepted_by=text("A. Person") if not status.permits else "",
    )
    condition = Condition(Fact.NOTICE_FILE, "", When.ALWAYS, text("Include the licence text."), text("apache-2.0"))
    risk = AcceptedRisk(text("A. Person"), text("counsel said so"), text("this run"))
    return Verdict(
        subject=text(subject),
        licence=text(licence),
        route=route,
        purpose=Purpose.DISTRIBUTED,
        date="2026-11-24",
        status=status,
        reasons=(reason,),
        conditions=(condition,) if status is Status.CONDITIONAL else (),
        warnings=(text("read it again next year"),),
        accepted_risks=() if status.permits else (risk,),
        permitted_purposes=(Purpose.RESEARCH,),
    )


def account(text: Callable[[str], str] = str, proved: bool = True) -> Account:
    """Two teachers, one of them behind an API without a public licence; a base and texts with an address of their own."""
    sources = (
        row(text, Role.PROMPT_AUTHOR, 0, 90, teacher="reviews.csv", weights=digest("d"), provider="", route="file"),
        row(text, Role.SOFT_TARGET, 700, 70),
        row(text, Role.TEXT_TARGET, 70, 70),
        row(
            text, Role.TEXT_TARGET, 230, 20,
            teacher="closed-1", weights="", provider="closed", route="api.example", licence="",
        ),
        row(text, Role.BASE_LINEAGE, 0, 0, teacher="smol-base", weights=digest("b"), provider="", route="file"),
    )  # fmt: skip
    metrics = (
        Metric("accuracy", "student", "0.82", "0.808", "0.831", "0.95", 4500),
        Metric("accuracy", "teacher", "0.852", "0.841", "0.862", "0.95", 4500),
    )
    return Account(
        name=text("film-student"),
        version="0.1.0",
        created_at="2026-11-24T12:00:00Z",
        purpose="distributed",
        task=text("says whether a sentence speaks well or ill of a film"),
        question=text("Review: {text}\nVerdict?"),
        labels=(text("good"), text("bad")),
        method=text("forward KL on the teacher's top log-probabilities, tail mass kept"),
        architecture=text("LlamaForCausalLM"),
        parameters=49_000_000,
        layers=6,
        base_layers=30,
        weights=digest("e"),
        files={"model.safetensors": digest("e"), "config.json": digest("c")},
        base=Part(text("smol-base"), digest("b"), text("Apache-2.0"), text("https://huggingface.co/example/smol-base")),
        data=Part(
            text("reviews.csv"), digest("d"), text("CC-BY-4.0"), text("https://huggingface.co/datasets/example/reviews")
        ),
        sources=sources,
        examples={f"ledger/examples/{number}.jsonl": digest(str(number + 4)) for number in range(4)},
        terms=(
            verdict(text, "smol-teacher", "Apache-2.0", Status.CONDITIONAL),
            verdict(text, "closed-1", "", Status.FORBIDDEN_FOR_COMPETING, "api.example"),
            verdict(text, "reviews.csv", "CC-BY-4.0", Status.UNKNOWN, "local"),
        ),
        hyperparameters={"learning_rate": "0.0007", "batch": "16"},
        metrics=metrics if proved else (),
        verdict=text("INCONCLUSIVE: student 0.82 vs teacher 0.852") if proved else "",
        log=LogHead("tutelage/run", 12, digest("f")),
        code=digest("9"),
        environment=digest("8"),
        upstream="unknown: nobody says",
    )
