"""`tutelage label`: people decide about items, one key each; a random sample of them serves as gold."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

from cyclopts import Parameter

if TYPE_CHECKING:
    from tutelage.config import PromptsTable
    from tutelage.prove.gold_file import Header, Mode
    from tutelage.serve.labelling import Desk
    from tutelage.serve.labelling_items import Matter

_ASKED = {
    "labels": "Which label fits?",
    "pairs": "Which answer is better?",
    "score": "How good is the answer, from {} (worst) to {} (best)?",
}


def label(
    items: Path,
    *,
    out: Path,
    who: str,
    labels: str | None = None,
    pairs: Annotated[bool, Parameter(negative="")] = False,
    score: str | None = None,
    ask: str | None = None,
    sample: int = 200,
    seed: int = 0,
    text: str | None = None,
    system: str = "",
    contested: Annotated[bool, Parameter(negative="")] = False,
    port: int = 0,
) -> int:
    """Label a random sample of items by hand, in a browser on this machine alone; run the same command again to go on.

    Say one of --labels, --pairs and --score; a run file of a label task brings its labels. Whose answers are shown is not
    told. Every decision is written at once, nothing is overwritten; several people may label into one file, one after the
    other.

    Parameters
    ----------
    items
        A file of items (.jsonl, .csv, .tsv), the run file of a proof or of a label task (.toml), or the run folder of a proof.
    out
        The file that the decisions are added to.
    who
        Who decides: a person's name.
    labels
        The labels, 2 to 20, with commas between them (default: those of the run file).
    pairs
        Which of two answers is better: of a proof's teacher and student.
    score
        How good each answer of teacher and student is: whole numbers from 0 to 9, for instance 1-5.
    ask
        The question above every item (default: that of the run file of a label task).
    sample
        So many items are drawn at random from all.
    seed
        Which ones, and in which order.
    text
        Column with the text, in a file of items (default: the usual names).
    system
        The proof's system message for items of a file that bring none.
    contested
        Show only items on which people so far disagree, to one more person.
    port
        Port on 127.0.0.1 (default: any free one).
    """
    from tutelage.errors import ConfigError
    from tutelage.prove.gold_file import Journal, checked_name, contested_units
    from tutelage.report.words import visible
    from tutelage.serve.labelling import Desk, serve
    from tutelage.serve.labelling_items import deal

    if not 0 <= port <= 65535:
        raise ConfigError(f"--port {port} is no port", fix="give a number from 0 to 65535; 0 takes any free one")
    from_file = _told_by(items) if items.suffix == ".toml" else _Told(None, (), None)
    mode, choices = _wanted(labels, pairs, score, from_file.labels)
    name = checked_name(who)
    matter = _matter(items, from_file.table, mode, text, system)
    header = _header(mode, choices, matter, from_file.ask if ask is None else ask, sample, seed)
    with Journal(out, header) as journal:
        dealt = deal(matter, header)
        if contested:
            disputed = contested_units(row for row in journal.rows if row.who != name)
            dealt = [shown for shown in dealt if shown.unit in disputed]
            if not dealt:
                raise ConfigError(f"in {out} others do not disagree on anything", fix="leave --contested out")
        desk = Desk(journal, dealt, name, adjudicates=contested)
        _tell(desk, matter, sample)
        try:
            serve(desk, port, visible, lambda address: print(f"open {address}\nCtrl-C ends it", flush=True))
        except KeyboardInterrupt:
            print()  # the terminal has written ^C
        return _ended(desk)


class _Told(NamedTuple):
    """What a run file tells: where its items are, its labels (none: another task), and the question put to a reader."""

    table: "PromptsTable | None"
    labels: tuple[str, ...]
    ask: str | None


def _told_by(run_file: Path) -> _Told:
    """Raises `ConfigError` for a run file of another command, or whose items are no file that can be shown."""
    from tutelage.config import PromptsTable
    from tutelage.errors import ConfigError
    from tutelage.run_file import load_config, load_proof_config, verb_of

    if verb_of(run_file) != "run":
        proof = load_proof_config(run_file)
        labels = proof.task.options.get("labels", ()) if proof.task.kind == "labels" else ()
        known = {"path", "format", "text", "system", "licence", "limit", "bad_rows"}
        return _Told(PromptsTable(**proof.items.model_dump(include=known)), tuple(map(str, labels)), None)
    config = load_config(run_file)
    data = config.data
    if data.path is None or data.columns is not None:
        raise ConfigError(
            f"the data of {run_file} is {'a resource' if data.path is None else 'a file without a header line'}",
            fix="give the file of items itself, with --labels",
        )
    table = PromptsTable(path=data.path, format=data.format, text=data.text, licence=data.licence or "own")
    ask = config.run.question if "question" in config.run.model_fields_set else None
    return _Told(table, config.task.labels, ask)


def _wanted(
    labels: str | None, pairs: bool, score: str | None, told: tuple[str, ...]
) -> "tuple[Mode, tuple[str, ...]]":
    """The mode and its choices, out of three options of which one must be given, unless the run file told its labels."""
    import re

    from tutelage.errors import ConfigError
    from tutelage.prove.gold_file import TIE, Mode
    from tutelage.prove.shown import SYSTEMS
    from tutelage.serve.labelling_page import MOST_CHOICES

    if told and labels is None and not pairs and score is None:
        return Mode.LABELS, told
    if (labels is not None) + pairs + (score is not None) != 1:
        raise ConfigError(
            "what is to be decided is not said",
            fix="give one of --labels a,b,c, --pairs and --score 1-5, or the run file of a label task",
        )
    if pairs:
        return Mode.PAIRS, (*SYSTEMS, TIE)
    if score is not None:
        found = re.fullmatch(r"([0-9])-([0-9])", score)
        if not found or found[1] >= found[2]:
            raise ConfigError(f"--score {score!r:.40} is no range", fix="give two numbers from 0 to 9, such as 1-5")
        return Mode.SCORE, tuple(map(str, range(int(found[1]), int(found[2]) + 1)))
    words = tuple(word.strip() for word in (labels or "").split(","))
    if not 2 <= len(words) <= MOST_CHOICES or len(set(words)) < len(words) or not all(map(str.isprintable, words)):
        raise ConfigError(f"--labels {labels!r:.80}", fix=f"give 2 to {MOST_CHOICES} printable labels, each once")
    if not all(words):
        raise ConfigError(f"--labels {labels!r:.80} has an empty label", fix="put one comma between two labels")
    return Mode.LABELS, words


def _matter(items: Path, table: "PromptsTable | None", mode: "Mode", text: str | None, system: str) -> "Matter":
    from tutelage.config import PromptsTable
    from tutelage.errors import ConfigError
    from tutelage.prove.gold_file import Mode
    from tutelage.serve.labelling_items import of_file, of_run

    if items.is_dir():
        if text is not None or system:
            raise ConfigError("--text and --system belong to a file of items", fix="leave them out")
        return of_run(items, mode)
    if mode is not Mode.LABELS:
        raise ConfigError(f"{items} holds no answers", fix="give the run folder of a finished tutelage prove")
    if table is not None:
        return of_file(Path(table.path), table)
    return of_file(items, PromptsTable(path=str(items), text=text, system=system, licence="own"))


def _header(
    mode: "Mode", choices: tuple[str, ...], matter: "Matter", ask: str | None, sample: int, seed: int
) -> "Header":
    from tutelage.errors import ConfigError
    from tutelage.models.exchange import now_utc
    from tutelage.prove.gold_file import DRAWN, FORMAT, PERSON, Header, Mode, frame_of
    from tutelage.prove.shown import SYSTEMS

    asked = _ASKED[mode].format(choices[0], choices[-1]) if ask is None else " ".join(ask.split())
    if not asked or not asked.isprintable():
        raise ConfigError(f"--ask {ask!r:.60} is no question", fix="give printable words, or leave it out")
    if sample < 1:
        raise ConfigError(f"--sample {sample}", fix="draw 1 item or more")
    if abs(seed) >= 2**53:
        raise ConfigError(f"--seed {seed}", fix="give a number below 2^53")
    return Header(
        format=FORMAT, author_kind=PERSON, mode=mode, asked=asked, choices=choices,
        systems=() if mode is Mode.LABELS else SYSTEMS, items=len(matter.questions),
        sampled=min(sample, len(matter.questions)), seed=seed, drawn=DRAWN, frame=frame_of(matter.questions),
        made_at=now_utc(),
    )  # fmt: skip


def _tell(desk: "Desk", matter: "Matter", sample: int) -> None:
    """What was drawn, and what a resumed file brought."""
    header, done = desk.header, desk.progress()
    print(f"{header.sampled} of {header.items} items, drawn at random by seed {header.seed}")
    if sample > header.items:
        print(f"--sample {sample} is more than there are: all of them are shown")
    if matter.left_out:
        print(f"{matter.left_out} items were not answered by both systems: they are not among these")
    if desk.journal.cut:
        print(f"an unfinished last line ({desk.journal.cut} bytes) was taken off: that decision is asked again")
    if done.decided or done.skipped:
        print(f"going on: {desk.who} has decided {done.decided} and skipped {done.skipped}")


def _ended(desk: "Desk") -> int:
    """How far this person is, and how far people agree; nothing of what was decided, which others have yet to
    decide."""
    from tutelage.prove.gold import read_gold
    from tutelage.prove.gold_file import Kind, standing

    done, path = desk.progress(), desk.journal.path
    print(f"{path}: {desk.who} decided {done.decided}, skipped {done.skipped}, {done.left} left")
    if any(row.kind is Kind.DECISION for people in standing(desk.journal.rows).values() for row in people.values()):
        for agreed in read_gold(path).agreements():
            found = agreed.kappa
            kappa = f"kappa {found.method}" if found.kappa is None else f"kappa {found.kappa:.2f}"
            if found.low is not None and found.high is not None:
                kappa += f" ({found.level:.0%} interval {found.low:.2f} to {found.high:.2f})"
            print(f"{agreed.first} and {agreed.second}: the same on {found.share:.1%} of {found.n}, {kappa}")
    if done.left:
        print("run the same command again to go on")
        return 3
    return 0
