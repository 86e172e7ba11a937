"""Makes `tests/frozen/VERSION`: a whole small run as this release writes it, signed and witnessed, with every disclosure.

`python -m tests.frozen.make` refuses to replace what is there: what a release wrote must verify for ever.
"""

import json
import os
import shutil
import sys
import tempfile
from datetime import datetime
from pathlib import Path

import tutelage
from tests.loopback import Teacher, serving
from tests.models.tiny import save_tiny
from tests.pipeline.conftest import do, make_config
from tutelage.jsonl import pretty
from tutelage.ledger import disclose
from tutelage.ledger.keys import FOLDER_VARIABLE, new_key, rotate_key
from tutelage.ledger.verify import verify
from tutelage.ledger.witness import cosign

NOT_FROZEN = ("index.sqlite*", "logs", "work", ".lock", "report.html", "metrics.jsonl.new")


def make(out: Path) -> None:
    """Runs, signs with a rotated key, witnesses, discloses, and writes what a checker needs to trust."""
    with tempfile.TemporaryDirectory() as scratch, serving(Teacher()) as teacher:
        os.environ[FOLDER_VARIABLE] = f"{scratch}/keys"
        first = new_key("example.org/ada").verification_key
        signer, witness = rotate_key("example.org/ada"), new_key("example.org/witness")
        small = {
            "data.train": 24,
            "data.held_out": 16,
            "data.validation": 6,
            "train.epochs": 2,
            "train.segment_steps": 3,
        }
        run_file = make_config(Path(scratch), teacher, save_tiny(Path(scratch) / "tiny"))
        do(run_file, Path(scratch) / "run", signer, **small)
        committed = json.loads((Path(scratch) / "run" / "provenance" / "before-training.json").read_bytes())["ended_at"]
        cosign(
            Path(scratch) / "run", witness, round(datetime.fromisoformat(committed).timestamp())
        )  # as if it had watched
        shutil.copytree(Path(scratch) / "run", out / "run", ignore=shutil.ignore_patterns(*NOT_FROZEN))
    sealed = disclose.Sealed(out / "run")
    kept = (out / "run" / "provenance" / "checkpoints" / str(sealed.predicate["before_training"]["size"])).read_text()
    shown = {
        "share": disclose.share(sealed, "word-counter", "MIT"),
        "blinded": disclose.share(sealed, "word-counter", None, [1]),
        "absence": disclose.absence(sealed, "somebody-else"),
        "example": disclose.example(sealed, 3, None, {}),
        "audit": disclose.audit(sealed, "a public beacon", 20),
        "consistency": disclose.consistency(sealed, kept),
    }
    for name, value in shown.items():
        (out / f"{name}.json").write_bytes(pretty(value))
    trust = {"key": first, "witness": witness.witness_key, "root": verify(out / "run").root}
    (out / "trust.json").write_bytes(pretty(trust))


if __name__ == "__main__":
    folder = Path(__file__).parent / tutelage.__version__
    if folder.exists():
        sys.exit(f"{folder} is there already; what a release wrote is never replaced")
    make(folder)
    print(json.dumps(sorted(path.name for path in folder.iterdir())))
