"""Packed bodies, unpacked within bounds: gzip and deflate always, zstd and brotli where a decoder is installed.

Source: RFC 9110 §8.4.1 and §12.5.3, RFC 8878 (zstd), RFC 7932 (brotli). The decoders are those that the client library
takes: Python's own or `backports.zstd`, and `Brotli` from 1.2 on, whose output can be bounded.
"""

import importlib
import zlib
from functools import lru_cache
from typing import Any

from tutelage.wire.calls import FIX
from tutelage.wire.values import bad

_GZIP, _PLAIN = ("gzip", "x-gzip", "deflate"), ("", "identity")
_NAMES = {*_GZIP, "br", "zstd", "compress"}  # that may be shown: a caller's own name for a coding could be a secret


class _Brotli:
    """The brotli decoder, with the face of the others."""

    unused_data = b""  # it refuses what follows

    def __init__(self, module: Any) -> None:
        self._decoder = module.Decompressor()

    def decompress(self, data: bytes, limit: int) -> bytes:
        return self._decoder.process(data, output_buffer_limit=limit)

    @property
    def eof(self) -> bool:
        return self._decoder.is_finished()


def can_unpack(coding: str) -> bool:
    """Whether a body of this content coding can be read here."""
    coding = coding.strip().casefold()
    return coding in _PLAIN or coding in _GZIP or _module(coding) is not None


def readable(accepted: str) -> str:
    """What is left of an `Accept-Encoding` field when only what can be read here is asked for."""
    kept = [part.strip() for part in accepted.split(",") if can_unpack(part.partition(";")[0])]
    return ", ".join(part for part in kept if part) or "identity"


def unpacked(data: bytes, coding: str, limit: int) -> bytes:
    """The body as it was before packing. Raises `WireError` for a coding that cannot be read here, and for a body that is
    damaged, cut off or larger than `limit`."""
    coding = coding.strip().casefold()
    if coding in _PLAIN:
        return data
    if not can_unpack(coding):
        named = f"content-encoding.{coding}" if coding in _NAMES else "content-encoding"
        raise bad(f"a body packed with {coding[:40]!r} cannot be read", named, FIX)
    unpacker = _unpacker(coding)
    try:
        plain = unpacker.decompress(data, limit)
    except Exception as error:  # every decoder has an error of its own
        raise bad(f"a damaged {coding} body: {error}", "content-encoding", FIX) from None
    if not unpacker.eof or unpacker.unused_data or len(plain) > limit:
        raise bad(f"a {coding} body that is cut off or unpacks to more than {limit} bytes", "", FIX)
    return plain


def _unpacker(coding: str) -> Any:
    if coding in _GZIP:
        return zlib.decompressobj(zlib.MAX_WBITS if coding == "deflate" else zlib.MAX_WBITS | 16)
    return _Brotli(_module("br")) if coding == "br" else _module("zstd").ZstdDecompressor()


@lru_cache(maxsize=8)
def _module(coding: str) -> Any:
    for name in {"br": ("brotli",), "zstd": ("compression.zstd", "backports.zstd")}.get(coding, ()):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None
