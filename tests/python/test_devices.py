"""The device of a call comes from its arguments, and all of them must agree."""

import pytest
import torch

import quern
from quern._device import common_device


def test_operands_on_two_gpus_are_named():
    first, second = torch.device("cuda:0"), torch.device("cuda:1")
    assert common_device([("x", second), ("w", second)]) == second
    assert common_device([]) == torch.device("cpu")
    with pytest.raises(quern.ArgumentError, match="'w': is on 'cuda:1', but 'x' is on 'cuda:0': all must be on one device"):
        common_device([("x", first), ("route", first), ("w", second)])


def test_a_tensor_without_memory_is_named():
    codes = torch.zeros(64 * 64 // 2, dtype=torch.uint8)
    weights = quern.pack(codes=codes, absmax=torch.ones(64), shape=(64, 64), codec="nf4", blocksize=64, dtype=torch.float32)
    with pytest.raises(quern.ArgumentError, match="'x': found a tensor on 'meta', expected 'cpu' or 'cuda'"):
        quern.load("linear").linear(torch.ones(3, 64, device="meta"), weights)
