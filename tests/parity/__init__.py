"""Numbers of the authors' released code, and the checks that hold ours against them.

`python -m tests.parity FILE_OR_FOLDER ...` checks any case file, wherever it lies.
"""
