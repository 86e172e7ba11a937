"""The student's vocabulary as bytes: the common currency between tokenizers."""

from typing import Any

from tutelage.models.tokens import TokenBytes


def token_ids_by_bytes(tokenizer: Any) -> dict[bytes, int]:
    """Student id of each ordinary token by its bytes; special tokens are left out.

    A byte token (`<0x41>`) gives way to the token whose text that byte is: texts are split into byte tokens only where there
    is no other. Bytes that still belong to several tokens are left out: which one is meant cannot be told. Raises
    `ResourceError` when the tokenizer is not a fast one.
    """
    spelled = TokenBytes(tokenizer)
    special = set(tokenizer.all_special_ids)
    plain: dict[bytes, list[int]] = {}
    single: dict[bytes, list[int]] = {}
    for name, at in tokenizer.get_vocab().items():
        if at not in special:
            of_a_byte = name.startswith("<0x") and spelled[at] != name.encode()
            (single if of_a_byte else plain).setdefault(spelled[at], []).append(at)
    return {data: ids[0] for data, ids in (single | plain).items() if len(ids) == 1}
