"""The command line: lazy dispatch to one file a verb, errors as what and how to mend it, documented exit codes."""

import os
import sys

from cyclopts import App

import tutelage

app = App(
    name="tutelage",
    version=tutelage.__version__,
    help="Distil a teacher behind an API into a small student you own, and prove how good it is, what it cost, and what "
    "was taken from whom under which terms.\n\nExit codes: 0 ok, 1 a finding, 2 usage or input, 3 partial, 130 interrupted.",
)
app.command("tutelage.cli.init:init", name="init")
app.command("tutelage.cli.plan:plan", name="plan")
app.command("tutelage.cli.run:run", name="run")
app.command("tutelage.cli.run:demo", name="demo")
app.command("tutelage.cli.serve:serve", name="serve")
app.command("tutelage.cli.verify:verify", name="verify")
app.command("tutelage.cli.doctor:doctor", name="doctor")
terms = App(name="terms", help="What licences and providers allow: check a run file, list or show what is known.")
terms.command("tutelage.cli.terms:check", name="check")
terms.command("tutelage.cli.terms:list_terms", name="list")
terms.command("tutelage.cli.terms:show", name="show")
app.command(terms)


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
    except KeyboardInterrupt:
        print("killed; run the same command again to resume", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code or 0)


if __name__ == "__main__":
    main()
