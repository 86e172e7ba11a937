"""`tutelage serve`: a run's student behind an OpenAI-compatible endpoint."""

from pathlib import Path


def serve(
    run: Path, *, host: str = "127.0.0.1", port: int = 8000, api_key_env: str | None = None, name: str | None = None
) -> int:
    """Answer the OpenAI API with a run's student: /v1/chat/completions, /v1/completions (scores texts), /v1/models, /health.

    Parameters
    ----------
    run
        A run folder, or a model folder.
    host
        Address to listen on; anything but loopback needs an API key.
    port
        Port to listen on.
    api_key_env
        Name of the environment variable that holds the API key clients must send.
    name
        Model name to answer to, beside "student" (default: the folder's name).
    """
    import os

    from tutelage.errors import ConfigError
    from tutelage.serve.app import serve as listen

    folder = run / "student" if (run / "student").is_dir() else run
    if not (folder / "config.json").exists():
        raise ConfigError(f"{run} holds no student", fix="give a run folder that finished, or a model folder")
    key = None
    if api_key_env is not None:
        key = os.environ.get(api_key_env)
        if not key:
            raise ConfigError(f"the environment variable {api_key_env} is not set", fix="export it with the key")
    listen(
        folder,
        host=host,
        port=port,
        api_key=key,
        names=(name or run.resolve().name, "student"),
        on_listening=lambda real: print(f"serving {folder} on http://{host}:{real}/v1", flush=True),
    )
    return 0
