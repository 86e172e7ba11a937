"""`tutelage capture`: a recording proxy, so that a team's own calls become questions and answers to learn from."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def capture(
    *,
    upstream: str,
    out: Path = Path("capture"),
    port: int = 8080,
    host: str = "127.0.0.1",
    sample: float = 1.0,
    redact: str = "email,keys,numbers",
    redact_pattern: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    opt_out_header: str = "x-tutelage-opt-out",
    record_encodings: Annotated[bool, Parameter(negative="")] = False,
    purpose: str = "capture",
) -> int:
    """Pass production calls through to a provider unchanged, and record questions and answers, redacted. Stop with Ctrl-C.

    Parameters
    ----------
    upstream
        The provider's address, such as https://api.openai.com: whatever path is asked for here is asked for there.
    out
        The folder to record into; capturing again adds to it.
    port
        Port to listen on; 0 takes any free one.
    host
        Address to listen on; whoever reaches it can use the provider through it, with a key of their own.
    sample
        The share of calls to record, from 0 to 1, drawn by the hash of x-request-id, else at random.
    redact
        What to take out before anything is written: email, keys, numbers, or none. Keys of callers and secrets of this
        environment are always taken out.
    redact_pattern
        A pattern of your own, as NAME=REGEX; may be repeated.
    dry_run
        Pass on, count and show what would be redacted, and write nothing.
    opt_out_header
        Calls with this header are not recorded; it is not passed on.
    record_encodings
        Ask the provider only for encodings that can be recorded here, whatever else the caller takes.
    purpose
        A name for what is recorded, to tell it from other captures.
    """
    from tutelage.redact import Patterns
    from tutelage.serve.capture import Capture, summary
    from tutelage.serve.capture import capture as run

    folder = None if dry_run else out
    recorder = run(
        Capture(
            upstream,
            folder,
            host=host,
            port=port,
            sample=sample,
            patterns=Patterns.of_options(redact, redact_pattern),
            opt_out_header=opt_out_header,
            record_encodings=record_encodings,
            purpose=purpose,
            on_listening=lambda real: print(
                f"passing http://{host}:{real} on to {upstream}, "
                + ("writing nothing (dry run)" if dry_run else f"recording into {out}"),
                flush=True,
            ),
        )
    )
    for line in summary(recorder):
        print(line)
    return 0
