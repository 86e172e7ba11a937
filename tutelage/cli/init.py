"""`tutelage init`: a commented run file for one's own labelled data."""

from pathlib import Path
from typing import Literal


def init(
    *, data: Path, teacher: str = "embedded", text: str | None = None, gold: str | None = None, model: str = "default",
    api_key_env: str | None = None, out: Path = Path("run.toml"), bad_rows: Literal["stop", "skip"] = "stop",
    force: bool = False,
) -> int:  # fmt: skip
    """Write a run file for a CSV or JSON Lines file with 2 to 20 labels, ready for `tutelage plan` and `tutelage run`.

    Parameters
    ----------
    data
        A .csv, .tsv or .jsonl file with a text column and a column of human labels (which may be empty in rows to learn
        from; some hundred labelled rows are held out for the proof).
    teacher
        "embedded" for the small model that is served here, or the URL of an OpenAI-compatible endpoint (up to /v1).
    text
        Name of the text column (default: guessed).
    gold
        Name of the label column (default: guessed).
    model
        Model name to ask for at the endpoint.
    api_key_env
        Name of the environment variable with the endpoint's key.
    out
        The run file to write.
    bad_rows
        What to do with rows that cannot be used: stop and name them, or go on without them (they are counted).
    force
        Overwrite an existing run file.
    """
    from tutelage.collect.init import write_run_file

    written = write_run_file(data, teacher, text, gold, model, api_key_env, out, bad_rows, force=force)
    print(f"wrote {out}: {written}")
    print(f"next: edit the instruction, then  tutelage plan {out}  and  tutelage run {out}")
    return 0
