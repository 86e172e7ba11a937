"""All mistakes, in the order of docs/traps.md."""

from tests.mutants.teaching import TEACHING
from tests.mutants.training import TRAINING

PLANTED = TRAINING + TEACHING
