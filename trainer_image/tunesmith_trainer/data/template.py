"""Rendering chat templates: programs of strangers, which may never end or ask for all memory.

The sandbox of transformers keeps them from files and processes, not from nested loops, recursion
and endless text.
"""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NoReturn

from tunesmith.api.trainer_contract import Reason

from tunesmith_trainer import time_limit
from tunesmith_trainer.failure import TrainerError
from tunesmith_trainer.machine import at_most

#: A conversation is rendered within milliseconds. Of the processor's time in the trial, as a busy
#: machine gives it late; of the clock afterwards.
TRIAL_SECONDS = 5
LONGEST_SECONDS = 60
TRIAL_BYTES = 512 * 1024**2
ENDED, NO_MEMORY = 0, 1


def require_end(render: Callable[[], object], uri: str) -> None:
    """Render once in a process of its own, which can be ended wherever it is.

    What else is wrong with the template is not told here: it is seen again when it is used. Raises
    TrainerError for a template that does not end or that no memory is enough for.
    """
    child = os.fork()
    if child == 0:
        _try(render)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        raise endless(uri, f"does not end within {TRIAL_SECONDS} s")
    if os.WEXITSTATUS(status) == NO_MEMORY:
        raise endless(uri, f"needs more than {TRIAL_BYTES / 1e6:.0f} MB")


def _try(render: Callable[[], object]) -> NoReturn:
    """In the child, which must not come back, nor run what is run at the end of a process."""
    code = ENDED
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        # Of the child alone: nothing of what its parent has used is counted.
        resource.setrlimit(resource.RLIMIT_CPU, (TRIAL_SECONDS, TRIAL_SECONDS))
        # Whoever waits for a lock that another thread held at the fork uses no processor.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, LONGEST_SECONDS)
        with at_most(TRIAL_BYTES):
            render()
    except MemoryError:
        code = NO_MEMORY
    except BaseException:
        code = ENDED
    finally:
        os._exit(code)


def in_time() -> AbstractContextManager[None]:
    """The block must end within LONGEST_SECONDS. Raises TrainerError."""
    late = endless("the model", f"does not end within {LONGEST_SECONDS} s for a conversation")
    return time_limit.in_time(LONGEST_SECONDS, late)


def endless(uri: str, what: str) -> TrainerError:
    return TrainerError(
        Reason.MODEL_UNUSABLE,
        f"the chat template of {uri} {what}: mend chat_template.jinja, or chat_template in "
        "tokenizer_config.json",
    )
