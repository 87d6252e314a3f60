"""Samples shared out to threads: one thread and its caller's modes for each, shares in order."""

import pytest
import torch

from model import threads
from model.threads import batch_slices, map_shares

CPU = torch.device("cpu")


@pytest.fixture
def two_threads():
    """Work on two threads, new ones."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    threads._pools.clear()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_a_share_has_one_thread_and_its_caller_keeps_two() -> None:
    assert map_shares(lambda parts: torch.get_num_threads(), [1, 2], CPU) == [1, 1]
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_shares_are_consecutive_and_shared_out_no_further() -> None:
    def work(parts):
        return [list(parts), *map_shares(list, parts, CPU)]

    assert map_shares(work, [1, 2, 3, 4, 5], CPU) == [[[1, 2], [1, 2]], [[3, 4, 5], [3, 4, 5]]]


@pytest.mark.usefixtures("two_threads")
def test_the_callers_modes_hold() -> None:
    def work(parts):
        product = torch.mm(torch.ones(2, 2), torch.ones(2, 2))
        return product.dtype, torch.is_grad_enabled(), product.is_inference()

    bare = (torch.float32, False, False)
    assert map_shares(work, [1, 2], CPU) == [bare, bare]
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert map_shares(work, [1, 2], CPU) == [(torch.bfloat16, False, True)] * 2


def test_slices_cover_the_batch_and_hold_at_least_one_sample() -> None:
    x = torch.zeros(5, 4)
    assert batch_slices(x, 32) == [slice(0, 2), slice(2, 4), slice(4, 6)]
    assert batch_slices(x, 1) == [slice(i, i + 1) for i in range(5)]
    assert batch_slices(x.to("meta"), 1) == [slice(0, 5)]
