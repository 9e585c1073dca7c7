"""The trainer's entry: read the plan, do what it says, say how it ended.

    python -m tunesmith_trainer                      in a pod
    python -m tunesmith_trainer --plan plan.json --termination end.json
    python -m tunesmith_trainer fetch-tasks --task mmlu --output FOLDER

The exit code and one JSON line (the termination message) say how it ended.
"""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from tunesmith.api.trainer_contract import (
    PLAN_PATH,
    PLAN_READER,
    PROGRESS_PORT,
    TERMINATION_PATH,
    AnyPlan,
    EvaluationPlan,
    ExitCode,
    MergePlan,
    PreparationPlan,
    RemovalPlan,
    TerminationMessage,
    TrainingPlan,
)

from tunesmith_trainer import several
from tunesmith_trainer.failure import (
    Preempted,
    exit_code_of,
    failure_from,
    ignore_sigterm,
    preempt_on_sigterm,
)
from tunesmith_trainer.machine import prepare_environment, use_one_gpu
from tunesmith_trainer.processes import are_several, is_first
from tunesmith_trainer.progress import ProgressBoard, serve_progress

log = logging.getLogger("tunesmith_trainer")

FETCH_TASKS = "fetch-tasks"


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    start_logging()
    prepare_environment()
    if options.command == FETCH_TASKS:
        return fetch_tasks(options)
    try:
        preempt_on_sigterm()
        several.register()
        plan = PLAN_READER.validate_json(options.plan.read_bytes())
        if isinstance(plan, TrainingPlan) and several.wants_several(plan):
            message, code = several.run_several(plan, options.plan, options.port)
        else:
            message, code = alone(plan, options.port), ExitCode.SUCCEEDED
    except (Exception, Preempted) as error:
        ignore_sigterm()
        message, code = ended(error)
    leave(message, several.ending_file(options.termination))
    return int(code)


def alone(plan: AnyPlan, port: int) -> TerminationMessage:
    """The plan in this very process. Of several, the first one can be watched."""
    if not are_several():
        use_one_gpu()
    board = ProgressBoard()
    if is_first():
        serve_progress(board, port)
    return carry_out(plan, board)


def carry_out(plan: AnyPlan, board: ProgressBoard) -> TerminationMessage:
    match plan:
        case PreparationPlan():
            from tunesmith_trainer.prepare.recipe import prepare

            log.info("preparing for %s", plan.owner)
            return TerminationMessage(preparation=prepare(plan, board))
        case TrainingPlan():
            from tunesmith_trainer.train.recipe import train

            log.info("training for %s", plan.owner)
            return TerminationMessage(training=train(plan, board))
        case EvaluationPlan():
            from tunesmith_trainer.evaluate.recipe import evaluate

            log.info("evaluating for %s", plan.owner)
            return TerminationMessage(evaluation=evaluate(plan, board))
        case MergePlan():
            from tunesmith_trainer.merge.recipe import merge

            log.info("merging for %s", plan.owner)
            return TerminationMessage(merge=merge(plan))
        case RemovalPlan():
            from tunesmith_trainer.removal import remove

            log.info("removing %s for %s", plan.adapter.uri, plan.owner)
            return TerminationMessage(removal=remove(plan))


def fetch_tasks(options: argparse.Namespace) -> int:
    """Put the data of a benchmark into a folder, for evaluations without a network."""
    from tunesmith_trainer.benchmarks.fetch import fetch

    try:
        preempt_on_sigterm()
        fetch(options.task, options.output, options.source)
    except (Exception, Preempted) as error:
        return int(ended(error)[1])
    return int(ExitCode.SUCCEEDED)


def ended(error: BaseException) -> tuple[TerminationMessage, ExitCode]:
    failure = failure_from(error)
    code = exit_code_of(failure)
    if code is ExitCode.INTERNAL:
        log.error("unexpected error", exc_info=error)
    log.error("%s (%s): %s", failure.reason, failure.failure_class, failure.message)
    return TerminationMessage(failure=failure), code


def leave(message: TerminationMessage, path: Path) -> None:
    """The last word. The kubelet reads it from the file; the exit code counts without it, too."""
    line = message.to_line()
    try:
        path.write_text(line, encoding="utf-8")
    except OSError as error:
        log.warning("cannot write %s (%s): %s", path, error.strerror, line)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tunesmith-trainer", description="Carry out one plan.")
    parser.add_argument("--plan", type=Path, default=Path(PLAN_PATH), help="the plan, as JSON")
    parser.add_argument(
        "--termination",
        type=Path,
        default=Path(TERMINATION_PATH),
        help="where the last word goes, one JSON line",
    )
    parser.add_argument("--port", type=int, default=PROGRESS_PORT, help="port of the progress")
    commands = parser.add_subparsers(dest="command", metavar=f"[{FETCH_TASKS}]")
    fetching = commands.add_parser(FETCH_TASKS, help="fetch the data of a benchmark")
    fetching.add_argument("--task", required=True, help="task or group of lm-evaluation-harness")
    fetching.add_argument("--output", type=Path, required=True, help="folder to fill")
    fetching.add_argument(
        "--from",
        dest="source",
        type=Path,
        help="folder of copied hub repositories, <organisation>/<name>; without it, the hub",
    )
    return parser.parse_args(arguments)


def start_logging() -> None:
    """Plain lines with the time; of the libraries only what is wrong."""
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s", force=True
    )
    log.setLevel(os.environ.get("TUNESMITH_LOG_LEVEL", "INFO"))
