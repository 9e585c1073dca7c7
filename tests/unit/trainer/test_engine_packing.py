"""Rows of several documents: none sees another, none is lost, and the loss counts labels alone."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from tunesmith.api.method import Lora, Method
from tunesmith.api.training import Backend

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from tunesmith_trainer.data.chat import IGNORED, Example  # noqa: E402
from tunesmith_trainer.train.engine import attention, base, head  # noqa: E402
from tunesmith_trainer.train.engine.build import equip  # noqa: E402
from tunesmith_trainer.train.engine.packing import (  # noqa: E402
    Collator,
    PaddedCollator,
    feeding,
    rows_of,
)
from tunesmith_trainer.train.engine.settings import EngineSettings  # noqa: E402

LENGTH = 48


def documents(count: int, seed: int = 0) -> list[Example]:
    draw = random.Random(seed)
    sizes = [draw.randint(2, LENGTH) for _ in range(count)]
    return [
        Example([draw.randint(3, 250) for _ in range(size)], draw.randint(0, size - 1))
        for size in sizes
    ]


def model_of(folder: Path, method: Method = Method.LORA):  # type: ignore[no-untyped-def]
    loaded = base.load(folder, "tiny", torch.float32, torch.device("cpu"), quantised=False)
    return equip(loaded, "tiny", EngineSettings(method=method, lora=Lora(dropout=0)))


def batch_of(examples: list[Example], tokens: int | None = None):  # type: ignore[no-untyped-def]
    batch = Collator(LENGTH, tokens)([examples])
    batch.pop("real_tokens")
    return batch


@pytest.mark.parametrize("tokens", [None, 400])
def test_logits_of_a_packed_document_are_those_of_the_document_alone(
    tiny_model: Path, tokens: int | None
) -> None:
    model, examples = model_of(tiny_model).eval(), documents(7)
    batch = batch_of(examples, tokens)
    asked = {name: value for name, value in batch.items() if "target" not in name}
    with torch.no_grad():
        packed = model(**asked).logits[0]
        start = 0
        for example in examples:
            alone = model(input_ids=torch.tensor([example.tokens])).logits[0]
            end = start + len(example.tokens)
            torch.testing.assert_close(packed[start:end], alone, atol=1e-5, rtol=1e-4)
            start = end
        # The check can fail: one document more in front of it, and the logits are others.
        one = {**asked, "cu_seq_lens_q": torch.tensor([0, packed.shape[0]], dtype=torch.int32)}
        assert (model(**one).logits[0] - packed).abs().max() > 1e-2


def test_the_loss_is_the_librarys(tiny_model: Path) -> None:
    model, examples = model_of(tiny_model).eval(), documents(5, seed=2)
    batch = batch_of(examples)
    with torch.no_grad():
        total = float(model(**batch))
        expected = 0.0
        for example in examples:
            logits = model(input_ids=torch.tensor([example.tokens])).logits[0, :-1]
            labels = torch.tensor(example.labels[1:])
            expected += float(
                torch.nn.functional.cross_entropy(
                    logits, labels, ignore_index=IGNORED, reduction="sum"
                )
            )
    assert total == pytest.approx(expected, rel=1e-5)


def test_padded_documents_have_the_loss_of_packed_ones(tiny_model: Path) -> None:
    """For models whose attention is not ours: Unsloth's."""
    model, examples = model_of(tiny_model).eval(), documents(6, seed=3)
    padded = PaddedCollator()([[each] for each in examples])
    assert padded.pop("real_tokens") == sum(len(each.tokens) for each in examples)
    assert padded["attention_mask"].sum(1).tolist() == [len(each.tokens) for each in examples]
    with torch.no_grad():
        found, expected = (float(model(**each)) for each in (padded, batch_of(examples)))
    assert found == pytest.approx(expected, rel=1e-5)


def test_rows_are_packed_for_our_attention_only() -> None:
    examples = documents(40)
    for backend, packing, kind in (
        (Backend.TUNESMITH, True, Collator),
        (Backend.TUNESMITH, False, Collator),
        (Backend.UNSLOTH, True, PaddedCollator),
    ):
        settings = EngineSettings(backend=backend, max_length=LENGTH, compile=True)
        rows, held_out, collator = feeding(examples, examples[:3], settings, 4, packing=packing)
        assert isinstance(collator, kind)
        packed = backend is Backend.TUNESMITH and packing
        assert (len(rows) < len(examples)) == packed
        assert sum(len(held_out[each]) for each in range(len(held_out))) == 3
        if isinstance(collator, Collator):
            assert collator.tokens == (4 * LENGTH if packed else None)


def test_the_loss_in_pieces_has_the_gradients_of_the_loss_as_a_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(head, "PIECE_BYTES", 4 * 50 * 7)
    torch.manual_seed(0)
    hidden = torch.randn(33, 16, requires_grad=True)
    weight = torch.randn(50, 16, requires_grad=True)
    targets = torch.randint(0, 50, (33,))
    (head.summed_loss(hidden, weight, targets) * 0.25).backward()
    found = hidden.grad.clone(), weight.grad.clone()
    hidden.grad = weight.grad = None
    logits = hidden @ weight.T
    (torch.nn.functional.cross_entropy(logits, targets, reduction="sum") * 0.25).backward()
    torch.testing.assert_close(found[0], hidden.grad, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found[1], weight.grad, atol=1e-5, rtol=1e-4)


def test_the_compiled_and_the_plain_piece_agree() -> None:
    """The one is for GPUs, the other for CPUs; here both run without a compiler."""
    torch.manual_seed(0)
    logits, targets = torch.randn(9, 40), torch.randint(0, 40, (9,))
    once, again = (each(logits, targets, True) for each in (head.in_one_go, head.step_by_step))
    torch.testing.assert_close(once, again)
    assert head.in_one_go(logits, targets, False)[1] is None
    assert head.step_by_step(logits, targets, False)[1] is None


@pytest.mark.parametrize("window", [-1, 5, 100])
def test_a_sliding_window_ends_where_the_model_says(window: int) -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(20, 4, 8), torch.randn(20, 2, 8), torch.randn(20, 2, 8)
    starts = torch.tensor([0, 12, 20], dtype=torch.int32)
    found = attention.document_by_document(query, key, value, starts, 0.5, window)
    position = torch.arange(20)
    same = (position[:, None] < 12) == (position < 12)
    back = position[:, None] - position
    seen = same & (back >= 0) & ((back <= window) | (window < 0))
    wide = [each.repeat_interleave(2, 1) for each in (key, value)]
    scores = torch.einsum("qhd,khd->hqk", query, wide[0]) * 0.5
    weights = scores.masked_fill(~seen, float("-inf")).softmax(-1)
    torch.testing.assert_close(found, torch.einsum("hqk,khd->qhd", weights, wide[1]))


@pytest.mark.parametrize("packing", [True, False])
def test_every_document_is_in_one_row_and_no_row_is_too_long(packing: bool) -> None:
    examples = documents(200)
    rows = rows_of(examples, LENGTH, packing=packing)
    found = [example for index in range(len(rows)) for example in rows[index]]
    assert sorted(found, key=str) == sorted(examples, key=str)
    lengths = [sum(len(each.tokens) for each in rows[index]) for index in range(len(rows))]
    assert max(lengths) <= LENGTH
    if packing:
        assert sum(lengths) >= 0.97 * LENGTH * len(rows)
    else:
        assert len(rows) == len(examples)


def test_a_document_longer_than_a_row_is_refused() -> None:
    with pytest.raises(ValueError, match="a document of 50 tokens does not fit into rows of 48"):
        rows_of([Example(list(range(50)), 1)], LENGTH, packing=True)


def test_positions_begin_again_and_no_first_token_is_predicted() -> None:
    batch = Collator(longest=4, tokens=12)([[Example([5, 6, 7], 0)], [Example([8, 9], 1)]])
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1, 0, 1, 2, 3, 0, 1, 2]]
    assert batch["cu_seq_lens_q"].tolist() == [0, 3, 5, 9, 12]
    assert batch["target_positions"].tolist() == [0, 1, 3]
    assert batch["targets"].tolist() == [6, 7, 9]
    assert batch["real_tokens"] == 5
