"""`tutelage key`: make, list, rotate and revoke the keys that records are signed with. Offline; private keys stay put."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tutelage.ledger.keys import Signer


def new(name: str) -> int:
    """Make a key and keep it in your key folder; runs are signed with the first one from then on.

    Parameters
    ----------
    name
        Who signs, for instance example.org/ada; it is public and stands in every record.
    """
    from tutelage.ledger.keys import new_key

    _print_public(name, new_key(name))
    return 0


def use(name: str) -> int:
    """Make a key the one that runs are signed with.

    Parameters
    ----------
    name
        The key's name.
    """
    from tutelage.ledger.keys import use_key

    print(f"runs are signed with {use_key(name).verification_key}")
    return 0


def list_keys() -> int:
    """The keys in your key folder; the one that runs are signed with is marked."""
    from tutelage.ledger.keys import default_name, key_folder, known_keys

    keys = known_keys()
    for name, verification_key, usable in keys:
        mark = "*" if name == default_name() else " "
        print(f"{mark} {verification_key}" + ("" if usable else "  (revoked)"))
    if not keys:
        print(f"no key in {key_folder()}; make one with: tutelage key new NAME")
    return 0


def rotate(name: str) -> int:
    """Replace a key by a new one under the same name; both sign the handing over, the old private key is destroyed.

    Parameters
    ----------
    name
        The key's name.
    """
    from tutelage.ledger.keys import history_path, rotate_key

    _print_public(name, rotate_key(name))
    print(f"publish the history beside it: {history_path(name)}")
    return 0


def revoke(name: str, *, reason: str) -> int:
    """Declare, signed by the key itself, that it counts no more; its private half is destroyed.

    Parameters
    ----------
    name
        The key's name.
    reason
        Why; it is public.
    """
    from tutelage.ledger.keys import history_path, revoke_key

    revoke_key(name, reason)
    print(f"revoked; publish the history: {history_path(name)}")
    return 0


def _print_public(name: str, signer: "Signer") -> None:
    from tutelage.ledger.keys import public_files

    signs, cosigns = public_files(name)
    print(f"hand this out, so that others can check what you sign ({signs}):\n{signer.verification_key}")
    print(f"and this, when you cosign as a witness ({cosigns}):\n{signer.witness_key}")
