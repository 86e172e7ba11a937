"""What the documents share: licences by their ids, links and digests that are safe to print, hostile text as Markdown.

Pure. Names come from people and models, so nothing of them may open a tag, a link, a heading or another table cell.
"""

import base64
import re
from collections.abc import Iterable, Sequence

UNKNOWN = "unknown"
NOT_PUBLIC = "not public"

# Identifiers of the SPDX licence list that the Hugging Face Hub knows too, there in lower case
# (hub-docs, repositories-licenses). Any other licence is named, never given an id.
_SPDX_IDS = (
    "AFL-3.0 AGPL-3.0 Apache-2.0 Artistic-2.0 BSD-2-Clause BSD-3-Clause BSD-3-Clause-Clear BSL-1.0 CC-BY-2.0 CC-BY-2.5 "
    "CC-BY-3.0 CC-BY-4.0 CC-BY-NC-2.0 CC-BY-NC-3.0 CC-BY-NC-4.0 CC-BY-NC-ND-3.0 CC-BY-NC-ND-4.0 CC-BY-NC-SA-2.0 "
    "CC-BY-NC-SA-3.0 CC-BY-NC-SA-4.0 CC-BY-ND-4.0 CC-BY-SA-3.0 CC-BY-SA-4.0 CC0-1.0 CDLA-Permissive-1.0 "
    "CDLA-Permissive-2.0 CDLA-Sharing-1.0 ECL-2.0 EPL-1.0 EPL-2.0 EUPL-1.1 EUPL-1.2 GPL-2.0 GPL-3.0 ISC LGPL-2.1 "
    "LGPL-3.0 LPPL-1.3c MIT MPL-2.0 MS-PL NCSA OFL-1.1 OSL-3.0 PostgreSQL Unlicense WTFPL Zlib"
)
SPDX = {name.lower(): name for name in _SPDX_IDS.split()}
_WEB = re.compile(r"https?://[\w.-]+(:\d+)?(/[\w.~:/@!&'()*+,;=-]*)?(\?[\w.~:/@!&'()*+,;=?-]*)?", re.ASCII)
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
# Controls but tab and newline; bidirectional, zero-width and invisible characters; lone surrogates.
_UNSEEN = re.compile(
    "[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\U000e0000-\U000e007f\ud800-\udfff]"
)
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "&#64;", "$": "&#36;"}


def spdx(licence: str) -> str:
    """The SPDX id as the list spells it, or empty for a licence that has none here."""
    return SPDX.get(licence.lower(), "")


def web(url: str) -> str:
    """The address when it is a plain http(s) URL (a subset of RFC 3986 that needs no escaping), else empty."""
    return url if _WEB.fullmatch(url) else ""


def bare(digest: str) -> str:
    """The 64 hexadecimal digits of a tagged digest. Raises `ValueError` for anything else."""
    found = _DIGEST.fullmatch(digest)
    if not found:
        raise ValueError(f"{digest!r} is not a digest; expected sha256: and 64 hexadecimal digits")
    return found[1]


def name_of(digest: str) -> str:
    """The `ni` URI of a digest (RFC 6920 section 3): an address for bytes that lie nowhere on the web."""
    encoded = base64.urlsafe_b64encode(bytes.fromhex(bare(digest))).rstrip(b"=")
    return f"ni:///sha-256;{encoded.decode()}"


def plain(text: str) -> str:
    """`text` as one line of Markdown that shows it letter by letter: no markup, no link, no invisible character.

    Also safe inside a table cell and at the start of a line (CommonMark 0.31 section 2.4; GFM tables and autolinks).
    """
    line = " ".join(_visible(text).split())
    line = re.sub(r"([\\`*_{}\[\]|~])", r"\\\1", line)
    line = re.sub(r"[&<>@$]", lambda found: _ENTITIES[found[0]], line)
    line = re.sub(r"(?i)(https?|ftp)://", r"\1&#58;//", line)
    line = re.sub(r"(?i)\bwww\.", lambda found: found[0][:-1] + "&#46;", line)
    line = re.sub(r"^([#=]|[+-](?=[ +-]|$))", r"\\\1", line)
    return re.sub(r"^(\d+)([.)])(?= |$)", r"\1\\\2", line)


def code(text: str) -> str:
    """`text` in a code span, or as `plain` where a code span could not hold it."""
    line = " ".join(_visible(text).split())
    return plain(text) if not line or re.search(r"[`|$]", line) else f"`{line}`"


def block(text: str) -> str:
    """`text` in a fenced code block, line by line; the fence is longer than any run of backticks in it."""
    shown = _visible(text)
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", shown)), default=0))
    return f"{fence}\n{shown}\n{fence}"


def sentence(text: str) -> str:
    """`text` as `plain`, with a full stop where it ends without one."""
    shown = plain(text)
    return shown if shown.endswith((".", "!", "?")) else f"{shown}."


def link(text: str, url: str) -> str:
    """A Markdown link, or the text alone when the address is no plain web address."""
    return f"[{plain(text)}](<{url.replace('&', '&amp;')}>)" if web(url) else plain(text)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the cells are Markdown already."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell or " " for cell in line) + " |" for line in lines)


def _visible(text: str) -> str:
    return _UNSEEN.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", text)
