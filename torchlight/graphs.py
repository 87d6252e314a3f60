"""A training step's passes as CUDA graphs.

A small batch leaves a GPU waiting for the next of some thousand small kernels to be launched. A
graph launches them all at once, as they were in the one step it was captured from.
"""

import torch
from torch import nn

from .parallel import buffers_kept


def capture(
    model: nn.Module, inputs: torch.Tensor, dtype: torch.dtype | None, *, accumulates: bool
) -> None:
    """Have ``model`` replay its passes in training mode, for batches shaped like ``inputs``.

    Evaluation is as before. Parameters and buffers keep their values and must stay where they are:
    they may be written to, never replaced.

    Args:
        model: on the GPU.
        inputs: a batch there.
        dtype: of autocast, None for none.
        accumulates: a step sums the gradients of several batches.

    Raises:
        RuntimeError: the passes wait for the GPU, say to look at a value.
    """
    # Gradients are taken over on the stream of the capture, which the engine waits for.
    torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
    precision = torch.autocast("cuda", dtype, enabled=dtype is not None, cache_enabled=False)
    with buffers_kept(model), precision:
        torch.cuda.make_graphed_callables(model.train(), (inputs,), allow_unused_input=True)
    if accumulates:
        # A graph writes its gradients to the same place each time: over those of the batch before.
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.register_hook(torch.clone)
