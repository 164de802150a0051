"""``python -m dfer_zoo`` is ``dfer-zoo``."""

import sys

from .cli import main

sys.exit(main())
