"""`tutelage doctor`: what this machine has for the work, and what is missing."""


def doctor(*, json: bool = False) -> int:
    """Check Python, packages, CPU, memory, disk and the cache. Exit code 1 when something needed is missing.

    Parameters
    ----------
    json
        Print one JSON object.
    """
    import shutil
    import sys
    from importlib.metadata import PackageNotFoundError, version
    from pathlib import Path

    import psutil

    from tutelage.cli.output import print_json
    from tutelage.hardware import describe, has_native_bf16
    from tutelage.resources import RESOURCES, cache_folder

    rows: list[tuple[str, str, str]] = []  # state, what, detail
    rows.append(("ok" if sys.version_info >= (3, 11) else "missing", "python", sys.version.split()[0]))
    for package, extra in (
        ("xllamacpp", "local"),
        ("torch", "train"),
        ("transformers", "train"),
        ("safetensors", "train"),
    ):
        try:
            rows.append(("ok", package, version(package)))
        except PackageNotFoundError:
            rows.append(("missing", package, f"pip install 'tutelage[{extra}]'"))
    for name, value in describe().items():
        rows.append(("ok", name, value))
    rows.append(("ok" if has_native_bf16() else "note", "bf16", "trains 2-3 times faster when native"))
    free_memory = psutil.virtual_memory().available
    rows.append(
        ("ok" if free_memory > 4e9 else "note", "memory free", f"{free_memory / 1e9:.1f} GB (the demo needs 3)")
    )
    free_disk = shutil.disk_usage(Path.cwd()).free
    rows.append(("ok" if free_disk > 3e9 else "note", "disk free here", f"{free_disk / 1e9:.1f} GB (the demo needs 2)"))
    for item in RESOURCES.values():
        there = item.path_in(cache_folder()).exists()
        rows.append(("ok" if there else "note", item.name, "in the cache" if there else "will be fetched once"))
    if json:
        print_json({"rows": [{"state": state, "what": what, "detail": detail} for state, what, detail in rows]})
    else:
        for state, what, detail in rows:
            print(f"{state:8} {what:24} {detail}")
    return 1 if any(state == "missing" for state, _, _ in rows) else 0
