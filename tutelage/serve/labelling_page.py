"""The labelling page as HTML: every text escaped, style and script inline and allowed by their digests alone."""

import base64
import hashlib
from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from tutelage.errors import TutelageError
from tutelage.prove.gold_file import Header
from tutelage.prove.shown import Shown

KEYS = "123456789" + "abcdefghijklmnopqrtvwxyz"  # s skips, u takes back
MOST_CHOICES = 20
Words = Callable[[str], str]  # how a hostile text is shown: `report.words.visible`


class Progress(NamedTuple):
    """How far one person is."""

    decided: int
    skipped: int
    units: int

    @property
    def left(self) -> int:
        return self.units - self.decided - self.skipped


def _asset(name: str) -> str:
    return files("tutelage.serve").joinpath(f"templates/{name}").read_text("utf-8")


def _source(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


STYLE, SCRIPT = _asset("label.css"), _asset("label.js")
POLICY = (
    f"default-src 'none'; style-src {_source(STYLE)}; script-src {_source(SCRIPT)}; img-src data:; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)


class Page:
    """Renders pages; `words` makes invisible and directional characters of a text visible."""

    def __init__(self, words: Words) -> None:
        self._words = words

    def item(
        self, token: str, at: int, shown: Shown, buttons: Sequence[str], header: Header, who: str, progress: Progress,
        last: str, stale: bool,
    ) -> str:  # fmt: skip
        """The page of one unit. Of `shown` it sends texts alone: neither identifiers nor whose answers they are."""
        return self._render(
            "item", token=token, at=at, turns=shown.turns, answers=shown.answers, asked=header.asked, who=who,
            buttons=list(zip(KEYS, buttons, strict=False)), mode=str(header.mode), progress=progress, last=last, stale=stale,
        )  # fmt: skip

    def done(self, token: str, progress: Progress, last: str) -> str:
        return self._render("done", token=token, progress=progress, last=last)

    def failed(self, error: TutelageError, back: str) -> str:
        return self._render("failed", error=error, back=back)

    def _render(self, part: str, **told: Any) -> str:
        template = _environment().get_template("label.html.j2")
        return template.render(part=part, visible=self._words, style=Markup(STYLE), script=Markup(SCRIPT), **told)


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("tutelage.serve", "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, auto_reload=False,
    )  # fmt: skip
