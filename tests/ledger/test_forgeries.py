"""Records that agree with themselves, made by somebody who has all but the key; and by the signer against the own record."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.ledger.conftest import EXAMPLES, Record
from tests.ledger.made import Example, Maker, make, new_signer
from tutelage.canon import canonical, digest_bytes, digest_file
from tutelage.errors import ConfigError
from tutelage.jsonl import pretty
from tutelage.ledger import examples, verify
from tutelage.ledger.examples import Taken, Tokens, table_root
from tutelage.ledger.log import Log
from tutelage.ledger.sources import SourceRow
from tutelage.ledger.statement import envelope
from tutelage.ledger.verify import Trust
from tutelage.pipeline.run import Facts, Run
from tutelage.pipeline.sealing import publish
from tutelage.progress import Quiet, Stop

SMALL = [*EXAMPLES[:4], *EXAMPLES[300:303], *EXAMPLES[-2:]]


def whats(run: Path, trust: Trust | None = None) -> list[str]:
    return [f"{found.where}: {found.what}" for found in verify.verify(run, trust).findings]


@pytest.mark.parametrize("edit", [
    lambda example: example._replace(licence="CC0-1.0"),
    lambda example: example._replace(teacher="an-open-model"),
    lambda example: example._replace(steps=example.steps[:1]),
    lambda example: example._replace(data="other.csv"),
], ids=["licence", "teacher", "steps", "data"])  # fmt: skip
def test_a_whole_other_record_under_the_same_run_key(
    small: Record, tmp_path: Path, edit: Callable[[Example], Example]
) -> None:
    """Every digest is made anew: it holds alone, and fails under the key and under the root of the true one."""
    true_root = verify.verify(small.run).root
    forged = make(tmp_path / "run", [edit(example) for example in SMALL], new_signer(), small.key)
    assert whats(forged) == []
    for folder in (forged, forged / "provenance"):
        assert whats(folder, Trust(key=small.signer.verification_key))
        assert whats(folder, Trust(root=true_root))
        assert verify.verify(folder, Trust(root=true_root)).shares == ()


def rewritten(run: Path, change: Callable[[list[dict[str, Any]]], None], signer: Any = None) -> Path:
    """The log with some entries changed, chained, hashed, published and signed anew."""
    lines = (run / "ledger" / "log.jsonl").read_bytes().splitlines()
    entries = [json.loads(line) for line in lines]
    change(entries)
    previous, made = "sha256:" + 64 * "0", []
    for entry in entries:
        made.append(canonical(entry | {"previous": previous}))
        previous = digest_bytes(made[-1])
    (run / "ledger" / "log.jsonl").write_bytes(b"".join(line + b"\n" for line in made))
    origin = json.loads((run / "provenance" / "statement.json").read_bytes())["predicate"]["log"]["origin"]
    for name in ("tile", "checkpoints"):
        shutil.rmtree(run / "provenance" / name)
    (run / "provenance" / "checkpoint").unlink()
    log = Log(run, origin, signer)
    log.keep_checkpoint(next(at for at, entry in enumerate(entries, 1) if entry["kind"] == "committed"))
    publish(run, log, signer)
    return run


def test_a_log_that_was_backdated(copied: Record) -> None:
    root = verify.verify(copied.run).root

    def backdate(entries: list[dict[str, Any]]) -> None:
        for entry in entries:
            entry["started_at"] = entry["ended_at"] = "2020-01-01T00:00:00Z"

    rewritten(copied.run, backdate, new_signer())
    assert whats(copied.run) == []
    assert whats(copied.run, Trust(root=root))
    assert whats(copied.run, Trust(key=copied.signer.verification_key))


def test_entries_put_behind_a_trusted_log(copied: Record, tmp_path: Path) -> None:
    """The true log is a beginning of the forged one: the root that is trusted says nothing of what came after it."""
    root = verify.verify(copied.run).root
    with Run(copied.run, Quiet(), Stop(), copied.signer) as run:
        forger = Maker(run, [example._replace(teacher="an-open-model") for example in SMALL])
        for name in ("collect", "curate", "train", "student", "prove", "before"):
            shutil.rmtree(copied.run / name)
        (copied.run / "evidence.json").write_bytes(b"gone")
        forger.seal()
    assert whats(copied.run) == []
    assert any("an-open-model" in share for share in verify.verify(copied.run).shares)
    for folder in (copied.run, copied.run / "provenance"):
        told = whats(folder, Trust(root=root))
        assert any("the root you trust is that of its first" in line for line in told), told


def test_a_log_that_went_on_is_still_pinned_by_the_older_root(copied: Record) -> None:
    root = verify.verify(copied.run).root
    with Run(copied.run, Quiet(), Stop(), copied.signer) as run:
        run.stage("later", 1, {}, {}, (), lambda scratch: {})
        publish(run.folder, run.log, copied.signer)
    assert verify.verify(copied.run).root != root
    result = verify.verify(copied.run, Trust(root=root))
    assert result.findings == ()
    assert result.tier[-1].startswith("what is stated is in the log whose root you trust")
    assert result.tier[0].startswith("L0 signed by"), "a root names no signer"


@pytest.mark.parametrize("field", ["licence", "teacher"])
def test_a_table_edited_in_the_public_folder(copied: Record, field: str) -> None:
    """Row, root, statement, signature: all made anew by a stranger, the log left as it is."""
    root = verify.verify(copied.run).root
    public = copied.run / "provenance"
    table = json.loads((public / "sources.json").read_bytes())
    for entry in table["rows"]:
        entry["row"][field] = entry["row"][field].replace("MIT", "MIT-0").replace("oak", "oaks")
    rows = [SourceRow.from_json(entry["row"]) for entry in table["rows"]]
    table["root"] = "sha256:" + table_root(copied.key, rows).hex()
    (public / "sources.json").write_bytes(canonical(table) + b"\n")
    for path in public.iterdir():
        if path.name in ("signer.vkey", "model.sig", "model.pub", "statement.dsse.json"):
            path.unlink()
    note = verify.parse_note((public / "checkpoint").read_text())
    (public / "checkpoint").write_text(note.text)
    statement = json.loads((public / "statement.json").read_bytes())
    statement["predicate"]["sources"]["root"] = table["root"]
    documents = {
        name: digest_file(public / name) for name in statement["predicate"]["documents"] if (public / name).exists()
    }
    statement["predicate"]["documents"] = documents
    (public / "statement.json").write_bytes(canonical(statement) + b"\n")
    for trust in (None, Trust(root=root), Trust(key=copied.signer.verification_key)):
        assert whats(public, trust)
    assert whats(public, Trust(root=root)) == ["provenance/sealed.json: does not name what the statement says"]


class Cheat(Maker):
    """A run whose maker signs it, and says in one place something other than in another."""

    def __init__(self, run: Run, examples: list[Example], cheat: Callable[["Cheat"], None]) -> None:
        super().__init__(run, examples)
        self.cheat = cheat

    def account(self, scratch: Path) -> Facts:
        self.cheat(self)
        return super().account(scratch)


def cheated(folder: Path, cheat: Callable[[Cheat], None]) -> list[str]:
    with Run(folder, Quiet(), Stop(), new_signer()) as run:
        Cheat(run, SMALL, cheat).seal()
    return whats(folder)


def taken_as(monkeypatch: pytest.MonkeyPatch, change: Callable[[list[Taken]], list[Taken]]) -> Callable[[Cheat], None]:
    """What is written of the examples is changed; the steps stay."""
    from tests.ledger import made

    real = examples.write_examples

    def write(key: bytes, taken: Any, lineage: Any, out: Path) -> Any:
        return real(key, change(list(taken)), lineage, out)

    return lambda cheat: monkeypatch.setattr(made, "write_examples", write)


def moved(taken: list[Taken]) -> list[Taken]:
    """One loss token from one example of oak's to the next: every sum stays."""

    def more(one: Taken, by: int) -> Taken:
        tokens = dict(one.tokens)
        tokens["text-target"] = Tokens(tokens["text-target"].loss + by, tokens["text-target"].passes)
        return one._replace(tokens=tokens)

    return [more(taken[0], 1), more(taken[1], -1), *taken[2:]]


@pytest.mark.parametrize(("change", "what"), [
    (moved, "is not what the store says of example 0: ['tokens']"),
    (lambda taken: [taken[0], taken[0], *taken[2:]], "is there twice"),
    (lambda taken: [taken[1], taken[0], *taken[2:]], "stands behind"),
    (lambda taken: taken[:-1], "the steps taken say"),
    (lambda taken: [*taken[:-1], taken[-1]._replace(prompt=taken[-1].prompt | {"source": "bought.csv"})], "bought.csv"),
    (lambda taken: [one._replace(transforms=("decision-offsets/1",)) for one in taken], "['transforms']"),
], ids=["tokens moved", "twice", "reordered", "left out", "prompt of another", "transforms"])  # fmt: skip
def test_records_that_contradict_the_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[list[Taken]], list[Taken]], what: str
) -> None:
    told = cheated(tmp_path / "run", taken_as(monkeypatch, change))
    assert any(what in line for line in told), told


def steps_as(change: Callable[[list[dict[str, Any]]], None]) -> Callable[[Cheat], None]:
    """The steps are changed before they are counted, after training was recorded."""

    def cheat(made: Cheat) -> None:
        path = made.folder / "train" / "consumed.jsonl"
        steps = [json.loads(line) for line in path.read_bytes().splitlines()]
        change(steps)
        path.write_bytes(b"".join(canonical(step) + b"\n" for step in steps))

    return cheat


def test_steps_that_were_changed_after_training(tmp_path: Path) -> None:
    def change(steps: list[dict[str, Any]]) -> None:
        steps[0]["loss_tokens"][0]["text-target"] += 5

    told = cheated(tmp_path / "run", steps_as(change))
    assert any(line.startswith("train/consumed.jsonl") for line in told)


def test_a_checkpoint_over_other_steps(tmp_path: Path) -> None:
    """The training stage itself lies: its checkpoint names steps, weights and sums that are not those beside it."""
    for name, value in (("consumed", digest_bytes(b"x")), ("weights", digest_bytes(b"x")),
                        ("loss_tokens", {"soft-target": 1, "text-target": 1})):  # fmt: skip

        class Liar(Maker):
            def train(self, scratch: Path, name: str = name, value: Any = value) -> Facts:
                facts = super().train(scratch)
                path = self.folder / "train" / "checkpoint.json"
                changed = canonical(json.loads(path.read_bytes()) | {name: value})
                path.write_bytes(changed + b"\n")
                return facts | {"checkpoint": digest_bytes(changed)}

        with Run(tmp_path / name, Quiet(), Stop(), new_signer()) as run:
            Liar(run, SMALL).seal()
        assert any("provenance/statement.json: says of" in line for line in whats(tmp_path / name)), name


def test_stepping_on_what_was_not_selected(tmp_path: Path) -> None:
    class Liar(Maker):
        def curate(self, scratch: Path) -> Facts:
            every = self.rows
            self.rows = every[:-3]
            facts = super().curate(scratch)
            self.rows = every
            return facts

    with Run(tmp_path / "run", Quiet(), Stop(), new_signer()) as run:
        Liar(run, SMALL).seal()
    assert any("is not in the selection" in line for line in whats(tmp_path / "run"))


def test_another_base_than_the_student_was_cut_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.ledger import made

    for number, base in enumerate((("tiny", digest_bytes(b"other"), "Apache-2.0"), ("tiny", made.BASE, "CC0-1.0"),
                                   ("huge", made.BASE, "Apache-2.0"))):  # fmt: skip
        lineage = examples.Lineage(*base)
        monkeypatch.setattr(made, "Lineage", lambda *given, lineage=lineage: lineage)
        run = make(tmp_path / str(number), SMALL, new_signer())
        assert any("names other bases" in line for line in whats(run)), base


def test_a_selection_committed_after_training_began(tmp_path: Path) -> None:
    class Late(Run):
        """Commits only when it is asked to a second time."""

        asked = 0

        def commit(self, facts: Facts) -> None:
            pass

    class Liar(Maker):
        def account(self, scratch: Path) -> Facts:
            curated = next(e for e in self.run.log.statements() if (e.kind, e.stage) == ("statement", "curate"))
            Run.commit(self.run, {"root": curated.facts["commitment"], "examples": curated.facts["kept"]})
            return super().account(scratch)

    with Late(tmp_path / "run", Quiet(), Stop(), new_signer()) as run:
        Liar(run, SMALL).seal()
    assert any("committed after training began" in line for line in whats(tmp_path / "run"))


@pytest.mark.parametrize("field", ["licence", "accepted_risks", "conditions", "purpose"])
def test_other_verdicts_than_those_under_which_it_ran(tmp_path: Path, field: str) -> None:
    """The terms that are published and stated are those of the run: a risk that was accepted is not left out."""

    class Liar(Maker):
        def report(self, scratch: Path) -> Facts:
            other: Any = [{"who": "nobody"}] if field in ("accepted_risks", "conditions") else "other"
            self.terms = {**self.terms, "teacher": {**self.terms["teacher"], field: other}}
            return super().report(scratch)

    with Run(tmp_path / "run", Quiet(), Stop(), new_signer()) as run:
        Liar(run, SMALL).seal()
    assert any("has other verdicts than those under which it ran" in line for line in whats(tmp_path / "run"))


@pytest.mark.parametrize("name", verify.STATED)
def test_a_statement_that_says_something_else_than_the_record(copied: Record, name: str) -> None:
    """Edited and signed by the signer: the log named before what would be stated, and the record says it too."""
    path = copied.run / "provenance" / "statement.json"
    value = json.loads(path.read_bytes())
    value["predicate"][name] = "something else"
    path.write_bytes(canonical(value) + b"\n")
    sealed = envelope(canonical(value), copied.signer)
    (copied.run / "provenance" / "statement.dsse.json").write_bytes(pretty(sealed))
    for folder in (copied.run, copied.run / "provenance"):
        told = whats(folder, Trust(key=copied.signer.verification_key))
        assert "provenance/sealed.json: does not name what the statement says" in told
    told = whats(copied.run)
    assert any(f"says of {name} " in line or "another selection" in line or "cannot be read" in line for line in told)


def test_evidence_of_another_student_than_the_one_shipped(copied: Record) -> None:
    """Killed between shipping a new student and proving it: what is proven is not what would be served."""
    with Run(copied.run, Quiet(), Stop(), copied.signer) as run:
        (copied.run / "student" / "model.safetensors").write_bytes(b"other weights")
        inputs = next(e.inputs for e in run.log.statements() if (e.kind, e.stage) == ("statement", "ship"))
        run.stage("ship", 2, {}, inputs, ("student",), lambda scratch: {"weights": digest_bytes(b"other weights")})
    told = whats(copied.run)
    assert any("rests on another student than the one made last" in line for line in told)
    assert any("says of weights" in line for line in told)


def test_a_statement_about_two_files_of_one_name(copied: Record) -> None:
    path = copied.run / "provenance" / "statement.json"
    value = json.loads(path.read_bytes())
    value["subject"].append(value["subject"][0] | {"digest": {"sha256": 64 * "0"}})
    path.write_bytes(canonical(value) + b"\n")
    assert any("two files of one name" in line for line in whats(copied.run))


@pytest.mark.parametrize("name", [
    "../../../etc/hostname", "/etc/hostname", "train/../../outside", "..", "train\\..\\x", "", "train", "nul\x00byte",
])  # fmt: skip
def test_paths_that_lead_out_of_the_run(copied: Record, name: str) -> None:
    def add(entries: list[dict[str, Any]]) -> None:
        entry = next(e for e in entries if (e["kind"], e["stage"]) == ("statement", "report"))
        entry["outputs"][name] = digest_bytes(b"")

    (copied.run.parent / "outside").write_bytes(b"")
    rewritten(copied.run, add, copied.signer)
    told = whats(copied.run)
    assert told
    assert name != "../../../etc/hostname" or any("is not a path inside the run" in line for line in told)


@pytest.mark.parametrize("name", ["../run/config.json", "/etc/hostname", "tile/0", ".", "-", ""])
def test_documents_outside_their_folder(copied: Record, name: str) -> None:
    path = copied.run / "provenance" / "statement.json"
    value = json.loads(path.read_bytes())
    value["predicate"]["documents"][name] = digest_file(copied.run / "config.json")
    path.write_bytes(canonical(value) + b"\n")
    assert any("outside its folder" in line for line in whats(copied.run / "provenance"))


def test_another_signature_over_the_same_statement(copied: Record) -> None:
    """Wrong keys and relabelled ones, in the envelope and on the checkpoint."""
    public, thief = copied.run / "provenance", new_signer()
    note = verify.parse_note((public / "checkpoint").read_text())
    (public / "checkpoint").write_text(thief.note(note.text))
    told = whats(copied.run, Trust(key=copied.signer.verification_key))
    assert any("is not signed by example.org/ada" in line for line in told)
    assert whats(copied.run, Trust(key=thief.verification_key))
    assert whats(copied.run, Trust(key=copied.signer.witness_key)), "a cosigning key signs no checkpoint"


def test_signatures_taken_away_leave_no_tier(copied: Record) -> None:
    public = copied.run / "provenance"
    note = verify.parse_note((public / "checkpoint").read_text())
    (public / "checkpoint").write_text(note.text)
    assert whats(public), "signer.vkey still says who signed"
    (public / "signer.vkey").unlink()
    assert whats(public), "and so does the envelope"
    (public / "statement.dsse.json").unlink()
    assert whats(public) == []
    assert verify.verify(public).tier[0].startswith("no tier: not signed")
    assert whats(public, Trust(key=copied.signer.verification_key))


def test_signing_in_place_of_the_signer(copied: Record) -> None:
    """`tutelage sign` refuses it. Done nevertheless, it holds as theirs, and claims nothing of before training."""
    other = new_signer("example.org/eve")
    with Run(copied.run, Quiet(), Stop(), other) as run:
        with pytest.raises(ConfigError, match="this record is signed by"):
            publish(run.folder, run.log, other)
        assert whats(copied.run, Trust(key=copied.signer.verification_key)) == []
        run.log.sign()
        publish(run.folder, run.log, other)
    assert whats(copied.run) == []
    tier = verify.verify(copied.run, Trust(key=other.verification_key)).tier
    assert tier[0].startswith("L0 signed claim: signed by example.org/eve+")
    assert tier[1].startswith("L1 not claimed")
    assert whats(copied.run, Trust(key=copied.signer.verification_key))
