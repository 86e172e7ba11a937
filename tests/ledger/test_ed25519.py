"""Ed25519 of the verifier: the vectors of RFC 8032 section 7.1, agreement with `cryptography`, and what a lax verifier takes."""

import hashlib

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.ledger import verify
from tutelage.ledger.verify import ed25519_verify

LONG = (
    "08b8b2b733424243760fe426a4b54908632110a66c2f6591eabd3345e3e4eb98fa6e264bf09efe12ee50f8f54e9f77b1e355"
    "f6c50544e23fb1433ddf73be84d879de7c0046dc4996d9e773f4bc9efe5738829adb26c81b37c93a1b270b20329d658675fc"
    "6ea534e0810a4432826bf58c941efb65d57a338bbd2e26640f89ffbc1a858efcb8550ee3a5e1998bd177e93a7363c344fe6b"
    "199ee5d02e82d522c4feba15452f80288a821a579116ec6dad2b3b310da903401aa62100ab5d1a36553e06203b33890cc9b8"
    "32f79ef80560ccb9a39ce767967ed628c6ad573cb116dbefefd75499da96bd68a8a97b928a8bbc103b6621fcde2beca1231d"
    "206be6cd9ec7aff6f6c94fcd7204ed3455c68c83f4a41da4af2b74ef5c53f1d8ac70bdcb7ed185ce81bd84359d44254d9562"
    "9e9855a94a7c1958d1f8ada5d0532ed8a5aa3fb2d17ba70eb6248e594e1a2297acbbb39d502f1a8c6eb6f1ce22b3de1a1f40"
    "cc24554119a831a9aad6079cad88425de6bde1a9187ebb6092cf67bf2b13fd65f27088d78b7e883c8759d2c4f5c65adb7553"
    "878ad575f9fad878e80a0c9ba63bcbcc2732e69485bbc9c90bfbd62481d9089beccf80cfe2df16a2cf65bd92dd597b0707e0"
    "917af48bbb75fed413d238f5555a7a569d80c3414a8d0859dc65a46128bab27af87a71314f318c782b23ebfe808b82b0ce26"
    "401d2e22f04d83d1255dc51addd3b75a2b1ae0784504df543af8969be3ea7082ff7fc9888c144da2af58429ec96031dbcad3"
    "dad9af0dcbaaaf268cb8fcffead94f3c7ca495e056a9b47acdb751fb73e666c6c655ade8297297d07ad1ba5e43f1bca32301"
    "651339e22904cc8c42f58c30c04aafdb038dda0847dd988dcda6f3bfd15c4b4c4525004aa06eeff8ca61783aacec57fb3d1f"
    "92b0fe2fd1a85f6724517b65e614ad6808d6f6ee34dff7310fdc82aebfd904b01e1dc54b2927094b2db68d6f903b68401ade"
    "bf5a7e08d78ff4ef5d63653a65040cf9bfd4aca7984a74d37145986780fc0b16ac451649de6188a7dbdf191f64b5fc5e2ab4"
    "7b57f7f7276cd419c17a3ca8e1b939ae49e488acba6b965610b5480109c8b17b80e1b7b750dfc7598d5d5011fd2dcc5600a3"
    "2ef5b52a1ecc820e308aa342721aac0943bf6686b64b2579376504ccc493d97e6aed3fb0f9cd71a43dd497f01f17c0e2cb37"
    "97aa2a2f256656168e6c496afc5fb93246f6b1116398a346f1a641f3b041e989f7914f90cc2c7fff357876e506b50d334ba7"
    "7c225bc307ba537152f3f1610e4eafe595f6d9d90d11faa933a15ef1369546868a7f3a45a96768d40fd9d03412c091c6315c"
    "f4fde7cb68606937380db2eaaa707b4c4185c32eddcdd306705e4dc1ffc872eeee475a64dfac86aba41c0618983f8741c5ef"
    "68d3a101e8a3b8cac60c905c15fc910840b94c00a0b9d0"
)
# Public key, message, signature.
VECTORS = {
    "1": (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    "2": (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    "3": (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025", "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
    "1024": (
        "278117fc144c72340f67d0f2316e8386ceffbf2b2428c9c51fef7c597f1d426e", LONG,
        "0aab4c900501b3e24d7cdf4663326a3a87df5e4843b2cbdb67cbf6e460fec350aa5371b1508f9f4528ecea23c436d94b5e8fcd4f681e30a6ac00a9704a188a03",
    ),
    "SHA(abc)": (
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf", hashlib.sha512(b"abc").hexdigest(),
        "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704",
    ),
}  # fmt: skip
ORDER = 2**252 + 27742317777372353535851937790883648493
P = 2**255 - 19
IDENTITY = (0, 1, 1, 0)


def encoded(y: int, sign: int = 0) -> bytes:
    return (y | sign << 255).to_bytes(32, "little")


# Every point of small order that has a canonical encoding, by order 1, 2, 4, 4, 8, 8, 8, 8.
Y8 = int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little")
SMALL = [
    encoded(1), encoded(P - 1), encoded(0), encoded(0, 1), encoded(Y8), encoded(Y8, 1), encoded(P - Y8),
    encoded(P - Y8, 1),
]  # fmt: skip
NON_CANONICAL = [
    encoded(P), encoded(P + 1), encoded(P, 1), encoded(P + 1, 1), encoded(2**255 - 1),  # y not below p
    encoded(1, 1), encoded(P - 1, 1),  # x = 0 with the sign bit set
]  # fmt: skip


def theirs(public: bytes, message: bytes, signature: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def scalar_of(key: Ed25519PrivateKey) -> int:
    """RFC 8032 section 5.1.5, steps 1 to 3."""
    half = bytearray(hashlib.sha512(key.private_bytes_raw()).digest()[:32])
    half[0] &= 248
    half[31] = half[31] & 127 | 64
    return int.from_bytes(half, "little")


@pytest.mark.parametrize("name", VECTORS)
def test_vectors_of_rfc_8032(name: str) -> None:
    public, message, signature = (bytes.fromhex(text) for text in VECTORS[name])
    assert ed25519_verify(public, message, signature)
    assert not ed25519_verify(public, message + b"\x00", signature)
    assert name != "1024" or len(message) == 1023


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=300))
@settings(max_examples=25, deadline=None)
def test_what_cryptography_signs_is_accepted(seed: bytes, message: bytes) -> None:
    key = Ed25519PrivateKey.from_private_bytes(seed)
    assert ed25519_verify(key.public_key().public_bytes_raw(), message, key.sign(message))


@given(st.binary(min_size=32, max_size=32), st.integers(0, 96 * 8 - 1))
@settings(max_examples=80, deadline=None)
def test_one_bit_anywhere_is_refused_as_cryptography_does(seed: bytes, bit: int) -> None:
    key = Ed25519PrivateKey.from_private_bytes(seed)
    together = bytearray(key.public_key().public_bytes_raw() + key.sign(b"message"))
    together[bit // 8] ^= 1 << bit % 8
    public, signature = bytes(together[:32]), bytes(together[32:])
    assert not theirs(public, b"message", signature)
    assert not ed25519_verify(public, b"message", signature)


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=64, max_size=64))
@settings(max_examples=40, deadline=None)
def test_random_keys_and_signatures_are_never_accepted(public: bytes, signature: bytes) -> None:
    assert not ed25519_verify(public, b"", signature)


@pytest.mark.parametrize("times", [1, 2, 7])
def test_s_plus_multiples_of_the_order_is_refused(times: int) -> None:
    """RFC 8032 section 5.1.7, step 1: S in 0 … L − 1; otherwise a signature has a second form."""
    public, message, signature = (bytes.fromhex(text) for text in VECTORS["2"])
    second = int.from_bytes(signature[32:], "little") + times * ORDER
    assert not ed25519_verify(public, message, signature[:32] + second.to_bytes(32, "little"))


def test_the_points_of_small_order_are_those() -> None:
    for data in SMALL:
        point = verify._decoded(data)
        assert point is not None
        assert verify._encoded(verify._times(8, point)) == verify._encoded(IDENTITY)
    assert len({*SMALL}) == 8


@pytest.mark.parametrize("public", SMALL, ids=bytes.hex)
def test_keys_of_small_order_are_refused(public: bytes) -> None:
    """Under such a key one signature holds for many messages: here every message in eight, and it must hold for none."""
    tried = 0
    for number in range(16):
        message = bytes([number])
        for first in (SMALL[0], public):
            signature = first + bytes(32)
            challenge = int.from_bytes(hashlib.sha512(first + public + message).digest(), "little")
            key, start = verify._decoded(public), verify._decoded(first)
            assert key is not None
            assert start is not None
            holds = verify._encoded(verify._add(start, verify._times(challenge, key))) == verify._encoded(IDENTITY)
            tried += holds
            assert not ed25519_verify(public, message, signature)
    assert tried, "the equation held for some of them"


@pytest.mark.parametrize("first", SMALL, ids=bytes.hex)
def test_signatures_with_r_of_small_order_are_refused(first: bytes) -> None:
    """Only the holder of the key can make one; it is refused so that whether one holds is no matter of the verifier."""
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    public, secret = key.public_key().public_bytes_raw(), scalar_of(key)
    challenge = int.from_bytes(hashlib.sha512(first + public + b"m").digest(), "little") % ORDER
    signature = first + (challenge * secret % ORDER).to_bytes(32, "little")
    if first == SMALL[0]:
        assert theirs(public, b"m", signature), "it satisfies the equation"
    assert not ed25519_verify(public, b"m", signature)


@pytest.mark.parametrize("data", NON_CANONICAL, ids=bytes.hex)
def test_encodings_that_are_not_canonical_are_refused(data: bytes) -> None:
    assert verify._decoded(data) is None
    assert not ed25519_verify(data, b"", SMALL[0] + bytes(32))
    public, message, signature = (bytes.fromhex(text) for text in VECTORS["1"])
    assert not ed25519_verify(public, message, data + signature[32:])


def test_a_y_that_is_on_no_point_is_refused() -> None:
    assert verify._decoded(encoded(2)) is None
    assert not ed25519_verify(encoded(2), b"", bytes(64))


@pytest.mark.parametrize("cut", [0, 31, 33, 64])
def test_wrong_lengths_are_refused(cut: int) -> None:
    public, message, signature = (bytes.fromhex(text) for text in VECTORS["1"])
    longer = (signature + bytes(64))[: cut if cut != 64 else 65]
    assert not ed25519_verify(public, message, longer)
    assert not ed25519_verify((public + bytes(32))[: cut if cut != 64 else 0], message, signature)
