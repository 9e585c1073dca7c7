"""``python -m tunesmith_trainer``."""

import sys

from tunesmith_trainer.main import main

sys.exit(main())
