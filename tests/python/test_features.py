"""The same layer with fewer CPU features (QUERN_CPU_FEATURES), each in a process of its own."""

import os
import subprocess
import sys

import pytest
from helpers import needs_jit

SCRIPT = """
import torch
from test_layer import Case, GATE, inputs
from helpers import assert_close_tiles
import quern
for dtype in (torch.bfloat16, torch.float32):
    case = Case("gpt_oss", dtype)
    for tokens in (1, 40):
        x, ids, weights = inputs(tokens, dtype)
        y = case.quern(x, quern.routing(ids, weights, num_experts=case.experts))
        assert_close_tiles(y, case.exact(x, ids, weights), GATE[dtype])
print("checked")
"""


@needs_jit
@pytest.mark.slow
@pytest.mark.parametrize("features", ["-amx", "-amx,-avx512bf16", "-amx,-avx512f", "-avx2", "-avx"])
def test_fewer_features(features):
    environment = dict(os.environ, QUERN_CPU_FEATURES=features, PYTHONPATH=os.pathsep.join([os.path.dirname(__file__), *sys.path]))
    result = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.splitlines()[-1] == "checked"
