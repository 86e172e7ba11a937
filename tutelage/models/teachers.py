"""Which dialect an endpoint speaks, and plug-ins for those that speak none of ours.

A plug-in is an entry point of the group `tutelage.teachers`: its name is the `teacher.api` of run files, its object a
callable `(endpoint, connections) -> Model`.
"""

from importlib.metadata import entry_points
from urllib.parse import urlsplit

from tutelage.errors import ConfigError
from tutelage.models.base import Dialect, Endpoint, Model
from tutelage.models.http import HttpModel

PLUG_INS = "tutelage.teachers"
BUILT_IN = ("openai", "anthropic", "gemini")


def api_of(url: str) -> str:
    """The dialect of a host whose own it is known to be; "openai" for all others."""
    parts = urlsplit(url)
    host = (parts.hostname or "").casefold()
    if host == "api.anthropic.com":
        return "anthropic"
    if host == "generativelanguage.googleapis.com" and "/openai" not in parts.path:
        return "gemini"
    return "openai"


def dialect_of(api: str) -> Dialect:
    """One of the built-in dialects."""
    if api == "anthropic":
        from tutelage.models.anthropic import AnthropicDialect

        return AnthropicDialect()
    if api == "gemini":
        from tutelage.models.gemini import GeminiDialect

        return GeminiDialect()
    from tutelage.models.openai import OpenAIDialect

    return OpenAIDialect()


def open_model(endpoint: Endpoint, connections: int) -> Model:
    """The model at an endpoint; nothing is connected yet. Raises `ConfigError` for an API that nobody here speaks."""
    if endpoint.api in BUILT_IN:
        return HttpModel(endpoint, dialect_of(endpoint.api), connections)
    found = entry_points(group=PLUG_INS)
    for plug_in in found:
        if plug_in.name == endpoint.api:
            return plug_in.load()(endpoint, connections)
    known = ", ".join([*BUILT_IN, *sorted(found.names)])
    raise ConfigError(f"teacher.api = {endpoint.api!r} is not known", fix=f"one of: {known}; or install its plug-in")
