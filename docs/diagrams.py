"""Draw the diagrams of the systems as SVG, light and dark: `make diagrams`; `--check` only reports stale files.

A diagram is a list of rows from the input (top) to the output (bottom). Rows contain boxes, and arrows connect boxes.
Colors show how the published training treats a part. Frozen parts also have a dashed border.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "pictures"

WIDTH, COLUMNS = 620, 12
TITLE, LINE, PAD, GAP = 15, 14, 10, 30
FONT = "system-ui, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
THEMES = {
    "light": {
        "text": "#1d2029", "soft": "#4b5162", "line": "#6b7183", "frame": "#9aa0b2",
        "input": "#e9ebf1", "trained": "#fde3c4", "frozen": "#d7e8f7", "fixed": "#f6f7fa", "output": "#d3eedd",
    },
    "dark": {
        "text": "#eceef4", "soft": "#b9bfce", "line": "#98a0b3", "frame": "#6b7388",
        "input": "#343947", "trained": "#67401a", "frozen": "#1d4266", "fixed": "#262a35", "output": "#1c5138",
    },
}  # fmt: skip
MEANING = {
    "input": "input", "trained": "trained", "frozen": "frozen", "fixed": "no weights", "output": "output",
}  # fmt: skip


@dataclass
class Box:
    """A part: its name in bold, a description, and its position in the row (in twelfths of the width)."""

    name: str
    title: str
    lines: tuple[str, ...] = ()
    kind: str = "trained"
    at: float = 0
    width: float = COLUMNS
    top: float = 0
    height: float = 0

    @property
    def left(self) -> float:
        return 16 + self.at * (WIDTH - 32) / COLUMNS + 6

    @property
    def right(self) -> float:
        return 16 + (self.at + self.width) * (WIDTH - 32) / COLUMNS - 6


def box(name: str, title: str, *lines: str, kind: str = "trained", at: float = 0, width: float = COLUMNS) -> Box:
    return Box(name, title, lines, kind, at, width)


@dataclass
class Diagram:
    """Rows of boxes, arrows "from>to" or "from<>to" with an optional label, and frames around boxes with a label."""

    about: str
    rows: list[list[Box]]
    arrows: list[tuple[str, str]] = field(default_factory=list)
    frames: list[tuple[str, str]] = field(default_factory=list)
    legend: bool = True

    def boxes(self) -> dict[str, Box]:
        return {b.name: b for row in self.rows for b in row}

    def place(self) -> float:
        """Set the height and position of every box. Return the height of the picture."""
        y = 14.0
        opening = {names.split()[0] for names, _ in self.frames}
        closing = {names.split()[-1] for names, _ in self.frames}
        for row in self.rows:
            if any(b.name in opening for b in row):
                y += 26
            height = max(PAD * 2 + TITLE + len(b.lines) * (LINE + 4) for b in row)
            for b in row:
                b.top, b.height = y, height
            y += height + GAP + (8 if any(b.name in closing for b in row) else 0)
        return y - GAP + (36 if self.legend else 12)

    def draw(self, theme: str) -> str:
        colour = THEMES[theme]
        height = self.place()
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" '
            f'height="{height:.0f}" role="img" font-family="{FONT}">',
            f"<title>{escape(self.about)}</title>",
            f'<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
            f'orient="auto-start-reverse"><path d="M0 0 L8 4 L0 8 z" fill="{colour["line"]}"/></marker></defs>',
            *self.draw_frames(colour),
            *self.draw_arrows(colour),
            *(part for b in self.boxes().values() for part in draw_box(b, colour)),
            *(self.draw_legend(colour, height - 14) if self.legend else ()),
            "</svg>",
        ]
        return "\n".join(parts) + "\n"

    def draw_frames(self, colour: dict[str, str]) -> Iterator[str]:
        boxes = self.boxes()
        for names, label in self.frames:
            inside = [boxes[name] for name in names.split()]
            left, right = min(b.left for b in inside) - 10, max(b.right for b in inside) + 10
            top, bottom = min(b.top for b in inside) - 26, max(b.top + b.height for b in inside) + 10
            yield (
                f'<rect x="{left:.0f}" y="{top:.0f}" width="{right - left:.0f}" height="{bottom - top:.0f}" rx="12" '
                f'fill="none" stroke="{colour["frame"]}" stroke-width="1.2"/>'
            )
            yield text(right - 12, top + 17, label, colour["soft"], LINE, anchor="end", weight=600)

    def draw_arrows(self, colour: dict[str, str]) -> Iterator[str]:
        boxes = self.boxes()
        for link, label in self.arrows:
            both = "<>" in link
            start, end = (boxes[name.strip()] for name in link.split("<>" if both else ">"))
            path, x, y = route(start, end)
            tips = 'marker-end="url(#tip)"' + (' marker-start="url(#tip)"' if both else "")
            yield f'<path d="{path}" fill="none" stroke="{colour["line"]}" stroke-width="1.6" {tips}/>'
            if label:
                yield text(x, y, label, colour["soft"], LINE)

    def draw_legend(self, colour: dict[str, str], y: float) -> Iterator[str]:
        x = 22.0
        for kind in [k for k in MEANING if any(b.kind == k for b in self.boxes().values())]:
            dash = ' stroke-dasharray="4 2"' if kind == "frozen" else ""
            yield (
                f'<rect x="{x:.0f}" y="{y - 11:.0f}" width="18" height="13" rx="3" fill="{colour[kind]}" '
                f'stroke="{colour["line"]}"{dash}/>'
            )
            yield text(x + 24, y, MEANING[kind], colour["soft"], LINE)
            x += 44 + 7.4 * len(MEANING[kind]) + 12


def route(start: Box, end: Box) -> tuple[str, float, float]:
    """Return the path of an arrow and the position of its label."""
    if start.top == end.top:
        y = start.top + start.height / 2
        a, b = (start.right, end.left) if start.left < end.left else (start.left, end.right)
        return f"M{a:.0f} {y:.0f} H{b:.0f}", min(a, b) + 6, y - 6
    down = start.top < end.top
    y1, y2 = (start.top + start.height, end.top) if down else (start.top, end.top + end.height)
    low, high = max(start.left, end.left), min(start.right, end.right)
    if high - low > 16:  # one above the other
        x = (low + high) / 2
        return f"M{x:.0f} {y1:.0f} V{y2:.0f}", x + 8, (y1 + y2) / 2 + 4
    x1, x2 = (start.left + start.right) / 2, (end.left + end.right) / 2
    middle = y2 - GAP / 2
    return f"M{x1:.0f} {y1:.0f} V{middle:.0f} H{x2:.0f} V{y2:.0f}", x2 + 8, (y1 + y2) / 2 + 4


def draw_box(b: Box, colour: dict[str, str]) -> Iterator[str]:
    dash = ' stroke-dasharray="6 3"' if b.kind == "frozen" else ""
    yield (
        f'<rect x="{b.left:.0f}" y="{b.top:.0f}" width="{b.right - b.left:.0f}" height="{b.height:.0f}" rx="8" '
        f'fill="{colour[b.kind]}" stroke="{colour["line"]}" stroke-width="1.4"{dash}/>'
    )
    middle = (b.left + b.right) / 2
    used = TITLE + len(b.lines) * (LINE + 4)
    y = b.top + (b.height - used) / 2 + TITLE - 2
    yield text(middle, y, b.title, colour["text"], TITLE, anchor="middle", weight=650)
    for line in b.lines:
        y += LINE + 4
        yield text(middle, y, line, colour["soft"], LINE, anchor="middle")


def text(x: float, y: float, words: str, fill: str, size: int, *, anchor: str = "start", weight: int = 400) -> str:
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" fill="{fill}" font-size="{size}" font-weight="{weight}" '
        f'text-anchor="{anchor}">{escape(words)}</text>'
    )


# -- the systems -------------------------------------------------------------------------------------------------------

DIAGRAMS: dict[str, Diagram] = {}

DIAGRAMS["mma_dfer"] = Diagram(
    "MMA-DFER: two frozen ViTs that exchange their means after every block",
    [
        [
            box("frames", "16 face frames", "3 x 224 x 224, not normalised", kind="input", width=6),
            box("sound", "Sound", "log-mel spectrogram 512 x 128", kind="input", at=6, width=6),
        ],
        [
            box("fp", "Patches + 6 prompts", "prompts renewed after blocks 0 and 6", kind="trained", width=6),
            box("sp", "Patches + 6 prompts", "prompts renewed after blocks 0 and 6", kind="trained", at=6, width=6),
        ],
        [
            box("fb", "ViT-B/16 block of MAE-Face", "each frame alone", kind="frozen", width=6),
            box("sb", "ViT-B/16 block of AudioMAE", kind="frozen", at=6, width=6),
        ],
        [
            box(
                "ex", "Exchange", "project to 128 channels, add the other modality's mean,",
                "project back through a gate that starts at zero",
            )
        ],
        [
            box("fc", "Class token of every frame", kind="fixed", width=6),
            box("sc", "Class token of the sound", kind="fixed", at=6, width=6),
        ],
        [box("sum", "Sum", "the sound is added to every frame", kind="fixed", at=3, width=6)],
        [box("time", "Projection to 512, transformer layer", "over the 16 frames", at=1, width=10)],
        [box("out", "Linear classifier", "7 classes (DFEW) or 11 (MAFW)", kind="output", at=3, width=6)],
    ],
    [
        ("frames>fp", ""), ("sound>sp", ""), ("fp>fb", ""), ("sp>sb", ""), ("fb>ex", ""), ("sb>ex", ""),
        ("ex>fc", ""), ("ex>sc", ""), ("fc>sum", ""), ("sc>sum", ""), ("sum>time", ""), ("time>out", ""),
    ],
    [("fb sb ex", "x 12")],
)  # fmt: skip

DIAGRAMS["mae_face"] = Diagram(
    "MAE-Face: a ViT-B/16 for single faces",
    [
        [box("image", "One face", "3 x 224 x 224, not normalised", kind="input", at=3, width=6)],
        [box("patches", "196 patches of 16 x 16 and a class token", at=2, width=8)],
        [box("block", "Transformer block, width 768", at=2, width=8)],
        [
            box("mean", 'pooling="mean"', "mean of the patches, own norm:", "fine-tuning", width=6),
            box("class", 'pooling="class"', "norm, class token:", "the pre-trained encoder", at=6, width=6),
        ],
        [box("out", "Features, or a linear classifier", kind="output", at=2, width=8)],
    ],
    [
        ("image>patches", ""), ("patches>block", ""), ("block>mean", ""), ("block>class", ""),
        ("mean>out", ""), ("class>out", ""),
    ],
    [("block", "x 12")],
)  # fmt: skip

DIAGRAMS["audio_mae"] = Diagram(
    "AudioMAE: a ViT-B/16 for spectrograms",
    [
        [box("sound", "Sound at 16 kHz", "log-mel spectrogram 1024 x 128", kind="input", at=3, width=6)],
        [box("patches", "512 patches of 16 x 16 and a class token", "fixed sine-cosine positions", at=2, width=8)],
        [box("block", "Transformer block, width 768", at=2, width=8)],
        [
            box("mean", 'pooling="mean"', "mean of the patches, own norm", width=6),
            box("class", 'pooling="class"', "norm, class token", at=6, width=6),
        ],
        [box("out", "Features, or the 527 classes of AudioSet", kind="output", at=2, width=8)],
    ],
    [
        ("sound>patches", ""), ("patches>block", ""), ("block>mean", ""), ("block>class", ""),
        ("mean>out", ""), ("class>out", ""),
    ],
    [("block", "x 12")],
)  # fmt: skip

DIAGRAMS["mae_dfer"] = Diagram(
    "MAE-DFER: local, global and interaction attention over eight regions of a clip",
    [
        [box("frames", "16 face frames", "3 x 160 x 160", kind="input", at=3, width=6)],
        [box("tokens", "800 tubelets of 2 x 16 x 16", "8 regions of 2 x 5 x 10 tubelets,", "each with a region token; width 512", at=1, width=10)],
        [box("local", "Local attention", "the 100 tokens of a region and its region token attend", "to each other", at=1, width=10)],
        [box("global", "Global attention", "the 8 region tokens attend to each other", at=1, width=10)],
        [box("inter", "Interaction", "all 800 tokens attend to the 8 region tokens", at=1, width=10)],
        [box("mlp", "MLP", at=1, width=10)],
        [box("mean", "Mean of the 8 region tokens, norm", at=2, width=8)],
        [box("out", "Linear classifier", "probabilities of the first and the last 16 frames are averaged", kind="output", at=1, width=10)],
    ],
    [
        ("frames>tokens", ""), ("tokens>local", ""), ("local>global", ""), ("global>inter", ""), ("inter>mlp", ""),
        ("mlp>mean", ""), ("mean>out", ""),
    ],
    [("local global inter mlp", "LGI-Former block x 16")],
)  # fmt: skip

DIAGRAMS["mae_dfer_pretrain"] = Diagram(
    "Pre-training of MAE-DFER: nine tenths of the tokens are masked and predicted",
    [
        [box("frames", "16 face frames of VoxCeleb2", "3 x 160 x 160", kind="input", at=3, width=6)],
        [
            box("seen", "A tenth of the tubelets", "the same places in all frames", kind="fixed", width=6),
            box("hidden", "Nine tenths are masked", "a learned mask token each", kind="fixed", at=6, width=6),
        ],
        [box("encoder", "LGI-Former", "16 blocks, width 512", width=6)],
        [box("decoder", "Decoder", "4 plain blocks over all places, width 384")],
        [
            box("pixels", "First frame of each tubelet", kind="output", width=6),
            box("change", "Difference to the second frame", kind="output", at=6, width=6),
        ],
    ],
    [
        ("frames>seen", ""), ("frames>hidden", ""), ("seen>encoder", ""), ("encoder>decoder", ""),
        ("hidden>decoder", ""), ("decoder>pixels", ""), ("decoder>change", ""),
    ],
)  # fmt: skip

DIAGRAMS["video_mae"] = Diagram(
    "VideoMAE: a plain ViT over all tubelets of a clip",
    [
        [box("frames", "16 face frames", "3 x 160 x 160", kind="input", at=3, width=6)],
        [box("tokens", "800 tubelets of 2 x 16 x 16", at=2, width=8)],
        [box("block", "Transformer block, width 768", "every token attends to all 800", at=2, width=8)],
        [box("mean", "Mean of the tokens, norm", at=2, width=8)],
        [box("out", "Linear classifier", kind="output", at=3, width=6)],
    ],
    [("frames>tokens", ""), ("tokens>block", ""), ("block>mean", ""), ("mean>out", "")],
    [("block", "x 12")],
)

DIAGRAMS["av_fusion"] = Diagram(
    "AV fusion: two small branches, fused between or after their stages; either may be missing",
    [
        [
            box("frames", "15 face frames, or none", "3 x 224 x 224, BGR", kind="input", width=6),
            box("sound", "3.6 s of sound, or none", "10 MFCCs x 156 steps", kind="input", at=6, width=6),
        ],
        [
            box("face", "EfficientFace", "each frame alone, 1024 features", width=6),
            box("a1", "Sound, stage 1", "two convolutions along time", at=6, width=6),
        ],
        [box("v1", "Frames, stage 1", "two convolutions along time", width=6)],
        [
            box(
                "fuse", "Fusion between the stages", "ia: each step is weighted by the attention it receives",
                "it: a cross-attention block in both directions",
            )
        ],
        [box("v2", "Frames, stage 2", width=6), box("a2", "Sound, stage 2", at=6, width=6)],
        [box("late", "Or fusion after the stages", "lt: a cross-attention block in both directions")],
        [box("means", "Means over time, 128 + 128 numbers", kind="fixed", at=2, width=8)],
        [box("out", "Linear classifier", "8 classes (RAVDESS)", kind="output", at=3, width=6)],
    ],
    [
        ("frames>face", ""), ("face>v1", ""), ("sound>a1", ""), ("v1>fuse", ""), ("a1>fuse", ""), ("fuse>v2", ""),
        ("fuse>a2", ""), ("v2>late", ""), ("a2>late", ""), ("late>means", ""), ("means>out", ""),
    ],
)  # fmt: skip

DIAGRAMS["efficient_face"] = Diagram(
    "EfficientFace: a ShuffleNet V2 with local features and a modulator",
    [
        [box("image", "One face", "3 x 224 x 224", kind="input", at=3, width=6)],
        [box("stem", "Convolution, max pooling", "29 channels, a quarter of the size", at=3, width=6)],
        [
            box("stage2", "Stage 2", "4 shuffle units", width=6),
            box("local", "Local features", "one small network per quadrant", at=6, width=6),
        ],
        [box("gate", "Modulator", "channel gate times spatial gate", width=6)],
        [box("sum", "Sum", kind="fixed", at=4, width=4)],
        [box("rest", "Stages 3 and 4, convolution to 1024, mean", "8 and 4 shuffle units", at=2, width=8)],
        [box("out", "Linear classifier", kind="output", at=3, width=6)],
    ],
    [
        ("image>stem", ""), ("stem>stage2", ""), ("stem>local", ""), ("stage2>gate", ""), ("gate>sum", ""),
        ("local>sum", ""), ("sum>rest", ""), ("rest>out", ""),
    ],
)  # fmt: skip

DIAGRAMS["dfer_clip"] = Diagram(
    "DFER-CLIP: a clip is compared with a description of each class",
    [
        [
            box("frames", "16 face frames", "3 x 224 x 224, not normalised", kind="input", width=6),
            box("texts", "One description per class", '"a smiling mouth, raised cheeks, ..."', kind="input", at=6, width=6),
        ],
        [
            box("image", "CLIP image encoder", "ViT-B/32, each frame alone", width=6),
            box("context", "Learned contexts", "a few vectors before the text", at=6, width=6),
        ],
        [
            box("time", "Temporal transformer", "class token, positions, one layer", width=6),
            box("text", "CLIP text encoder", kind="frozen", at=6, width=6),
        ],
        [
            box("clip", "Clip embedding", "512 numbers", kind="fixed", width=6),
            box("names", "Class embeddings", "computed once", kind="fixed", at=6, width=6),
        ],
        [box("out", "Cosine similarity / 0.01", "one logit per class; no linear classifier", kind="output", at=2, width=8)],
    ],
    [
        ("frames>image", ""), ("texts>context", ""), ("image>time", ""), ("context>text", ""), ("time>clip", ""),
        ("text>names", ""), ("clip>out", ""), ("names>out", ""),
    ],
)  # fmt: skip

DIAGRAMS["dk_clip"] = Diagram(
    "DK-CLIP: snippets of a clip, and class texts that attend to the kept snippets",
    [
        [
            box("frames", "16 face frames", "4 snippets of 4 frames", kind="input", width=8),
            box("texts", "Class texts", "about action units", kind="input", at=8, width=4),
        ],
        [
            box("local", "Local tower (CFAM)", "CLIP ViT-B/16; the frames of a group exchange", "messages in each of 12 blocks", width=8),
            box("text", "CLIP text tower", kind="frozen", at=8, width=4),
        ],
        [
            box("snip", "Snippet interaction", "MSIM: one block over", "mean class tokens;", "random, not trained", kind="frozen", width=4),
            box("sem", "Semantic tower", "12 blocks over", "mean patches;", "random, not trained", kind="frozen", at=4, width=4),
        ],
        [
            box("clip", "Clip embedding", "512 numbers", kind="fixed", width=4),
            box("erase", "Erasing", "snippets unlike the clip", kind="fixed", at=4, width=4),
        ],
        [box("cond", "Text conditioning", "class texts attend to the kept patches", at=4, width=8)],
        [box("out", "Cosine similarity, scaled", "one logit per class; snippets have logits too", kind="output", at=1, width=10)],
    ],
    [
        ("frames>local", ""), ("texts>text", ""), ("local>snip", ""), ("local>sem", ""), ("snip>clip", ""),
        ("sem>erase", ""), ("clip>erase", ""), ("erase>cond", ""), ("text>cond", ""), ("clip>out", ""), ("cond>out", ""),
    ],
)  # fmt: skip

DIAGRAMS["mini_xception"] = Diagram(
    "mini-Xception: four residual modules on a small gray face",
    [
        [box("image", "One gray face", "64 x 64, values in [-1, 1]", kind="input", at=3, width=6)],
        [box("conv", "Two 3 x 3 convolutions", "8 channels", at=3, width=6)],
        [
            box("deep", "Two separable convolutions,", "max pooling", width=7),
            box("short", "1 x 1 convolution,", "stride 2", at=7, width=5),
        ],
        [box("sum", "Sum", "half the size, 16 / 32 / 64 / 128 channels", kind="fixed", at=2, width=8)],
        [box("head", "3 x 3 convolution", "one map per class", at=3, width=6)],
        [box("out", "Mean of each map", "7 logits; a clip is the mean over five frames a second", kind="output", at=1, width=10)],
    ],
    [
        ("image>conv", ""), ("conv>deep", ""), ("conv>short", ""), ("deep>sum", ""), ("short>sum", ""),
        ("sum>head", ""), ("head>out", ""),
    ],
    [("deep short sum", "residual module x 4")],
)  # fmt: skip

DIAGRAMS["emo_affectnet_static"] = Diagram(
    "EMO-AffectNet, the image network: a ResNet50",
    [
        [box("image", "One face", "3 x 224 x 224, BGR, mean subtracted", kind="input", at=2, width=8)],
        [box("net", "ResNet50", "stride in the first convolution of a bottleneck", at=2, width=8)],
        [box("embed", "Linear, ReLU", "512 features", at=2, width=8)],
        [box("out", "Linear classifier", "7 classes (AffectNet)", kind="output", at=3, width=6)],
    ],
    [("image>net", ""), ("net>embed", ""), ("embed>out", "")],
)

DIAGRAMS["emo_affectnet"] = Diagram(
    "EMO-AffectNet: the features of ten faces go through two LSTM layers",
    [
        [box("faces", "10 faces, five a second", "3 x 224 x 224, BGR, mean subtracted", kind="input", at=2, width=8)],
        [box("net", "Image network", "ResNet50, 512 features; each face alone", kind="frozen", at=2, width=8)],
        [box("one", "LSTM, 512", at=2, width=8)],
        [box("two", "LSTM, 256; the last state", at=2, width=8)],
        [box("head", "Linear classifier", at=2, width=8)],
        [box("out", "Mean over windows", "a window of two seconds begins every second", kind="output", at=2, width=8)],
    ],
    [("faces>net", ""), ("net>one", ""), ("one>two", ""), ("two>head", ""), ("head>out", "")],
)

DIAGRAMS["s2d"] = Diagram(
    "S2D: a frozen image model; prompt blocks add landmark features and time between its blocks",
    [
        [box("frames", "16 face frames", "3 x 224 x 224", kind="input", at=3, width=6)],
        [
            box("patches", "14 x 14 patches", "ViT-B/16 of s2d_image", kind="frozen", width=6),
            box("marks", "MobileFaceNet", "14 x 14 landmark features", kind="frozen", at=6, width=6),
        ],
        [
            box("adapter", "Temporal adapter", "each patch attends along the frames", width=6),
            box("prompt", "Prompter", "patches + landmarks, 8 channels", at=6, width=6),
        ],
        [box("add", "Added to the patches", "the prompt goes on to the next prompt block", kind="fixed")],
        [box("block", "ViT block", "each frame alone", kind="frozen")],
        [box("mean", "Class token of every frame, norm", "mean over the frames", at=1, width=10)],
        [box("out", "Linear classifier", kind="output", at=3, width=6)],
    ],
    [
        ("frames>patches", ""), ("frames>marks", ""), ("patches>adapter", ""), ("marks>prompt", ""),
        ("adapter>add", ""), ("prompt>add", ""), ("add>block", ""), ("block>mean", ""), ("mean>out", ""),
    ],
    [("adapter prompt add block", "x 12")],
)  # fmt: skip

DIAGRAMS["s2d_image"] = Diagram(
    "S2D, the image model: a ViT-B/16 whose patches are prompted with landmark features",
    [
        [box("image", "One face", "3 x 224 x 224", kind="input", at=3, width=6)],
        [
            box("patches", "14 x 14 patches", width=6),
            box("marks", "MobileFaceNet", "14 x 14 landmark features", kind="frozen", at=6, width=6),
        ],
        [box("prompt", "Prompter", "patches + landmarks, added to the patches")],
        [box("block", "ViT block, width 768")],
        [box("out", "Class token, linear classifier", "7 classes (AffectNet)", kind="output", at=2, width=8)],
    ],
    [
        ("image>patches", ""), ("image>marks", ""), ("patches>prompt", ""), ("marks>prompt", ""), ("prompt>block", ""),
        ("block>out", ""),
    ],
    [("prompt block", "x 12")],
)  # fmt: skip

DIAGRAMS["mobile_face_net"] = Diagram(
    "MobileFaceNet: 68 landmarks of a face; S2D reads its features half way",
    [
        [box("image", "One face", "3 x 112 x 112", kind="input", at=3, width=6)],
        [box("stem", "Two convolutions", "64 channels, 56 x 56", at=2, width=8)],
        [box("b1", "Inverted bottlenecks, stages 1 and 2", "128 channels, 14 x 14", at=2, width=8)],
        [
            box("s2d", "Features for S2D", "196 x 128", kind="output", width=4),
            box("b2", "Inverted bottlenecks, stage 3", "128 channels, 7 x 7", at=4, width=8),
        ],
        [box("pool", "Expand to 512, learned weighted mean", "over 7 x 7 places", at=4, width=8)],
        [box("out", "Linear: 68 points (x, y)", "fractions of width and height", kind="output", at=4, width=8)],
    ],
    [("image>stem", ""), ("stem>b1", ""), ("b1>s2d", ""), ("b1>b2", ""), ("b2>pool", ""), ("pool>out", "")],
)

DIAGRAMS["hicmae"] = Diagram(
    "HiCMAE: two plain encoders, cross-attention, and learned means over all layers",
    [
        [
            box("frames", "16 face frames", "3 x 160 x 160", kind="input", width=6),
            box("sound", "2.56 s of the same sound", "log-mel spectrogram 256 x 128", kind="input", at=6, width=6),
        ],
        [
            box("ve", "10 ViT blocks", "800 tubelets of 2 x 16 x 16", width=6),
            box("ae", "10 ViT blocks", "128 patches of 16 x 16", at=6, width=6),
        ],
        [
            box("vm", "Layer means", "learned weights", width=3),
            box("fusion", "2 pairs of cross blocks", "each modality attends to the other", at=3, width=6),
            box("am", "Layer means", "learned weights", at=9, width=3),
        ],
        [box("cat", "4 x 512 numbers, norm", "two layer means, and the mean tokens of both fused modalities", at=1, width=10)],
        [box("out", "Linear classifier", "probabilities of the first and the last frames are averaged", kind="output", at=1, width=10)],
    ],
    [
        ("frames>ve", ""), ("sound>ae", ""), ("ve>vm", ""), ("ve>fusion", ""), ("ae>fusion", ""), ("ae>am", ""),
        ("vm>cat", ""), ("fusion>cat", ""), ("am>cat", ""), ("cat>out", ""),
    ],
)  # fmt: skip

DIAGRAMS["hicmae_pretrain"] = Diagram(
    "Pre-training of HiCMAE: masked tokens of both modalities are predicted, and layers are aligned",
    [
        [
            box("frames", "16 face frames", "nine tenths masked", kind="input", width=6),
            box("sound", "Spectrogram", "four fifths masked", kind="input", at=6, width=6),
        ],
        [
            box("ve", "Video encoder", "10 ViT blocks, visible tokens", width=5),
            box("ae", "Audio encoder", "10 ViT blocks, visible tokens", at=7, width=5),
        ],
        [box("fusion", "2 pairs of cross blocks", at=2, width=8)],
        [
            box("vd", "Video decoder", "also attends to layers 10, 7, 4", width=6),
            box("ad", "Audio decoder", "also attends to layers 10, 7, 4", at=6, width=6),
        ],
        [
            box("vo", "Frames and differences", kind="output", width=6),
            box("ao", "Patches of the spectrogram", kind="output", at=6, width=6),
        ],
    ],
    [
        ("frames>ve", ""), ("sound>ae", ""), ("ve<>ae", "contrast"), ("ve>fusion", ""), ("ae>fusion", ""),
        ("fusion>vd", ""), ("fusion>ad", ""), ("vd>vo", ""), ("ad>ao", ""),
    ],
)  # fmt: skip


def layers(*rows: dict[str, str]) -> list[list[Box]]:
    """Return rows of folders with their contents. A folder imports only folders of lower rows."""
    return [
        [
            box(name, name, *filter(None, [what]), kind="input", at=12 / len(row) * i, width=12 / len(row))
            for i, (name, what) in enumerate(row.items())
        ]
        for row in rows
    ]


# Diagrams of other pages
OTHERS = {
    "imports": Diagram(
        "The folders in the order of their imports: each one imports only folders of lower rows",
        layers(
            {"cli": "commands"},
            {"app": "page", "demo": "", "training": "recipes, loop"},
            {"inference": "Recognizer, evaluation, tables, plots, export"},
            {"data": "lists, preparation, puppets"},
            {"transforms": "from clips to tensors", "factory": "create_model"},
            {"checkpoints": "reads the authors' files"},
            {"saving": "files and Hub", "convert": "key maps"},
            {"models": "networks", "media": "files, faces", "registry": "names"},
            {"weights": "records, origins, store"},
        ),
        legend=False,
    ),
    "pipeline": Diagram(
        "How a file becomes an answer: the record of the weights decides how the clip is read, cropped and sampled",
        [
            [
                box("file", "Your file", "video, frames, sound, bytes", kind="input", width=5),
                box("record", "Record of the weights", "labels, frames, crop, sound, licence", kind="input", at=5, width=7),
            ],
            [box("clip", "Clip", "decoded on demand", kind="fixed", width=5)],
            [
                box("transform", "Transform", "finds and crops faces,", "samples frames, computes spectrograms", kind="fixed", width=7),
                box("weights", "Verified weights", "fetched, converted,", "hashed", at=7, width=5),
            ],
            [box("model", "Model", "strictly loaded; one file per system", at=2, width=8)],
            [box("mean", "Mean over views, windows, models", kind="fixed", at=2, width=8)],
            [box("answer", "Prediction", "label, probabilities, timeline, tables", kind="output", at=2, width=8)],
        ],
        [
            ("file>clip", ""), ("clip>transform", ""), ("record>transform", ""), ("record>weights", ""),
            ("transform>model", ""), ("weights>model", ""), ("model>mean", ""), ("mean>answer", ""),
        ],
    ),
}  # fmt: skip


def pictures() -> dict[Path, str]:
    """Return {file: content} for every system and theme."""
    return {
        FOLDER / f"{name}_{theme}.svg": diagram.draw(theme)
        for name, diagram in (DIAGRAMS | OTHERS).items()
        for theme in THEMES
    }


def write(files: dict[Path, str]) -> int:
    """Write files that differ; with `--check`, only report them with exit status 1."""
    stale = [path for path, text in files.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        print(f"{'stale' if '--check' in sys.argv else 'wrote'}: {path.relative_to(ROOT)}")
        if "--check" not in sys.argv:
            path.write_text(files[path], encoding="utf-8")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(write(pictures()))
