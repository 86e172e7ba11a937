"""The in-toto statement over the student's files, its DSSE envelope, and the OpenSSF model signature beside it.

Statement: in-toto Attestation Framework, Statement v1. Envelope: DSSE v1.0.2, with one Ed25519 signature. The model
signature is a Sigstore bundle v0.3 around a DSSE envelope with predicate `https://model_signing/signature/v1.0` (OpenSSF
Model Signing), signed with ECDSA on P-256, since that format knows no Ed25519; the `model_signing` tool checks it.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from tutelage.canon import canonical
from tutelage.ledger.keys import Signer, p256_hint
from tutelage.ledger.note import ED25519, key_id

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:tutelage:distillation:v1"
_MODEL_SIGNATURE = "https://model_signing/signature/v1.0"
_BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"


def statement(files: Mapping[str, str], predicate: Mapping[str, Any]) -> bytes:
    """Canonical JSON of the statement. `files`: name -> tagged digest of every file of the student's folder."""
    return canonical(
        {
            "_type": STATEMENT_TYPE,
            "subject": subject(files),
            "predicateType": PREDICATE_TYPE,
            "predicate": dict(predicate),
        }
    )


def subject(files: Mapping[str, str]) -> list[dict[str, Any]]:
    """The files a statement is about, by name."""
    return [{"name": name, "digest": {"sha256": _hex(digest)}} for name, digest in sorted(files.items())]


def pre_authentication_encoding(payload: bytes) -> bytes:
    """What a DSSE signature covers: "DSSEv1", then length and text of payload type and payload (DSSE v1, PAE)."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def envelope(payload: bytes, signer: Signer) -> dict[str, Any]:
    """The DSSE envelope of a statement, signed with the Ed25519 key."""
    keyid = f"{signer.name}+{key_id(signer.name, ED25519, signer.public).hex()}"
    return _envelope(payload, signer.sign(pre_authentication_encoding(payload)), keyid)


def model_signature(name: str, files: Mapping[str, str], signer: Signer) -> bytes:
    """The bundle to lie beside the weights. The subject's digest is over the files' digests in the order of their names."""
    resources = [
        {"algorithm": "sha256", "digest": _hex(digest), "name": path} for path, digest in sorted(files.items())
    ]
    together = hashlib.sha256(b"".join(bytes.fromhex(item["digest"]) for item in resources)).hexdigest()
    payload = json.dumps(
        {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": name, "digest": {"sha256": together}}],
            "predicateType": _MODEL_SIGNATURE,
            "predicate": {
                "serialization": {
                    "method": "files",
                    "hash_type": "sha256",
                    "allow_symlinks": False,
                    "ignore_paths": [],
                },
                "resources": resources,
            },
        }
    ).encode()
    signature = signer.p256.sign(pre_authentication_encoding(payload), ec.ECDSA(hashes.SHA256()))
    bundle = {
        "mediaType": _BUNDLE,
        "verificationMaterial": {"publicKey": {"hint": p256_hint(signer)}, "tlogEntries": []},
        "dsseEnvelope": _envelope(payload, signature, ""),
    }
    return json.dumps(bundle, indent=1).encode() + b"\n"


def _envelope(payload: bytes, signature: bytes, keyid: str) -> dict[str, Any]:
    return {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"keyid": keyid, "sig": base64.b64encode(signature).decode()}],
    }


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")
