"""``python -m dfer_zoo`` is ``dfer-zoo``."""

from .cli import run

run()
