"""The GPU script: that it runs, and needs nothing but torch and transformers."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ABSENT = ("pydantic", "aiohttp", "orjson", "scipy", "peft", "jsonschema_rs", "cryptography", "psutil")


def test_it_runs_with_torch_and_transformers_alone() -> None:
    """Everything else that we depend on is made to be missing."""
    program = f"import sys, runpy\nfor name in {ABSENT!r}: sys.modules[name] = None\n"
    program += "sys.argv = ['train.py', '--tiny']\nrunpy.run_path('benchmarks/gpu/train.py', run_name='__main__')\n"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    for loss in ("forward-kl", "reverse-kl", "jsd"):
        assert found["kernel"][loss]["gradient_off"] < 1e-5
    assert found["mfu"]["tokens_per_s"] > 0
    assert 0 < found["onpolicy"]["rollout_time_share"] < 1
