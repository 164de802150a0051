"""The web page of `dfer-zoo app` (extra "app"): upload a clip, get its timeline and a table."""
