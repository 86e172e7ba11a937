"""Keys of whoever signs records: made, kept, rotated and revoked offline. Private halves never leave their folder.

A signer has an Ed25519 key (notes and the in-toto statement) and a P-256 key (the OpenSSF model signature, which knows
no Ed25519). `NAME.history.json` is for everybody: signed notes that hand over from one key to the next, or revoke one.
"""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import platformdirs
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from tutelage.canon import canonical, digest_bytes
from tutelage.errors import ConfigError
from tutelage.jsonl import pretty, write_whole
from tutelage.ledger.note import (
    COSIGNATURE,
    ED25519,
    checked_name,
    cosigned_message,
    key_id,
    signature_line,
    verification_key,
)

FOLDER_VARIABLE = "TUTELAGE_KEYS"
ROTATION, REVOCATION = "tutelage/key-rotation/v1", "tutelage/key-revocation/v1"


@dataclass(frozen=True, slots=True)
class Signer:
    """The private halves of a signer's keys."""

    name: str
    ed25519: ed25519.Ed25519PrivateKey
    p256: ec.EllipticCurvePrivateKey

    @property
    def public(self) -> bytes:
        """The Ed25519 public key: 32 bytes."""
        return self.ed25519.public_key().public_bytes_raw()

    @property
    def verification_key(self) -> str:
        return verification_key(self.name, ED25519, self.public)

    @property
    def witness_key(self) -> str:
        """The same key as it verifies cosignatures."""
        return verification_key(self.name, COSIGNATURE, self.public)

    @property
    def p256_public(self) -> bytes:
        """The P-256 public key as PEM."""
        return self.p256.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def sign(self, message: bytes) -> bytes:
        """An Ed25519 signature: 64 bytes (RFC 8032 §5.1.6)."""
        return self.ed25519.sign(message)

    def note(self, text: str) -> str:
        """The text as a signed note."""
        key = key_id(self.name, ED25519, self.public)
        return text + "\n" + signature_line(self.name, key, self.sign(text.encode()))

    def cosignature(self, text: str, posix_s: int) -> str:
        """A witness's signature line: this text was seen at that time."""
        key = key_id(self.name, COSIGNATURE, self.public)
        signed = self.sign(cosigned_message(text, posix_s))
        return signature_line(self.name, key, posix_s.to_bytes(8, "big") + signed)


def key_folder() -> Path:
    """Where keys are kept: the folder in TUTELAGE_KEYS, else one in the person's configuration folder."""
    named = os.environ.get(FOLDER_VARIABLE)
    return Path(named) if named else platformdirs.user_config_path("tutelage") / "keys"


def new_key(name: str) -> Signer:
    """Makes and keeps a key; the first one becomes the default. Raises `ConfigError` when there is one of that name."""
    if any(_path(checked_name(name), ending).exists() for ending in ("key", "p256.key")):
        raise ConfigError(f"there is a key {name} already", fix=f"choose another name, or: tutelage key rotate {name}")
    signer = _make(name)
    _keep(signer)
    if default_name() is None:
        write_whole(key_folder() / "default", f"{name}\n".encode())
    return signer


def rotate_key(name: str) -> Signer:
    """Makes a new key under the same name; old and new both sign the handing over. The old private key is destroyed."""
    old, new = load_key(name), _make(name)
    text = _event(ROTATION, old, {"new": new.verification_key})
    note = old.note(text) + signature_line(name, key_id(name, ED25519, new.public), new.sign(text.encode()))
    _add_to_history(name, note)
    _keep(new)
    return new


def revoke_key(name: str, reason: str) -> None:
    """Declares, signed by the key itself, that nothing it signs from now on counts; destroys the private key."""
    signer = load_key(name)
    if not reason.strip() or not reason.isprintable():
        raise ConfigError(f"{reason!r} is no reason for a revocation", fix="say why in one line: --reason")
    _add_to_history(name, signer.note(_event(REVOCATION, signer, {"reason": " ".join(reason.split())})))
    _path(name, "key").unlink()
    _path(name, "p256.key").unlink()
    if default_name() == name:
        (key_folder() / "default").unlink()


def default_name() -> str | None:
    """The name of the key that runs are signed with; None when nobody made one."""
    path = key_folder() / "default"
    return path.read_text().strip() if path.exists() else None


def use_key(name: str) -> Signer:
    """Makes a key the one that runs are signed with. Raises `ConfigError` when there is no such key."""
    signer = load_key(name)
    write_whole(key_folder() / "default", f"{name}\n".encode())
    return signer


def default_signer() -> Signer | None:
    """The default key; None when there is none, so that a run says it is not signed."""
    name = default_name()
    return None if name is None else load_key(name)


def load_key(name: str) -> Signer:
    """Raises `ConfigError` when there is no such key or others may read it."""
    path = _path(checked_name(name), "key")
    if not path.exists() or not _path(name, "p256.key").exists():
        raise ConfigError(f"there is no key {name} in {key_folder()}", fix=f"make one: tutelage key new {name}")
    for secret in (path, _path(name, "p256.key")):
        if secret.stat().st_mode & 0o077:
            raise ConfigError(f"{secret} can be read by others", fix=f"chmod 600 {secret}")
    try:
        first = serialization.load_pem_private_key(path.read_bytes(), None)
        second = serialization.load_pem_private_key(_path(name, "p256.key").read_bytes(), None)
    except ValueError:
        first = second = None
    if not isinstance(first, ed25519.Ed25519PrivateKey) or not isinstance(second, ec.EllipticCurvePrivateKey):
        raise ConfigError(f"{path} and its p256.key are no keys", fix="keys are made with: tutelage key new")
    return Signer(name, first, second)


class Known(NamedTuple):
    """A key in the folder; `usable` is false once it was revoked."""

    name: str
    verification_key: str
    usable: bool


def known_keys() -> list[Known]:
    """All keys in the folder, by name."""
    found = [
        (_unescaped(path.name.removesuffix(".vkey")), path.read_text().strip()) for path in key_folder().glob("*.vkey")
    ]
    return [Known(name, key, _path(name, "key").exists()) for name, key in sorted(found)]


def public_files(name: str) -> tuple[Path, Path]:
    """The files with the two keys to hand out: for what is signed, and for what is cosigned as a witness."""
    return _path(name, "vkey"), _path(name, "witness")


def key_ids(signer: Signer) -> frozenset[bytes]:
    """Ids (4 bytes) of the signer's key and of those it took over from, by its history."""
    found = {key_id(signer.name, ED25519, signer.public)}
    path = history_path(signer.name)
    for note in json.loads(path.read_bytes())["notes"] if path.exists() else ():
        said = json.loads(note.splitlines()[1])
        found |= {bytes.fromhex(said[field].split("+")[1]) for field in ("key", "new") if field in said}
    return frozenset(found)


def history_path(name: str) -> Path:
    """The public history of a key: rotations and revocations."""
    return _path(name, "history.json")


def _make(name: str) -> Signer:
    return Signer(name, ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP256R1()))


def _keep(signer: Signer) -> None:
    plain = serialization.NoEncryption()
    for private, ending in ((signer.ed25519, "key"), (signer.p256, "p256.key")):
        pem = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        write_whole(_path(signer.name, ending), pem, mode=0o600)
    write_whole(_path(signer.name, "vkey"), f"{signer.verification_key}\n".encode())
    write_whole(_path(signer.name, "witness"), f"{signer.witness_key}\n".encode())
    write_whole(_path(signer.name, "p256.pub"), signer.p256_public)


def _event(kind: str, signer: Signer, more: dict[str, str]) -> str:
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return f"{kind}\n{canonical({'key': signer.verification_key, 'at': at, **more}).decode()}\n"


def _add_to_history(name: str, note: str) -> None:
    path = history_path(name)
    notes = json.loads(path.read_bytes())["notes"] if path.exists() else []
    write_whole(path, pretty({"schema_version": 1, "notes": [*notes, note]}))


def _path(name: str, ending: str) -> Path:
    return key_folder() / f"{_escaped(name)}.{ending}"


def _escaped(name: str) -> str:
    """A file name for any key name: a name may hold slashes (C2SP asks for something like a host and a path)."""
    return name.replace("%", "%25").replace("/", "%2F")


def _unescaped(name: str) -> str:
    return name.replace("%2F", "/").replace("%25", "%")


def p256_hint(signer: Signer) -> str:
    """Hexadecimal SHA-256 of the PEM public key: how a Sigstore bundle names a key that needs no certificate."""
    return digest_bytes(signer.p256_public).removeprefix("sha256:")
