"""The smallest sensible configuration of every architecture, for tests that run all of them.

`TINY[arch]` are constructor arguments; a model made from them does a forward pass in well under a second.
"""

TINY: dict[str, dict] = {}
