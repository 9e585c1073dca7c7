"""How the trainer fails: one exception for what a user can act on, and a class for everything else.

Every end has an exit code that says whose fault it was, and one sentence that says what to do.
"""

from __future__ import annotations

import signal
import traceback
from types import FrameType
from typing import NoReturn

from tunesmith.api.objects import FailureClass
from tunesmith.api.trainer_contract import FAILURE_CLASSES, ExitCode, Reason, ReportedFailure

#: Reasons that are nobody's mistake in the spec or the data, so that a retry may help.
CLASS_OF_REASON: dict[Reason, FailureClass] = {
    Reason.HUB_UNREACHABLE: FailureClass.DATA_UNREACHABLE,
    Reason.SOURCE_UNREACHABLE: FailureClass.DATA_UNREACHABLE,
    Reason.REGISTRY_UNREACHABLE: FailureClass.DATA_UNREACHABLE,
    Reason.SCRATCH_FULL: FailureClass.DATA_UNREACHABLE,
    Reason.JUDGE_UNREACHABLE: FailureClass.DATA_UNREACHABLE,
    Reason.BENCHMARK_DATA_MISSING: FailureClass.DATA_UNREACHABLE,
    Reason.OUTPUT_NOT_WRITABLE: FailureClass.DATA_UNREACHABLE,
    Reason.OUT_OF_MEMORY: FailureClass.OUT_OF_MEMORY,
    Reason.PREEMPTED: FailureClass.PREEMPTED,
    Reason.INTERNAL: FailureClass.INTERNAL,
}

EXIT_CODES: dict[FailureClass, ExitCode] = {
    failure_class: ExitCode(code) for code, failure_class in FAILURE_CLASSES.items()
}

OUT_OF_MEMORY_ADVICE = (
    "ask for more memory in resources, or need less: for training lower training.microBatchSize "
    "(training.batchSize stays the same: the rest is accumulated) or training.maxLength; for an "
    "evaluation lower maxNewTokens, and name the adapter rather than a merged model"
)

#: What allocators say when there is no memory left; torch has no common exception for it.
OUT_OF_MEMORY_PHRASES = ("out of memory", "can't allocate memory", "cannot allocate memory")


class TrainerError(Exception):
    """Something a user or an operator of the cluster can put right.

    ``message`` says what is wrong and what to do about it.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class Preempted(BaseException):
    """The pod was told to go.

    Not an Exception, so that no library's ``except Exception`` can take it for an error of its own
    and carry on.
    """


def raise_preempted(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise Preempted


def preempt_on_sigterm() -> None:
    """Turn SIGTERM into an exception: half-written folders are removed on the way out."""
    signal.signal(signal.SIGTERM, raise_preempted)


def ignore_sigterm() -> None:
    """The end has a reason already; what is left to do is to say so."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def failure_from(error: BaseException) -> ReportedFailure:
    """Whose fault an exception is, and the sentence that goes into status."""
    match error:
        case TrainerError():
            reason, message = error.reason, error.message
        case Preempted():
            reason = Reason.PREEMPTED
            message = "the pod was stopped before it was done (node drained, preempted or deleted)"
        case _ if is_out_of_memory(error):
            reason = Reason.OUT_OF_MEMORY
            message = f"out of memory ({first_line(error)}): {OUT_OF_MEMORY_ADVICE}"
        case _:
            reason = Reason.INTERNAL
            message = f"{last_line(error)}; the pod's log has the traceback"
    failure_class = CLASS_OF_REASON.get(reason, FailureClass.USER_ERROR)
    return ReportedFailure(failure_class=failure_class, reason=reason, message=message)


def exit_code_of(failure: ReportedFailure) -> ExitCode:
    return EXIT_CODES[failure.failure_class]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on the GPU (torch.OutOfMemoryError) or in the process."""
    if isinstance(error, MemoryError):
        return True
    said = str(error).lower()
    return isinstance(error, RuntimeError | OSError) and any(
        phrase in said for phrase in OUT_OF_MEMORY_PHRASES
    )


def first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def last_line(error: BaseException) -> str:
    """The last line of the traceback, and where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename.rsplit('/', 1)[-1]}:{frames[-1].lineno})" if frames else ""
    return traceback.format_exception_only(error)[-1].strip() + place
