"""Tokenizers that spell texts differently: bytes, a small byte-level BPE, and one that puts a space before the text."""

from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tests.models.tiny import CORPUS, TEMPLATE

OTHER_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ '<turn>' + m['role'] + '\n' + m['content'] + '</turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<turn>assistant\n' }}{% endif %}"
)
WORDS = "The cat sat on the mat; naïve cafés cost 12 €, 日本 🙂, and a \t tab\n\nthere. Boxes hold 12 × 7 = 84 apples."


def byte_tokenizer() -> Any:
    """A token a byte, and the end of a turn."""
    inner = Tokenizer(
        models.BPE(vocab={char: at for at, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, merges=[])
    )
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    return _fast(inner, TEMPLATE, eos_token="<|im_end|>", additional_special_tokens=["<|im_start|>"])


def small_bpe(size: int = 400, split: bool = True) -> Any:
    """Trained on a few sentences; another template than the byte tokenizer's. Without `split`, merges cross spaces."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False, initial_alphabet=alphabet)
    inner.train_from_iterator([*CORPUS, WORDS] * 4, trainer)
    return _fast(
        inner, OTHER_TEMPLATE, bos_token="<bos>", eos_token="<eos>", additional_special_tokens=["<turn>", "</turn>"]
    )


def metaspace(lowercase: bool = False) -> Any:
    """SentencePiece's kind: a space before the text, bytes for unknown characters; with `lowercase` it changes the text."""
    pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    letters = sorted(
        {char for char in "".join(CORPUS) + WORDS if char.isascii() and char.isprintable() and char != " "}
    )
    vocabulary = {piece: at for at, piece in enumerate(["<unk>", *pieces, "▁", *letters, "▁t", "▁th", "▁the"])}
    merges = [("▁", "t"), ("▁t", "h"), ("▁th", "e")]
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    steps = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    inner.normalizer = normalizers.Sequence([*([normalizers.Lowercase()] if lowercase else []), *steps])
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return _fast(inner, OTHER_TEMPLATE, bos_token="<bos>", eos_token="</turn>", additional_special_tokens=["<turn>"])


def _fast(inner: Tokenizer, template: str, **named: Any) -> Any:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token=named["eos_token"], **named)
    tokenizer.chat_template = template
    return tokenizer
