"""The arithmetic that all runs share: one thread a task, and the instruction set that today's x86 processors have in common."""

from __future__ import annotations

import os
import platform

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")

# Other kernels sum in another order: the last bit of a weight would tell the processor apart.
INSTRUCTION_SETS = {"MKL_CBWR": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "OPENBLAS_CORETYPE": "Haswell"}

# What a tool would send about its use, or look up on the network.
QUIET = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "ITERATIVE_DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "CUDA_VISIBLE_DEVICES": "",
}


def fix_processor() -> None:
    """Set thread counts, instruction sets and silence for this process and its children; call before NumPy is imported."""
    os.environ.update(dict.fromkeys(THREADS, "1"))
    os.environ.update(QUIET)
    if platform.machine() in ("x86_64", "AMD64"):
        os.environ.update(INSTRUCTION_SETS)
