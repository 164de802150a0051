"""Train a model by a recipe, in Python. `dfer-zoo train puppets_demo --out runs/demo` does the same.

    python examples/finetune.py runs/demo

The loop itself is `dfer_zoo/training/loop.py`: copy that file and change it for what recipes cannot say.
"""

import sys
from pathlib import Path

from dfer_zoo.training.loop import train
from dfer_zoo.training.recipe import read_recipe

if __name__ == "__main__":
    recipe = read_recipe("puppets_demo", ["train.epochs=2", "data.train=puppets:clips=64,seed=1"])
    progress = train(recipe, Path(sys.argv[1] if len(sys.argv) > 1 else "runs/demo"))
    print(progress["history"][-1])
