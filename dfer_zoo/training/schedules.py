"""Learning rates of the published recipes, as plain functions of an epoch or an update."""

from __future__ import annotations
