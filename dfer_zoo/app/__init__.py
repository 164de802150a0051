"""The page in the browser, `dfer-zoo app` (the extra "app"): a clip in, its timeline and a table out."""
