"""The student's vocabulary as bytes: the common currency between tokenizers."""

from typing import Any

from tutelage.models.tokens import TokenBytes


def token_ids_by_bytes(tokenizer: Any) -> dict[bytes, int]:
    """Student id of each ordinary token by its bytes; special tokens are left out.

    Raises `ResourceError` when the tokenizer is not a fast one.
    """
    spelled = TokenBytes(tokenizer)
    special = set(tokenizer.all_special_ids)
    return {spelled[at]: at for at in tokenizer.get_vocab().values() if at not in special}
