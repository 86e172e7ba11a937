"""Where a page of the viewer is: under a secret path on loopback, or a file of a bundle. Templates ask nothing else."""

from collections.abc import Collection
from typing import Protocol
from urllib.parse import urlencode

from markupsafe import Markup

from tutelage.view.index import Place
from tutelage.view.query import Filters

NO_FILTERS = Filters()


class Links(Protocol):
    """Addresses of pages; empty for one that is not there."""

    is_static: bool

    def head(self) -> Markup: ...
    def runs(self) -> str: ...
    def run(self, number: int) -> str: ...
    def examples(self, number: int, filters: Filters = NO_FILTERS, **changed: str | int) -> str: ...
    def example(self, number: int, place: Place) -> str: ...
    def pairs(self, number: int, which: str = "", page: int = 1) -> str: ...
    def pair(self, number: int, item: int) -> str: ...
    def compare(self, left: int, right: int) -> str: ...
    def file(self, number: int, name: str) -> str: ...
    def live(self, number: int) -> str: ...


class ServedLinks:
    """Of the server. `base` is the path with the key, without a slash at its end."""

    is_static = False

    def __init__(self, base: str) -> None:
        self.base = base

    def head(self) -> Markup:
        sheet = Markup('<link rel="stylesheet" href="{0}/view.css">\n<script src="{0}/view.js" defer></script>')
        return sheet.format(self.base)

    def runs(self) -> str:
        return f"{self.base}/"

    def run(self, number: int) -> str:
        return f"{self.base}/run/{number}"

    def examples(self, number: int, filters: Filters = NO_FILTERS, **changed: str | int) -> str:
        query = filters.query(**changed)
        return f"{self.run(number)}/examples" + (f"?{query}" if query else "")

    def example(self, number: int, place: Place) -> str:
        return f"{self.run(number)}/example/{place}"

    def pairs(self, number: int, which: str = "", page: int = 1) -> str:
        query = urlencode({"which": which} if which else {}) + (f"&page={page}" if page > 1 else "")
        return f"{self.run(number)}/proof" + (f"?{query.lstrip('&')}" if query else "")

    def pair(self, number: int, item: int) -> str:
        return f"{self.run(number)}/proof/{item}"

    def compare(self, left: int, right: int) -> str:
        return f"{self.base}/compare?a={left}&b={right}"

    def file(self, number: int, name: str) -> str:
        return f"{self.run(number)}/{name}"

    def live(self, number: int) -> str:
        return f"{self.run(number)}/live"


class BundledLinks:
    """Of a folder of files that open without a server: all in one folder, style within each page, no script.

    `written` are the names that will be there; whatever else is asked for has no address.
    """

    is_static = True

    def __init__(self, style: str, policy: str) -> None:
        self._style, self._policy = style, policy
        self.written: Collection[str] = ()

    def head(self) -> Markup:
        meta = Markup('<meta http-equiv="Content-Security-Policy" content="{}">\n').format(self._policy)
        return meta + Markup("<style>") + Markup(self._style) + Markup("</style>")  # our own file, whole

    def runs(self) -> str:
        return "index.html"

    def run(self, number: int) -> str:
        return self._there(f"run-{number}.html")

    def examples(self, number: int, filters: Filters = NO_FILTERS, **changed: str | int) -> str:
        page = changed.get("page", filters.page)
        if filters.values or filters.words or changed.keys() - {"page"}:
            return ""  # a file cannot filter
        return self._there(f"run-{number}-examples-{page}.html")

    def example(self, number: int, place: Place) -> str:
        return self._there(f"run-{number}-example-{place}.html")

    def pairs(self, number: int, which: str = "", page: int = 1) -> str:
        return "" if which else self._there(f"run-{number}-proof-{page}.html")

    def pair(self, number: int, item: int) -> str:
        return self._there(f"run-{number}-item-{item}.html")

    def compare(self, left: int, right: int) -> str:
        return self._there(f"compare-{left}-{right}.html")

    def file(self, number: int, name: str) -> str:
        return self._there(f"run-{number}-{name}")

    def live(self, number: int) -> str:
        return ""

    def _there(self, name: str) -> str:
        return name if name in self.written else ""
