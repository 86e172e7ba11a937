"""From token ids to bytes and text, as a tokenizer's own decoder would, one token at a time. No torch."""

import base64
import codecs
import json
from typing import Any

from tutelage.errors import ResourceError


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's reversible map: printable bytes stand for themselves, the others for code points from 256 up."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + at): byte for at, byte in enumerate(others)}


_ALPHABET = _byte_alphabet()


def byte_level(token: str) -> bytes | None:
    """The bytes of a token in a byte-level vocabulary's own spelling; None when it is spelled otherwise."""
    return bytes(_ALPHABET[char] for char in token) if all(char in _ALPHABET for char in token) else None


class TokenBytes:
    """The bytes that each id of a fast tokenizer stands for."""

    def __init__(self, tokenizer: Any) -> None:
        """Raises `ResourceError` when the tokenizer is not a fast one."""
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise ResourceError(
                f"{type(tokenizer).__name__} is not a fast tokenizer",
                fix="save the model folder with a tokenizer.json",
            )
        decoder = json.loads(backend.decoder.__getstate__()) if backend.decoder is not None else {}
        kinds = [step["type"] for step in decoder.get("decoders", [decoder]) if "type" in step]
        self._byte_level = "ByteLevel" in kinds
        self.strips_first_space = "Strip" in kinds or "Metaspace" in kinds
        self._tokenizer = tokenizer
        self._special_ids = frozenset(tokenizer.all_special_ids)
        self._added = {index: str(token) for index, token in tokenizer.added_tokens_decoder.items()}
        self._bytes: dict[int, bytes] = {}
        self._b64: dict[int, str] = {}

    def __getitem__(self, token_id: int) -> bytes:
        """The token's bytes; empty for ids past the vocabulary (padded embeddings)."""
        found = self._bytes.get(token_id)
        if found is None:
            found = self._bytes[token_id] = self._spell(token_id)
        return found

    def b64(self, token_id: int) -> str:
        found = self._b64.get(token_id)
        if found is None:
            found = self._b64[token_id] = base64.b64encode(self[token_id]).decode("ascii")
        return found

    def visible(self, token_id: int) -> bytes:
        """The bytes that belong into an answer's text: none for special tokens."""
        return b"" if token_id in self._special_ids else self[token_id]

    def _spell(self, token_id: int) -> bytes:
        if token_id in self._added:
            return self._added[token_id].encode("utf-8")
        token = self._tokenizer.convert_ids_to_tokens(token_id)
        if token is None:
            return b""
        if self._byte_level:
            return b"".join(bytes((_ALPHABET[char],)) if char in _ALPHABET else char.encode("utf-8") for char in token)
        if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            return bytes.fromhex(token[3:5])
        return token.replace("▁", " ").encode("utf-8")


class TextStream:
    """Text that grows by bytes: never half a character, never part of a stop string, nothing after one."""

    def __init__(self, stop: tuple[str, ...], *, strips_first_space: bool) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stop = stop
        self._strip = strips_first_space
        self._held = ""
        self.text = ""
        self.stopped = False

    def feed(self, data: bytes, *, final: bool) -> str:
        """The text that is now certain, beyond what was returned before. `final` flushes what is held back."""
        fresh = self._decoder.decode(data, final)
        if self._strip and fresh:
            fresh, self._strip = fresh.removeprefix(" "), False
        self._held += fresh
        cuts = [at for stop in self._stop if (at := self._held.find(stop)) >= 0]
        if cuts:
            self.stopped = True
            ready, self._held = self._held[: min(cuts)], ""
        else:
            keep = 0 if final else self._begun_stop()
            ready, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        self.text += ready
        return ready

    def _begun_stop(self) -> int:
        """Length of the longest tail of the held text that some stop string begins with."""
        longest = 0
        for stop in self._stop:
            for size in range(min(len(stop) - 1, len(self._held)), longest, -1):
                if self._held.endswith(stop[:size]):
                    longest = size
                    break
        return longest
