"""One file per architecture; `registry.MODELS` names the classes, and nothing is imported before it is asked for."""
