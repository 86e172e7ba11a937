"""Which batch API an endpoint has."""

from tutelage.errors import ConfigError
from tutelage.models.base import Endpoint
from tutelage.models.batches.base import BatchModel


def open_batches(endpoint: Endpoint) -> BatchModel:
    """The batch API of an endpoint; nothing is connected yet. Raises `ConfigError` for an API that has none."""
    if endpoint.api == "openai":
        from tutelage.models.batches.openai import OpenAIBatches

        return OpenAIBatches(endpoint)
    if endpoint.api == "anthropic":
        from tutelage.models.batches.anthropic import AnthropicBatches

        return AnthropicBatches(endpoint)
    if endpoint.api == "gemini":
        from tutelage.models.batches.gemini import GeminiBatches

        return GeminiBatches(endpoint)
    raise ConfigError(f"no batch API is known for teacher.api = {endpoint.api!r}", fix="set teacher.batch = false")
