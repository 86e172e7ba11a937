"""What the bits of a trained weight depend on besides configuration and data: two machines that agree here can be compared
bit for bit, others cannot. torch promises no more (its notes on reproducibility): kernels differ between builds, instruction
sets and thread counts, and so does the order in which floats are added."""

import torch
import transformers

from tutelage.canon import digest_bytes
from tutelage.hardware import cpu_flags, cpu_name, has_native_bf16

VECTORS = ("sse", "avx", "fma", "amx", "asimd", "sve", "bf16", "i8mm")  # how flags begin that choose kernels


def uses_bf16(choice: str, device: str = "cpu") -> bool:
    """bf16 where the device multiplies it natively (measured 2-3 times faster on CPUs that do), or when it is asked for."""
    native = torch.cuda.is_bf16_supported(including_emulation=False) if device == "cuda" else has_native_bf16()
    return choice == "bfloat16" or (choice == "auto" and native)


def numerics(choice: str) -> dict[str, str]:
    """The facts that replay is bound to; `choice` is `train.precision`."""
    build = [line for line in torch.__config__.show().splitlines() if "CPU capability" not in line]
    return {
        "torch": torch.__version__,
        "wheel": digest_bytes("\n".join(build).encode()),  # compiler, flags, math libraries, commit
        "transformers": transformers.__version__,
        "threads": str(torch.get_num_threads()),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "cpu": cpu_name(),
        "instructions": " ".join(sorted(flag for flag in cpu_flags() if flag.startswith(VECTORS))),
        "precision": "bfloat16" if uses_bf16(choice) else "float32",
    }
