"""What a planted mistake is, and where the tests are that have to notice it."""

from typing import NamedTuple


class Mutant(NamedTuple):
    """`old` stands once in `file` (below tutelage/) and becomes `new`; then `test` must fail. `trap` as in docs/traps.md."""

    trap: str
    file: str
    old: str
    new: str
    test: str


TRAPS = "tests/traps/test_traps.py::test_trap_"
TEXT = "tests/traps/test_traps_text.py::test_trap_"
SIGNAL = "tests/traps/test_traps_signal.py::test_trap_"
EXACT = "tests/losses/test_exact.py::test_trap_"
SAMPLED = "tests/losses/test_sampled.py::test_trap_"
TOP_K = "tests/losses/test_topk.py::test_trap_"
TRAIN = "tests/train/test_training.py::test_trap"
ENGINE = "tests/train/test_engine.py::test_trap_"
OFF = "tests/train/test_offpolicy.py::test_trap"
ON = "tests/train/test_onpolicy.py::test_trap_"
ROLLOUT = "tests/train/test_rollout.py::test_trap"
LOCAL = "tests/train/test_rollout_local.py::test_trap_"
LLAMACPP = "tests/train/test_rollout_llamacpp.py::test_trap"
SERVER = "tests/train/test_rollout_server.py::test_trap"
STUDENTS = "tests/train/test_students.py::test_trap"
STORE = "tests/store/test_signals.py::test_trap_"
CODEC = "tests/store/test_signal_codec.py::test_trap_"
KIT = "tests/store/test_signal_distillkit.py::test_trap_"
