"""Memory that runs out: how torch, CUDA and Python say so, and what can be given back at once."""

from __future__ import annotations

import gc
import re

from ...foundation.text import one_line

OUT_OF_MEMORY = re.compile(
    r"out of memory|can't allocate memory|cannot allocate memory|STATUS_ALLOC_FAILED|cudaErrorMemoryAllocation",
    re.IGNORECASE,
)
"""What errors say that have no type of their own: those of the processor's allocator, cuBLAS, cuDNN and NCCL."""
ADVICE = re.compile(
    r"\s*(If reserved but unallocated memory|See documentation|CUDA kernel errors might|Compile with).*"
)


def ran_out_of_memory(error: BaseException) -> bool:
    """Tell whether `error`, or what caused it, means that the GPU or the machine has no more memory to give."""
    return any(_says_so(each) for each in _causes(error))


def shortage_text(error: BaseException) -> str:
    """Return what `error` says of the memory that was asked for and held, as one line, without advice for programmers."""
    words = next((str(each) for each in _causes(error) if str(each)), "")
    text = ADVICE.sub("", one_line(words, 2000))
    text = re.sub(r"^\[[^\]]*\] |^(CUDA|HIP) out of memory\. ", "", text)
    return one_line(text, 400)


def free_cached_memory() -> None:
    """Give back what torch's allocator holds but nothing uses."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _causes(error: BaseException) -> list[BaseException]:
    """Return `error` and what it was raised from, first of all what says that memory ran out."""
    chain: list[BaseException] = []
    each: BaseException | None = error
    while each is not None and each not in chain:
        chain.append(each)
        each = each.__cause__ or each.__context__
    return sorted(chain, key=lambda link: not _says_so(link))


def _says_so(error: BaseException) -> bool:
    import torch

    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, (RuntimeError, OSError)) and OUT_OF_MEMORY.search(str(error)) is not None
