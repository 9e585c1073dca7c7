"""The quick layers compute what PEFT's compute: results, gradients and state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tunesmith.api.memory import ActivationCheckpointing
from tunesmith.api.method import Lora, Method

torch = pytest.importorskip("torch")
pytest.importorskip("bitsandbytes")

from tunesmith_trainer.train.engine import base, low_rank, weights  # noqa: E402
from tunesmith_trainer.train.engine.build import equip  # noqa: E402
from tunesmith_trainer.train.engine.layering import decoder_layers  # noqa: E402
from tunesmith_trainer.train.engine.settings import EngineSettings  # noqa: E402
from tunesmith_trainer.train.lora import lora_config  # noqa: E402

CPU = torch.device("cpu")
TOKENS = torch.arange(3, 43).view(2, 20)
METHODS = [Method.LORA, Method.DORA, Method.QLORA, Method.QDORA]


def lora(method: Method, **changes: object) -> Lora:
    return Lora.model_validate({"rank": 8, "alpha": 32, "dropout": 0, **changes})


def load(folder: Path, method: Method):  # type: ignore[no-untyped-def]
    return base.load(folder, "tiny", torch.float32, CPU, quantised=method.is_quantised)


def ours(folder: Path, method: Method, shape: Lora, **changes: object):  # type: ignore[no-untyped-def]
    settings = EngineSettings(method=method, lora=shape, **changes)  # type: ignore[arg-type]
    return equip(load(folder, method), "tiny", settings)


def theirs(folder: Path, method: Method, shape: Lora):  # type: ignore[no-untyped-def]
    from peft import get_peft_model

    model = load(folder, method)
    model.requires_grad_(False)
    return get_peft_model(model, lora_config(shape, method))


def away_from_zero(model) -> None:  # type: ignore[no-untyped-def]
    """B begins as zeros, for which A has no gradient."""
    torch.manual_seed(7)
    for name, parameter in sorted(model.named_parameters()):
        if "lora_" in name:
            noise = torch.randn_like(parameter) * 0.05
            parameter.data = parameter.data * 1.1 if "magnitude" in name else noise


def gradients(model) -> dict[str, Any]:  # type: ignore[no-untyped-def]
    model.train()
    logits = model(input_ids=TOKENS).logits
    logits.log_softmax(-1)[..., 5].mean().backward()
    return {
        name: parameter.grad
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_gradients_are_those_of_peft(tiny_model: Path, method: Method, rslora: bool) -> None:
    shape = lora(method, useRslora=rslora)
    found, expected = ours(tiny_model, method, shape), theirs(tiny_model, method, shape)
    for model in (found, expected):
        away_from_zero(model)
    quick, peft = gradients(found), gradients(expected)
    assert quick.keys() == peft.keys()
    kinds = {name.split(".")[-3] for name in quick} | {name.split(".")[-2] for name in quick}
    assert {"lora_A", "lora_B"} <= kinds
    assert any("magnitude" in name for name in quick) == method.is_dora
    for name, gradient in quick.items():
        assert (gradient - peft[name]).norm() <= 1e-4 * peft[name].norm(), name


@pytest.mark.parametrize("method", METHODS)
def test_the_state_is_what_peft_loads(tiny_model: Path, tmp_path: Path, method: Method) -> None:
    from peft import PeftModel
    from tunesmith_trainer.train.lora import save_adapter
    from tunesmith_trainer.train.training_state import gathered_weights

    shape = lora(method)
    model = ours(tiny_model, method, shape)
    away_from_zero(model)
    save_adapter(model, gathered_weights(model), tmp_path, "pvc://models/tiny")
    loaded = PeftModel.from_pretrained(load(tiny_model, method), tmp_path)
    # In training mode: for inference on CPUs bitsandbytes has 4-bit kernels of lower precision.
    found, expected = (each.train()(input_ids=TOKENS).logits for each in (model, loaded))
    without = load(tiny_model, method).train()(input_ids=TOKENS).logits
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert (found - without).abs().max() > 0.1


def test_dropout_falls_on_the_adapter_alone(tiny_model: Path) -> None:
    model = ours(tiny_model, Method.LORA, lora(Method.LORA, dropout=0.5))
    with torch.no_grad():
        before = model.train()(input_ids=TOKENS).logits
        torch.testing.assert_close(before, model.eval()(input_ids=TOKENS).logits)
    away_from_zero(model)
    with torch.no_grad():
        first, second = (model.train()(input_ids=TOKENS).logits for _ in range(2))
        still = [model.eval()(input_ids=TOKENS).logits for _ in range(2)]
    assert (first - second).abs().max() > 1e-3
    torch.testing.assert_close(still[0], still[1])


def test_dropout_keeps_the_gradients_of_what_it_kept(tiny_model: Path) -> None:
    """Against numbers: the loss along a small step in A, with the same values dropped."""
    model = ours(tiny_model, Method.LORA, lora(Method.LORA, dropout=0.3))
    away_from_zero(model)
    a = next(p for name, p in model.named_parameters() if "layers.0.mlp.up_proj.lora_A" in name)

    def loss() -> Any:
        torch.manual_seed(1)
        return model.train()(input_ids=TOKENS).logits.square().mean()

    loss().backward()
    direction = torch.randn_like(a)
    predicted = float((a.grad * direction).sum())
    with torch.no_grad():
        ahead, behind = ((a.add_(direction, alpha=step), loss())[1] for step in (1e-3, -2e-3))
    assert float(ahead - behind) / 2e-3 == pytest.approx(predicted, rel=0.02)


@pytest.mark.parametrize("method", [Method.QLORA, Method.QDORA])
def test_nothing_dequantised_is_kept_for_the_backward_pass(
    tiny_model: Path, method: Method
) -> None:
    model = ours(tiny_model, method, lora(method))
    shapes = {
        (module.out_features, module.in_features)
        for module in model.modules()
        if type(module).__name__ == "Linear4bit"
    }
    assert len(shapes) >= 3
    kept: list[Any] = []

    def keep(tensor: Any) -> Any:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.train()(input_ids=TOKENS[:, :7]).logits.sum().backward()
    wide = [each for each in kept if tuple(each.shape) in shapes and each.is_floating_point()]
    assert kept
    assert not wide, [tuple(each.shape) for each in wide]


@pytest.mark.parametrize("policy", [ActivationCheckpointing.PARTIAL, ActivationCheckpointing.FULL])
def test_computing_activations_again_changes_nothing(
    tiny_model: Path, policy: ActivationCheckpointing
) -> None:
    shape = lora(Method.LORA, dropout=0.3)
    results = []
    for each in (ActivationCheckpointing.OFF, policy):
        model = ours(tiny_model, Method.LORA, shape, checkpointing=each)
        away_from_zero(model)
        torch.manual_seed(3)
        results.append(gradients(model))
    for name, gradient in results[0].items():
        torch.testing.assert_close(gradient, results[1][name], msg=name)
    again = [type(layer).__name__.endswith("ComputedAgain") for layer in decoder_layers(model)]
    assert again == ([True, False] if policy is ActivationCheckpointing.PARTIAL else [True, True])


def test_a_compiled_layer_is_not_multiplied_by_its_last_matrix_again(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graph of the second computation, without the generation of code: as on a GPU."""
    products = []

    def counted(*arguments: object) -> Any:
        products.append(arguments)
        return weights.dense(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(low_rank, "dense", counted)
    counts = {}
    for policy in (ActivationCheckpointing.OFF, ActivationCheckpointing.FULL):
        model = ours(tiny_model, Method.LORA, lora(Method.LORA), checkpointing=policy)
        away_from_zero(model)
        plain = gradients(model)
        model.zero_grad()
        torch._dynamo.reset()
        model.get_base_model().enable_input_require_grads()
        for layer in decoder_layers(model):
            layer.compile(backend="aot_eager_decomp_partition")
        products.clear()
        compiled = gradients(model)
        counts[policy] = len(products)
        for name, gradient in plain.items():
            torch.testing.assert_close(compiled[name], gradient, msg=name)
    layers, linears = 2, 7
    # Once forwards and once backwards, and again forwards for all but the last.
    assert counts[ActivationCheckpointing.OFF] == layers * 2 * linears
    assert counts[ActivationCheckpointing.FULL] == layers * (3 * linears - 1)
