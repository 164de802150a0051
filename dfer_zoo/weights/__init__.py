"""Weights: records, the manifest, and how a verified file gets onto this machine."""
