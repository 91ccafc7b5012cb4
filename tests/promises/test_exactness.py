"""Exactness of optimisations that are always on: block dropout, smaller micro-batches."""

import shutil
import traceback

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ocensa_nb.engine.out_of_memory import accumulate_in_pieces
from ocensa_nb.errors import UserError
from ocensa_nb.models.layers import BlockDropout, takes_ready_mask, use_block_dropout
from ocensa_nb.runtime.precision import compiled, require_compiler
from tests.helpers.small_engine import NO_SCALING, batch, engine, gradients, objective, small_model, split_batch


@given(st.floats(0.0, 0.95), st.integers(1, 7))
@settings(max_examples=30, deadline=None)
def test_block_dropout_with_any_rate_keeps_the_mean_and_drops_the_rate(p, odd):
    torch.manual_seed(0)
    inputs = torch.ones(odd, 40_001)
    dropped_out = BlockDropout(p)(inputs)
    kept = dropped_out != 0
    sigma = (p * (1 - p) / dropped_out.numel()) ** 0.5
    assert abs(kept.float().mean().item() - (1 - p)) < 5 * sigma + 1e-5
    if kept.any():
        assert torch.allclose(dropped_out[kept], dropped_out[kept][0])
        assert dropped_out[kept][0].item() * (1 - round(p * 65536) / 65536) == pytest.approx(1, rel=1e-4)


def test_block_dropout_is_independent_per_element_and_its_gradient_has_the_mask():
    torch.manual_seed(0)
    inputs = torch.ones(400_000, requires_grad=True)
    dropped_out = BlockDropout(0.5)(inputs)
    dropped_out.sum().backward()
    assert torch.equal(inputs.grad, dropped_out.detach())
    dropped = (dropped_out == 0).float()
    for apart in (1, 2, 3, 4):  # four elements share one random draw
        both = (dropped[apart:] * dropped[:-apart]).mean().item()
        assert both == pytest.approx(0.25, abs=0.005)


def test_use_block_dropout_replaces_every_dropout_and_is_identity_in_eval():
    model = small_model()
    use_block_dropout(model)
    assert {type(m) for m in model.modules() if isinstance(m, nn.Dropout)} == {BlockDropout}
    values = torch.randn(5)
    assert BlockDropout(0.5).eval()(values) is values


class TestStepOutOfMemory:
    def failing(self, model, largest):
        """Return a forward that raises out-of-memory for more than `largest` rows."""

        def forward(inputs, attention_mask):
            if len(inputs) > largest:
                raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
            return model(inputs, attention_mask)

        return forward

    def test_step_out_of_memory_is_retried_in_halves_bit_identical_to_small_batches(self, capsys):
        results = []
        for rows, largest in ((16, 4), (4, 16)):
            model = small_model()
            torch.manual_seed(5)
            made = engine(model, objective(0.1), NO_SCALING)
            made.forward = self.failing(model, largest)
            loss, norm = made.step(split_batch(batch(16), rows))
            results.append((loss, norm, {name: p.detach().clone() for name, p in model.named_parameters()}))
        torch.testing.assert_close(results[0], results[1], atol=0, rtol=0)
        output = capsys.readouterr().out
        assert "Sin memoria con micro-batches de 16 filas: se repite el paso con 8" in output
        assert "Sin memoria con micro-batches de 8 filas: se repite el paso con 4" in output

    def test_retry_keeps_the_smaller_size_and_clears_gradients(self):
        model = small_model().eval()
        made = engine(model, objective(), NO_SCALING)
        made.forward = self.failing(model, 4)
        normalisers = made.objective.normalisers([batch(13)])
        _, pieces = accumulate_in_pieces(lambda cut: made.accumulate(cut, normalisers), [batch(13)], 1, model)
        retried = gradients(model)
        assert pieces == 4
        model.zero_grad()
        engine(model, objective(), NO_SCALING).accumulate([batch(13)])
        for name, gradient in gradients(model).items():
            torch.testing.assert_close(retried[name], gradient, atol=1e-6, rtol=0)

    def test_step_without_memory_for_one_row_raises_user_error(self):
        model = small_model()
        made = engine(model, objective(), NO_SCALING)
        made.forward = self.failing(model, 0)
        with pytest.raises(UserError, match="ni siquiera para un aviso"):
            made.step([batch(2)])


def test_require_compiler_without_compiler_raises_user_error_with_the_reason(monkeypatch):
    def no_compiler(*_, **__):
        raise RuntimeError("No working C++ compiler found")

    monkeypatch.setattr(torch, "compile", no_compiler)
    with pytest.raises(UserError, match=r"compile = True no es posible.*No working C\+\+ compiler"):
        require_compiler(torch.device("cpu"))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("cls_only", [True, False])
def test_step_reads_no_value_from_the_device(precision, cls_only):
    """On a GPU, reading a value synchronises with all queued work, so a step must not do it."""
    from torch.utils._python_dispatch import TorchDispatchMode

    read = []

    class Reads(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default):
                read.append("".join(traceback.format_stack()[-6:-1]))
            return func(*args, **(kwargs or {}))

    model, scaler = small_model(), torch.amp.GradScaler("cpu", enabled=precision == "fp16")
    if not takes_ready_mask(model.encoder):
        pytest.skip("transformers 4 reads values of every mask")
    if cls_only:
        assert model.shorten(batch(8)["inputs"], batch(8)["attention_mask"])
    made = engine(model, objective(0.1), scaler, precision)
    made.step([batch(8)])
    with Reads():
        made.step(split_batch(batch(8), 4))
    assert not read, read[0]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_compiled_model_matches_eager_for_any_batch_shape():
    model = small_model(layers=1).eval()
    forward = compiled(model)
    for rows in (8, 5):
        whole = batch(rows)
        for length in (11, 7):
            inputs, mask = whole["inputs"][:, :length], whole["attention_mask"][:, :length]
            with torch.inference_mode():
                torch.testing.assert_close(forward(inputs, mask), model(inputs, mask), atol=1e-5, rtol=1e-5)
