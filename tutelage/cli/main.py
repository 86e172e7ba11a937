"""The command line: lazy dispatch to one file a verb, errors as what and how to mend it, documented exit codes."""

import os
import sys

from cyclopts import App

import tutelage

app = App(
    help_format="plaintext",
    name="tutelage",
    version=tutelage.__version__,
    help="Distil a teacher behind an API into a small student you own, and prove how good it is, what it cost, and what "
    "was taken from whom under which terms.\n\nExit codes: 0 ok, 1 a finding, 2 usage or input, 3 partial, 130 interrupted.",
)
_VERBS = {
    "demo": (
        "tutelage.cli.run:demo",
        "The demo: a real teacher, real sentences rated by people, a student, its proof.",
    ),
    "init": ("tutelage.cli.init:init", "Write a run file for your own CSV or JSON Lines file with 2 to 20 labels."),
    "collect": ("tutelage.cli.collect:collect", "Ask a teacher about open questions, within a budget; resumes."),
    "capture": ("tutelage.cli.capture:capture", "Record production calls as they pass through to their provider."),
    "compare-teachers": (
        "tutelage.cli.compare_teachers:compare_teachers",
        "Which of several teachers to learn from: quality, price, speed, supervision, terms; and what is not decided.",
    ),
    "probe": ("tutelage.cli.probe:probe", "What an endpoint really gives, before money is spent on it."),
    "export": (
        "tutelage.cli.exchanges:export_",
        "Write a run's answers as JSON Lines or Parquet, in Hugging Face columns.",
    ),
    "import": ("tutelage.cli.exchanges:import_", "Store answers that somebody else collected: declared, unverified."),
    "plan": (
        "tutelage.cli.plan:plan",
        "Terms, tokens, cost, time, disk and power of a run; spends nothing unless told to.",
    ),
    "run": ("tutelage.cli.run:run", "Do the job a run file describes; running it again resumes."),
    "train": (
        "tutelage.cli.train:train",
        "Train a student on conversations, from a teacher's weights or on text alone; resumes.",
    ),
    "prove": (
        "tutelage.cli.prove:prove",
        "Is a student about as good as its teacher in an open task? A claim, an interval, a page.",
    ),
    "label": ("tutelage.cli.label:label", "Label a random sample by hand, blind to who answered; it serves as gold."),
    "serve": ("tutelage.cli.serve:serve", "Answer the OpenAI API with a run's student."),
    "view": ("tutelage.cli.view:view", "Look at runs in a browser, on this machine alone, or as files."),
    "verify": ("tutelage.cli.verify:verify", "Does a record, or what was disclosed of it, hold; what came from whom?"),
    "sign": ("tutelage.cli.sign:sign", "Sign a finished run with your key."),
    "cosign": ("tutelage.cli.sign:cosign", "Witness somebody else's record: sign that it was seen, and when."),
    "replay": ("tutelage.cli.replay:replay", "Train a segment of a run again: does it give what the record says?"),
    "doctor": ("tutelage.cli.doctor:doctor", "What this machine has for the work, and what is missing."),
}
for _verb, (_target, _line) in _VERBS.items():
    app.command(_target, name=_verb, help=_line)
terms = App(name="terms", help="What licences and providers allow.")
terms.command("tutelage.cli.terms:check", name="check", help="May this run learn from its teacher, data and base?")
terms.command("tutelage.cli.terms:explain", name="explain", help="What the texts say of any combination, and why.")
terms.command("tutelage.cli.terms:merge", name="merge", help="The lineage of a merge of models.")
terms.command("tutelage.cli.terms:list_terms", name="list", help="Every licence and provider that is known.")
terms.command("tutelage.cli.terms:show", name="show", help="One entry: clauses, sources, dates, conditions.")
app.command(terms)
disclose = App(name="disclose", help="Show one thing about a record to somebody who sees none of the data.")
disclose.command("tutelage.cli.disclose:share", name="share", help="What share came from a teacher.")
disclose.command("tutelage.cli.disclose:absence", name="absence", help="That nothing came from a teacher.")
disclose.command("tutelage.cli.disclose:example", name="example", help="That one example was used, and how.")
disclose.command("tutelage.cli.disclose:audit", name="audit", help="Examples drawn at random, for an auditor.")
disclose.command("tutelage.cli.disclose:consistency", name="consistency", help="That nothing was rewritten since.")
app.command(disclose)
key = App(name="key", help="The keys that records are signed with.")
key.command("tutelage.cli.key:new", name="new", help="Make a key.")
key.command("tutelage.cli.key:list_keys", name="list", help="The keys you have.")
key.command("tutelage.cli.key:use", name="use", help="Choose the key that runs are signed with.")
key.command("tutelage.cli.key:rotate", name="rotate", help="Replace a key; both sign the handing over.")
key.command("tutelage.cli.key:revoke", name="revoke", help="Declare that a key counts no more.")
app.command(key)


def main(arguments: list[str] | None = None) -> None:
    """Entry point. Never returns: exits with the documented code."""
    from cyclopts import CycloptsError

    from tutelage.errors import TutelageError

    try:
        code = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        print(f"error: {error}\n  fix: see tutelage --help", file=sys.stderr)
        code = 2
    except TutelageError as error:
        print(f"error: {error}", file=sys.stderr)
        code = error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:  # a full disk, a file that may not be read: said by the system, mended by the person
        print(f"error: {error}\n  fix: free disk space or mend permissions, and run again", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:  # while a command is looked up; in one cyclopts does the same
        code = 130
    sys.exit(code or 0)


if __name__ == "__main__":
    main()
