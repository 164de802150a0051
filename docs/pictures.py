"""Draw the pictures of the README and the docs: `make pictures`. They show drawn test clips, not people."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from dfer_zoo import Recognizer  # noqa: E402
from dfer_zoo.data.puppets import SECONDS  # noqa: E402
from dfer_zoo.demo import EMOTIONS, performance  # noqa: E402
from dfer_zoo.inference.plots import THEMES, timeline_figure, write_figure  # noqa: E402
from dfer_zoo.media.write import write_mp4  # noqa: E402


def draw(folder: Path) -> list[Path]:
    """Write all pictures.

    Args:
        folder: The output folder.

    Returns:
        Their paths.
    """
    with tempfile.TemporaryDirectory() as place:
        video = write_mp4(performance(), Path(place) / "puppet.mp4")
        recognizer = Recognizer("av_fusion", "puppets", faces="none", window=SECONDS, stride=SECONDS / 4, thumbnails=8)
        answer = recognizer(video)
    title = f"puppet.mp4: {', then '.join(EMOTIONS)} (a drawn test object)"
    return [
        write_figure(folder / f"timeline_{theme}.png", timeline_figure(answer, title, theme=theme)) for theme in THEMES
    ]


if __name__ == "__main__":
    folder = ROOT / "docs" / "pictures"
    folder.mkdir(exist_ok=True)
    for path in draw(folder):
        print(f"wrote: {path.relative_to(ROOT)}")
