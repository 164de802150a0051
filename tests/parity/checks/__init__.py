"""One file per architecture; each has CHECKS: kind -> function(case) yielding comparisons."""
