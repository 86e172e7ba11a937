"""Whose model a name says it is: a judge of the teacher's or the student's family may favour its own.

Panickssery, Bowman & Feng (2024), arXiv:2404.13076: judges recognise their own text and prefer it, the more the better they
recognise it. A student distilled from the judge's family speaks like it too.
"""

import re
from collections.abc import Container, Mapping
from typing import NamedTuple

# What a name must hold, at the start of a word, to be of a family. A name can hold several: a distilled model has two.
_FAMILIES: Mapping[str, tuple[str, ...]] = {
    "OpenAI": ("gpt", "chatgpt", "o1", "o3", "o4", "davinci"),
    "Claude": ("claude",),
    "Gemini and Gemma": ("gemini", "gemma", "codegemma", "palm"),
    "Llama": ("llama", "codellama", "tinyllama", "vicuna", "alpaca"),
    "Qwen": ("qwen", "qwq", "qvq"),
    "Mistral": ("mistral", "mixtral", "ministral", "magistral", "codestral", "devstral", "pixtral"),
    "DeepSeek": ("deepseek",),
    "Phi": ("phi",),
    "Command": ("command", "aya"),
    "Grok": ("grok",),
    "Yi": ("yi",),
    "GLM": ("glm", "chatglm"),
    "Kimi": ("kimi", "moonshot"),
    "Nova": ("nova", "titan"),
    "Nemotron": ("nemotron",),
    "OLMo": ("olmo", "tulu"),
    "Granite": ("granite",),
    "SmolLM": ("smollm",),
    "Falcon": ("falcon",),
    "InternLM": ("internlm",),
    "MiniMax": ("minimax",),
    "Hunyuan": ("hunyuan",),
    "ERNIE": ("ernie",),
    "Jamba": ("jamba",),
    "Pythia": ("pythia",),
}
_PATTERNS = {
    family: re.compile(r"(?<![a-z0-9])(?:" + "|".join(words) + r")(?:$|[^a-z])") for family, words in _FAMILIES.items()
}


class Kin(NamedTuple):
    """The families that a judge's model is of, and warnings in words (`self_preference`)."""

    families: frozenset[str]
    warnings: tuple[str, ...]


def families_of(model: str) -> frozenset[str]:
    """The families that a model's name tells, by its words; none when it tells nothing. A name is a claim, no proof."""
    name = model.lower()
    return frozenset(family for family, pattern in _PATTERNS.items() if pattern.search(name))


def self_preference(judge: str, others: Mapping[str, str], itself: Container[str] | None = None) -> tuple[str, ...]:
    """A warning, in words, for each of `others` (role → model name) that the judge may favour as kin, or cannot be told from.

    `itself`: the roles that are the judge's own model (default: those of its name). Empty when every name tells a family and
    none is the judge's.
    """
    said = []
    own = families_of(judge)
    for role, name in others.items():
        shared = sorted(own & families_of(name))
        if role in itself if itself is not None else judge.strip().lower() == name.strip().lower():
            said.append(f"the judge is the {role} itself ({name}): it may prefer its own answers")
        elif shared:
            said.append(f"judge and {role} are of one family ({', '.join(shared)}): it may prefer answers like its own")
        elif not own or not families_of(name):
            unknown = judge if not own else name
            said.append(
                f"the family of {unknown!r} is not known: whether the judge is kin to the {role} cannot be told"
            )
    return tuple(said)
