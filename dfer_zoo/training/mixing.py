"""What the published recipes do to a batch before the network sees it: mixed clips, soft targets, dropped modalities."""

from __future__ import annotations
