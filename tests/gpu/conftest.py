"""Where these tests run: on the first CUDA device, or where ``GPU_TESTS_ON`` says.

``GPU_TESTS_ON=cpu pytest tests/gpu`` shows without a card that the tests themselves are right.
"""

import os

import pytest
import torch

PLACE = os.environ.get("GPU_TESTS_ON", "cuda")


@pytest.fixture(scope="session")
def device() -> str:
    """``cuda``, or where the tests are tried out; skipped where there is no such device."""
    if PLACE == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    return PLACE


@pytest.fixture(autouse=True)
def exact_products():
    """Products in float32 without TF32."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
