"""The page that tells how a training went, and the tools that draw its curves."""

from __future__ import annotations

import json
import re
import struct
from html.parser import HTMLParser
from pathlib import Path

import pytest
from tunesmith.api.trainer_contract import REPORT_FILE, Reason

pytest.importorskip("torch")
pytest.importorskip("peft")

from transformers import TrainerCallback
from tunesmith_trainer import artifact
from tunesmith_trainer.failure import TrainerError
from tunesmith_trainer.lineage import Lineage
from tunesmith_trainer.progress import ProgressBoard
from tunesmith_trainer.train.checkpoints import Attempt
from tunesmith_trainer.train.forgiving import Forgiving
from tunesmith_trainer.train.recipe import train
from tunesmith_trainer.train.report.curves import MOST_POINTS, Frame, smoothed, thinned, ticks_over
from tunesmith_trainer.train.report.page import render

from tests.unit.trainer.given import Trained, training_plan, write_prepared


class Page(HTMLParser):
    """What a browser would load, and the text that it would show."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value or "" for name, value in attributes if name in {"src", "href"}]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def page(trained: Trained) -> Page:
    assert trained.outcome.artifact.report == REPORT_FILE
    return Page((trained.folder / REPORT_FILE).read_text())


def lineage(trained: Trained) -> Lineage:
    return Lineage.model_validate_json((trained.folder / artifact.LINEAGE_FILE).read_bytes())


def test_the_page_needs_nothing_but_itself(page: Page) -> None:
    assert page.loads == []
    assert "script" not in page.tags
    assert page.tags.count("svg") == 2


def test_the_page_tells_plan_and_measurement(trained: Trained, page: Page) -> None:
    run = lineage(trained).run
    assert run.peak_memory_bytes is not None
    for words in (
        f"{run.peak_memory_bytes / 2**30:.1f} GiB",
        "training.learningRate",
        trained.outcome.dataset.held_out_digest,
        "The held-out rows took no part in that choice",
        "published",
    ):
        assert words in page.text, words


def test_every_evaluation_is_in_the_table_and_the_best_is_marked(trained: Trained) -> None:
    text = (trained.folder / REPORT_FILE).read_text()
    number = r'<td class="number">([-\d.e]+)</td>\s*'
    rows = [
        (loss, mark)
        for *_, loss, mark in re.findall(
            number * 3 + "<td>(<strong>published</strong>)?</td>", text
        )
    ]
    losses = [float(loss) for loss, _ in rows]
    assert len(losses) == trained.plan.training.epochs
    (marked,) = [loss for (loss, mark) in rows if mark]
    assert float(marked) == min(losses)


def test_what_comes_from_users_is_text_and_nothing_else(trained: Trained) -> None:
    wicked = lineage(trained).model_copy(update={"owner": "<script>alert(1)</script>"})
    text = render(wicked, [], [])
    assert "<script>" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_attempts_say_what_they_went_on_from(trained: Trained) -> None:
    attempts = [
        Attempt(number=1, started_at="monday", from_step=0, micro_batch_size=8, processes=1),
        Attempt(number=2, started_at="tuesday", from_step=40, micro_batch_size=4, processes=1),
    ]
    text = Page(render(lineage(trained), [], attempts)).text
    assert "the beginning" in text
    assert "the checkpoint of step 40" in text


def test_long_curves_are_thinned_and_keep_their_end() -> None:
    points = [(float(step), 1.0 / (step + 1)) for step in range(10_001)]
    drawn = thinned(points)
    assert len(drawn) <= MOST_POINTS + 1
    assert drawn[-1] == points[-1]


def test_the_moving_mean_of_a_constant_is_the_constant() -> None:
    assert [value for _, value in smoothed([(1, 2.0), (2, 2.0), (3, 2.0)])] == pytest.approx(
        [2.0] * 3
    )


@pytest.mark.parametrize("values", [[0.0, 1.0], [3.2, 3.3], [5.0, 5.0], [1e-6, 2e-4], [0.0]])
def test_scales_are_round_and_hold_every_value(values: list[float]) -> None:
    ticks = ticks_over(values, 5)
    assert ticks[0] <= min(values)
    assert ticks[-1] >= max(values)
    assert 1 <= len(ticks) <= 8


def test_an_empty_history_gives_an_empty_frame() -> None:
    assert Frame.around([]).curves == []


def scalars(folder: Path) -> dict[str, list[float]]:
    """The curves in TensorBoard's files: records of length, checksum, Event and checksum.

    https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
    """
    from tensorboardX.proto.event_pb2 import Event

    curves: dict[str, list[float]] = {}
    for path in folder.iterdir():
        content = path.read_bytes()
        while content:
            (size,) = struct.unpack("<Q", content[:8])
            for value in Event.FromString(content[12 : 12 + size]).summary.value:
                if value.HasField("simple_value"):
                    curves.setdefault(value.tag, []).append(value.simple_value)
            content = content[16 + size :]
    return curves


def test_tensorboard_gets_the_curves(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboardX")
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    write_prepared(tmp_path)
    plan = training_plan(tiny_model, tmp_path, reportTo=[{"kind": "TensorBoard"}])
    outcome = train(plan, ProgressBoard())
    (folder,) = (tmp_path / "out" / "tensorboard").iterdir()
    curves = scalars(folder)
    assert curves["eval/loss"] == pytest.approx(outcome.progress.eval_losses, abs=1e-4)
    assert len(curves["train/loss"]) == outcome.progress.total_steps


def test_a_tool_that_fails_does_not_end_training(caplog: pytest.LogCaptureFixture) -> None:
    class MLflowCallback(TrainerCallback):  # type: ignore[misc]
        calls = 0

        def on_log(self, *_: object, **__: object) -> None:
            self.calls += 1
            raise ConnectionError("no route to the server")

    tool = MLflowCallback()
    forgiving = Forgiving(tool)
    forgiving.on_log()
    forgiving.on_log()
    assert tool.calls == 1
    assert "MLflow gets no more curves, training goes on: no route to the server" in caplog.text


def test_a_tool_without_its_package_is_named_before_training(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunesmith_trainer.train.reporting.find_spec", lambda _: None)
    write_prepared(tmp_path)
    target = {"kind": "WandB", "uri": "https://wandb.example"}
    plan = training_plan(tiny_model, tmp_path, reportTo=[target])
    with pytest.raises(TrainerError, match="needs the package wandb") as raised:
        train(plan, ProgressBoard())
    assert raised.value.reason is Reason.BACKEND_MISSING


def test_metrics_are_the_history_of_the_loop(trained: Trained) -> None:
    history = json.loads((trained.folder / artifact.METRICS_FILE).read_text())
    assert sum("loss" in entry for entry in history) == trained.outcome.progress.total_steps
