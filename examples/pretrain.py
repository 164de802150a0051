"""Pre-train MAE-DFER on your own video, in Python, and start a fine-tuning from it. `dfer-zoo pretrain` does the first.

    python examples/pretrain.py runs/pretrain

Here the clips are drawn and the network is small; give a folder of videos and leave `model_args` out for the real thing.
"""

import sys
from pathlib import Path

import dfer_zoo
from dfer_zoo.training.pretrain import Settings, pretrain
from dfer_zoo.weights.safetensors import read_safetensors

SMALL = {
    "img_size": 64,
    "num_frames": 8,
    "width": 48,
    "depth": 2,
    "num_heads": 4,
    "region": (2, 2, 4),
    "decoder_width": 36,
}
SMALL |= {"decoder_depth": 2, "decoder_heads": 3}

if __name__ == "__main__":
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/pretrain")
    pretrain(Settings("puppets:clips=16,size=64", epochs=2, warmup_epochs=1, batch_size=8, model_args=SMALL), out)
    args = {name: value for name, value in SMALL.items() if not name.startswith("decoder")}
    model = dfer_zoo.create_model("mae_dfer", labels=["happy", "sad"], **args)
    states = {"encoder": read_safetensors(out / "last" / "model.safetensors")[0]}
    print(model.load_backbones(states))
