"""quern.routing against plain Python, and its bad inputs."""

import pytest
import torch
from helpers import route_naive, seeded

import quern


def check(route, ids, weights, experts):
    rows, offsets = route_naive(ids, weights, experts)
    tokens, top_k = ids.shape
    assert (route.tokens, route.top_k, route.num_experts, route.rows, route.live_rows) == (tokens, top_k, experts, tokens * top_k, len(rows))
    assert route.offsets.tolist() == offsets and route.offsets.dtype == torch.int64
    assert route.row_token.tolist() == [t for t, _, _ in rows] + [-1] * (tokens * top_k - len(rows))
    expected = torch.tensor([w for _, _, w in rows] + [0.0] * (tokens * top_k - len(rows)), dtype=torch.float32)
    assert torch.equal(route.row_weight.nan_to_num(123.0), expected.nan_to_num(123.0))
    inverse = torch.full((tokens, top_k), -1)
    for row, (t, c, _) in enumerate(rows):
        inverse[t, c] = row
    assert torch.equal(route.inverse, inverse)


@pytest.mark.parametrize("tokens, top_k, experts", [(0, 4, 8), (1, 1, 1), (1, 4, 32), (7, 2, 3), (64, 4, 32), (300, 8, 128), (33, 5, 4)])
@pytest.mark.parametrize("id_dtype", [torch.int64, torch.int32, torch.int16])
@pytest.mark.parametrize("weight_dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_ids(tokens, top_k, experts, id_dtype, weight_dtype):
    generator = seeded(tokens + top_k)
    ids = torch.randint(-1, experts + 2, (tokens, top_k), generator=generator).to(id_dtype)  # -1 and E, E + 1 are skipped
    weights = torch.randn(tokens, top_k, generator=generator).to(weight_dtype)
    check(quern.routing(ids, weights, num_experts=experts), ids, weights, experts)
    check(quern.routing(ids, num_experts=experts), ids, torch.ones(tokens, top_k), experts)


def test_strided_ids_and_weights():
    generator = seeded(1)
    ids = torch.randint(0, 8, (4, 30), generator=generator).t()[::2]
    weights = torch.rand(4, 15, 3, generator=generator).permute(1, 0, 2)[..., 1]
    check(quern.routing(ids, weights, num_experts=8), ids, weights, 8)
    check(quern.routing(ids[:1].expand(9, 4), weights[:1].expand(9, 4), num_experts=8), ids[:1].expand(9, 4), weights[:1].expand(9, 4), 8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("tokens", [0, 1, 50])
def test_dense_scores(dtype, tokens):
    generator = seeded(2)
    scores = torch.randn(tokens, 16, generator=generator) * (torch.rand(tokens, 16, generator=generator) < 0.3)
    scores = scores.to(dtype)
    top_k = int((scores != 0).sum(1).max()) if tokens else 0
    route = quern.routing(scores=scores)
    assert route.top_k == top_k and route.num_experts == 16
    for token in range(tokens):
        chosen = scores[token].nonzero().flatten().tolist()
        rows = route.inverse[token].tolist()
        assert [r >= 0 for r in rows] == [True] * len(chosen) + [False] * (top_k - len(chosen))
        for expert, row in zip(chosen, rows):
            assert route.offsets[expert] <= row < route.offsets[expert + 1]
            assert route.row_token[row] == token and route.row_weight[row] == scores[token, expert].float()
    assert route.live_rows == int((scores != 0).sum())
    assert quern.routing(scores=scores, top_k=12).top_k == 12


def test_nan_scores_are_chosen():
    scores = torch.tensor([[0.0, float("nan"), 0.0], [1.0, 0.0, 0.0]])
    route = quern.routing(scores=scores)
    assert route.live_rows == 2 and route.row_weight[1].isnan() and route.row_token.tolist() == [1, 0]


def test_nan_weights_pass_through():
    route = quern.routing(torch.tensor([[0], [1]]), torch.tensor([[float("nan")], [2.0]]), num_experts=2)
    assert route.row_weight[0].isnan() and route.row_weight[1] == 2


def test_tensors_outlive_the_routing():
    offsets = quern.routing(torch.zeros(1000, 4, dtype=torch.int64), num_experts=8).offsets
    junk = [quern.routing(torch.ones(1000, 4, dtype=torch.int64), num_experts=8) for _ in range(20)]
    assert offsets.tolist() == [0] + [4000] * 8 and len(junk) == 20


IDS = torch.zeros(3, 2, dtype=torch.int64)


@pytest.mark.parametrize(
    "args, kwargs, error, message",
    [
        ((), {}, TypeError, "'ids': give either ids"),
        ((IDS,), dict(scores=torch.ones(3, 2)), TypeError, "'ids': give either ids"),
        ((IDS,), {}, TypeError, "'num_experts': found None"),
        ((IDS,), dict(num_experts=0), ValueError, "'num_experts': found 0, expected at least 1"),
        ((IDS,), dict(num_experts=2.0), TypeError, "'num_experts': found 2.0"),
        ((IDS.float(),), dict(num_experts=2), TypeError, "'ids': found dtype torch.float32"),
        ((IDS.flatten(),), dict(num_experts=2), ValueError, r"'ids': found shape \(6,\), expected \[T, top_k\]"),
        ((IDS.to("meta"),), dict(num_experts=2), ValueError, "'ids': found a tensor on 'meta', expected 'cpu'"),
        (([[1]],), dict(num_experts=2), TypeError, "'ids': found list, expected a tensor"),
        ((IDS, torch.ones(3, 3)), dict(num_experts=2), ValueError, r"'weights': found shape \(3, 3\), expected that of ids, \(3, 2\)"),
        ((IDS, torch.ones(3, 2, dtype=torch.float64)), dict(num_experts=2), TypeError, "'weights': found dtype torch.float64"),
        ((IDS, torch.ones(3, 2, requires_grad=True)), dict(num_experts=2), ValueError, "'weights': requires grad"),
        ((IDS,), dict(num_experts=2, top_k=3), ValueError, "'top_k': found 3, but ids has 2 columns"),
        ((), dict(scores=torch.ones(3)), ValueError, r"'scores': found shape \(3,\)"),
        ((), dict(scores=torch.ones(3, 4), num_experts=5), ValueError, "'scores': found 4 columns, expected num_experts=5"),
        ((), dict(scores=torch.ones(3, 4), top_k=5), ValueError, "'top_k': found 5, expected 1..4"),
        ((), dict(scores=torch.ones(3, 4), top_k=3), ValueError, "4"),
        ((None, IDS), dict(scores=torch.ones(3, 4)), TypeError, "'weights': dense scores are their own weights"),
    ],
)
def test_bad_inputs(args, kwargs, error, message):
    with pytest.raises(quern.ArgumentError, match=message) as caught:
        quern.routing(*args, **kwargs)
    assert isinstance(caught.value, error)


def test_numpy_and_dlpack():
    import numpy

    ids, weights = numpy.array([[1, 0]]), numpy.array([[0.5, 2.0]], dtype=numpy.float32)
    ids.flags.writeable = False
    route = quern.routing(ids, weights, num_experts=2)
    assert route.row_weight.tolist() == [2.0, 0.5]

    class Foreign:
        def __init__(self, tensor):
            self.tensor = tensor

        def __dlpack__(self, **kwargs):
            return self.tensor.__dlpack__(**kwargs)

        def __dlpack_device__(self):
            return self.tensor.__dlpack_device__()

    assert quern.routing(torch.tensor([[1, 0]]), Foreign(torch.tensor([[0.5, 2.0]])), num_experts=2).row_weight.tolist() == [2.0, 0.5]
