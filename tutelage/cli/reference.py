"""`python -m tutelage.cli.reference` prints docs/cli.md; a test checks that the file is what this prints."""

from tutelage.cli.main import app


def reference() -> str:
    """Every command with its options, in Markdown."""
    return app.generate_docs(output_format="markdown").rstrip() + "\n"


if __name__ == "__main__":
    print(reference(), end="")
