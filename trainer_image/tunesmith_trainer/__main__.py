"""``python -m tunesmith_trainer``."""

import os
import signal
import sys

#: ExitCode.PREEMPTED, whose module is not loaded yet.
PREEMPTED = 13

# The first process of a container has no default for SIGTERM: until a handler is there the signal
# is lost, and the pod would hold its GPU for the whole grace period. Loading the libraries takes
# seconds, so this comes first; ``main`` then takes over with an end that cleans up.
signal.signal(signal.SIGTERM, lambda *_: os._exit(PREEMPTED))

from tunesmith_trainer.main import main  # noqa: E402

sys.exit(main())
