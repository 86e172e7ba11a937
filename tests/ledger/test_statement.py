"""The in-toto statement, its DSSE envelope, and the OpenSSF bundle beside the weights."""

import base64
import hashlib
import json
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.ledger.conftest import Record
from tests.ledger.made import new_signer
from tutelage.ledger import statement, verify
from tutelage.ledger.statement import envelope, model_signature
from tutelage.ledger.verify import ed25519_verify

FILES = {"model.safetensors": "sha256:" + 64 * "a", "README.md": "sha256:" + 64 * "b", "sub/x": "sha256:" + 64 * "0"}
ADA = new_signer()


def test_pre_authentication_encoding_of_the_specification(monkeypatch: pytest.MonkeyPatch) -> None:
    """DSSE v1, protocol.md, the example under "PAE"."""
    for module in (statement, verify):
        monkeypatch.setattr(module, "PAYLOAD_TYPE", "http://example.com/HelloWorld")
        wanted = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        assert module.pre_authentication_encoding(b"hello world") == wanted


def test_lengths_keep_type_and_payload_apart() -> None:
    assert statement.pre_authentication_encoding(b"") == b"DSSEv1 28 application/vnd.in-toto+json 0 "
    assert statement.pre_authentication_encoding("é".encode()).endswith(b" 2 \xc3\xa9"), "bytes are counted"
    for payload in (b"", b"x", bytes(300)):
        assert statement.pre_authentication_encoding(payload) == verify.pre_authentication_encoding(payload)


def test_a_statement_is_canonical_and_names_every_file() -> None:
    payload = statement.statement(FILES, {"b": 1, "a": [2]})
    value = json.loads(payload)
    assert value["_type"] == "https://in-toto.io/Statement/v1"
    assert value["predicateType"] == "urn:tutelage:distillation:v1"
    assert [one["name"] for one in value["subject"]] == sorted(FILES)
    assert {one["name"]: "sha256:" + one["digest"]["sha256"] for one in value["subject"]} == FILES
    assert payload == statement.statement(dict(reversed(FILES.items())), {"a": [2], "b": 1})
    assert verify._canonical(value) == payload


def test_the_envelope_is_signed_over_type_and_payload() -> None:
    made = envelope(b"{}", ADA)
    assert set(made) == {"payload", "payloadType", "signatures"}
    assert base64.b64decode(made["payload"]) == b"{}"
    signature = base64.b64decode(made["signatures"][0]["sig"])
    assert ed25519_verify(ADA.public, b"DSSEv1 28 application/vnd.in-toto+json 2 {}", signature)
    assert not ed25519_verify(ADA.public, b"{}", signature), "the payload alone is never signed"
    assert made["signatures"][0]["keyid"] == "+".join(ADA.verification_key.split("+")[:2])


def checked_bundle(data: bytes, pem: bytes) -> dict[str, object]:
    """The payload of a bundle whose ECDSA signature holds under this key."""
    bundle = json.loads(data)
    sealed = bundle["dsseEnvelope"]
    payload = base64.b64decode(sealed["payload"], validate=True)
    message = b"DSSEv1 %d %s %d %s" % (
        len(sealed["payloadType"]), sealed["payloadType"].encode(), len(payload), payload,
    )  # fmt: skip
    key = serialization.load_pem_public_key(pem)
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify(base64.b64decode(sealed["signatures"][0]["sig"]), message, ec.ECDSA(hashes.SHA256()))
    return {**json.loads(payload), "bundle": bundle}


def test_the_model_signature_is_a_bundle_that_names_files_and_their_digest_together() -> None:
    value = checked_bundle(model_signature("student", FILES, ADA), ADA.p256_public)
    bundle = value["bundle"]
    assert bundle["mediaType"] == "application/vnd.dev.sigstore.bundle.v0.3+json"
    assert bundle["verificationMaterial"]["publicKey"]["hint"] == hashlib.sha256(ADA.p256_public).hexdigest()
    assert value["predicateType"] == "https://model_signing/signature/v1.0"
    resources = value["predicate"]["resources"]
    assert [(one["name"], one["algorithm"], "sha256:" + one["digest"]) for one in resources] == [
        (name, "sha256", digest) for name, digest in sorted(FILES.items())
    ]
    together = hashlib.sha256(b"".join(bytes.fromhex(one["digest"]) for one in resources)).hexdigest()
    assert value["subject"] == [{"name": "student", "digest": {"sha256": together}}]
    assert value["predicate"]["serialization"]["allow_symlinks"] is False


def test_the_model_signature_of_somebody_else_does_not_hold() -> None:
    with pytest.raises(InvalidSignature):
        checked_bundle(model_signature("student", FILES, ADA), new_signer().p256_public)


def test_a_sealed_run_has_both_signatures_over_the_files_that_are_there(record: Record) -> None:
    public, student = record.run / "provenance", record.run / "student"
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in student.iterdir()}
    value = checked_bundle((public / "model.sig").read_bytes(), (public / "model.pub").read_bytes())
    assert {one["name"]: one["digest"] for one in value["predicate"]["resources"]} == files
    stated = json.loads((public / "statement.json").read_bytes())
    assert {one["name"]: one["digest"]["sha256"] for one in stated["subject"]} == files
    sealed = json.loads((public / "statement.dsse.json").read_bytes())
    assert base64.b64decode(sealed["payload"]) + b"\n" == (public / "statement.json").read_bytes()


def test_nothing_public_is_private(record: Record) -> None:
    """No answer, no question, no run key, and no digest of one of them alone, lies in the public folder."""
    lines = (record.run / "store" / "000001.seg").read_bytes().splitlines()
    stored = [line.split(b" ", 2) for line in lines]
    secret = {digest[7:] for digest, _, _ in stored} | {record.key.hex().encode(), b"question 1", b'"maybe"'}
    secret |= {json.loads(text)["digest"][7:].encode() for _, kind, text in stored if kind == b"body"}
    for path in (record.run / "provenance").rglob("*"):
        if path.is_file() and path.name != "verify.py":
            data = path.read_bytes()
            assert not [one for one in secret if one in data], path


@pytest.fixture
def bundle(record: Record) -> Path:
    return record.run / "provenance" / "model.sig"


def test_signing_again_makes_no_second_model_signature(record: Record, bundle: Path, tmp_path: Path) -> None:
    """ECDSA draws at random: the bundle is kept as long as it is about the same files, so the record stays as it is."""
    import shutil

    from tutelage.pipeline.run import Run
    from tutelage.pipeline.sealing import publish
    from tutelage.progress import Quiet, Stop

    shutil.copytree(record.run, tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run" / "provenance").rglob("*") if path.is_file()}
    with Run(tmp_path / "run", Quiet(), Stop(), record.signer) as run:
        publish(run.folder, run.log, record.signer)
    assert before == {
        path: path.read_bytes() for path in (tmp_path / "run" / "provenance").rglob("*") if path.is_file()
    }
