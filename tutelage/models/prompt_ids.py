"""A conversation as token ids, the way its model reads it: for a server that is sent ids instead of messages. No torch.

Prompt and answer are split into tokens apart from each other, as they are when a model writes: a prompt's last token never joins
an answer's first.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from tutelage.errors import ConfigError, DataError, ResourceError
from tutelage.models.quiet import quiet_transformers
from tutelage.models.scores import Spelling
from tutelage.models.tokens import TokenBytes
from tutelage.records import Message

_MARK = "MARK"


class PromptIds:
    """Tokenizer and chat template of a folder. `end`: the token that the template puts after an answer, or None."""

    def __init__(self, folder: Path) -> None:
        """Raises `ConfigError` without transformers, `ResourceError` for a folder without a fast tokenizer or a template."""
        try:
            from transformers import AutoTokenizer
        except ImportError as error:
            raise ConfigError("tokenizers are read by transformers", fix='pip install "tutelage[train]"') from error
        try:
            with quiet_transformers():
                found: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError, KeyError) as error:
            raise ResourceError(
                f"{folder} has no tokenizer: {error}", fix="give a folder with tokenizer.json and its configuration"
            ) from error
        if not found.chat_template:
            raise ResourceError(f"{folder} has no chat template", fix="add chat_template.jinja to the folder")
        self._tokenizer, self._folder = found, folder
        self.spelled = tuple(TokenBytes(found)[token] for token in range(len(found)))
        self.spelling = Spelling(self.spelled)
        self.end = self._end()
        self.identity = [found.backend_tokenizer.to_str(), found.chat_template]

    def given(self, messages: Sequence[Message], tools: str = "") -> tuple[int, ...]:
        """Ids of the prompt, ready for the answer. Raises `DataError` for messages that the template refuses."""
        return tuple(self.answer(self._rendered([one.to_json() for one in messages], tools, answers=True)))

    def answer(self, text: str) -> tuple[int, ...]:
        """Ids of a text that stands by itself."""
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _end(self) -> int | None:
        turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": _MARK}]
        try:
            _, mark, after = self._rendered(turns, "", answers=False).rpartition(_MARK)
        except DataError:  # a template that takes no answers ends none
            return None
        return next(iter(self.answer(after)), None) if mark else None

    def _rendered(self, turns: list[dict[str, Any]], tools: str, *, answers: bool) -> str:
        more = {"tools": json.loads(tools)} if tools else {}
        try:
            return self._tokenizer.apply_chat_template(turns, add_generation_prompt=answers, tokenize=False, **more)
        except (TemplateError, TypeError, KeyError) as error:
            raise DataError(
                f"the chat template of {self._folder.name} refuses these messages: {error}", fix="change their roles"
            ) from error
