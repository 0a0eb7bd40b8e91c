"""``python -m edgedl`` is ``edgedl``."""

import sys

from edgedl.cli import main

sys.exit(main())
