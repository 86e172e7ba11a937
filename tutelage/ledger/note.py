"""Signed notes, checkpoints and cosignatures as text (C2SP signed-note, tlog-checkpoint, tlog-cosignature).

A note is text that ends with a newline, an empty line, and one signature line a signer. Signature type 0x01 is Ed25519
over the text, 0x04 an Ed25519 cosignature over a time and the text. `ledger.verify` reads and checks what is written here.
"""

import base64
import hashlib
import re

from tutelage.errors import ConfigError

ED25519 = 1
COSIGNATURE = 4


def checked_name(name: str) -> str:
    """A key name: not empty, no white space, no plus (C2SP signed-note). Raises `ConfigError`."""
    if not re.fullmatch(r"[!-*,-~]{1,100}", name):
        raise ConfigError(
            f"{name!r} cannot name a key",
            fix="use 1 to 100 printable ASCII characters without blanks or plus, for instance example.org/ada",
        )
    return name


def key_id(name: str, kind: int, public: bytes) -> bytes:
    """4 bytes: the beginning of SHA-256(name ‖ 0x0A ‖ kind ‖ public key)."""
    return hashlib.sha256(name.encode() + b"\n" + bytes([kind]) + public).digest()[:4]


def verification_key(name: str, kind: int, public: bytes) -> str:
    """`name+id+key`: what people hand out so that others can check a note. `public` is 32 bytes."""
    return f"{name}+{key_id(name, kind, public).hex()}+{base64.b64encode(bytes([kind]) + public).decode()}"


def checkpoint_text(origin: str, size: int, root: bytes) -> str:
    """The three lines of a C2SP checkpoint: origin, number of entries, root in base64."""
    return f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n"


def signature_line(name: str, key: bytes, signature: bytes) -> str:
    """`key` is the 4 bytes of `key_id`, `signature` what follows them."""
    return f"— {name} {base64.b64encode(key + signature).decode()}\n"


def cosigned_message(text: str, time: int) -> bytes:
    """What a witness signs: a time in POSIX seconds and the text of the note (C2SP tlog-cosignature)."""
    return f"cosignature/v1\ntime {time}\n{text}".encode()
