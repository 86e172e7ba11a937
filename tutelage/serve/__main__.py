"""`python -m tutelage.serve FOLDER --name NAME`: a model server for a parent process; ends when the parent does."""

import sys
from pathlib import Path

from tutelage.models.process import announce, exit_with_parent
from tutelage.serve.app import serve


def main(arguments: list[str]) -> None:
    folder, _, name = arguments
    exit_with_parent()
    serve(Path(folder), port=0, names=(name,), on_listening=lambda port: announce(f"http://127.0.0.1:{port}"))


if __name__ == "__main__":
    main(sys.argv[1:])
