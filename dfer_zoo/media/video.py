"""Frames from video files, through PyAV.

Frames are decoded in order from the start and only the wanted ones are converted. This gives exact indices for every
file. In H.264 files, frames that no wanted frame depends on are not decoded.
"""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, MediaError
from . import h264
from .ahead import read_ahead
from .clip import check_size
from .container import open_container
from .limits import check_limit, limit

SAME_TIME = 1e-7  # seconds


@dataclass(frozen=True)
class VideoFile:
    """The frames of a video file. It holds no open file, so it can be pickled and sent to other processes."""

    path: Path
    count: int
    times: np.ndarray | None  # seconds of every frame, from 0; None where the file has no time stamps
    recover: bool = False
    start: float | None = None  # the time stamp of the first frame, in seconds
    groups: np.ndarray | None = None  # number of every frame's group, which decodes on its own; None: unknown

    @classmethod
    def of(cls, path: Path, recover: bool = False) -> VideoFile | None:
        """Index the frames of a file; None if it has no video."""
        with open_container(path) as container:
            stream = video_stream(container)
            if stream is None:
                return None
            check_size(stream.width, stream.height, str(path))
            stamps, groups, exact, end = _count(container, stream, path)
            announced = (container.duration or 0) / 1e6
        if not recover and announced - end > 0.1 * announced + 0.5:
            raise MediaError(
                f"{path}: the header says {announced:.1f} s, but the file ends after {end:.1f} s. "
                "It is damaged or cut off; recover=True reads what is left."
            )
        if recover or not exact:
            stamps, groups = list(_decodable(path)), None
        if not stamps:
            raise MediaError(f"{path}: no frames in this file; it may be cut off or damaged.")
        times = _seconds(stamps)
        return cls(path, len(stamps), times, recover, stamps[0], None if times is None else groups)

    @property
    def fps(self) -> float | None:
        """Frames per second from the time stamps; the mean if the rate varies."""
        if self.times is None or self.count < 2 or self.times[-1] <= 0:
            return None
        return _rate(self.count, float(self.times[-1]))

    def __len__(self) -> int:
        return self.count

    def take(self, indices: Sequence[int]) -> list[np.ndarray]:
        wanted = sorted(set(indices))
        found = dict(zip(wanted, self.in_order(wanted)))
        return [found[index] for index in indices]

    def in_order(self, indices: Iterable[int]) -> Iterator[np.ndarray]:
        """Yield frames at ascending indices. The file is read up to the last of them, in one pass and ahead."""
        wanted = collections.deque(indices)
        frames = self._in_order(wanted)
        return read_ahead(frames) if len(wanted) > 1 else frames

    def _in_order(self, wanted: collections.deque[int]) -> Iterator[np.ndarray]:
        if self.groups is not None:
            yield from self._sparse(wanted)
        yield from self._dense(iter(wanted))

    def _sparse(self, wanted: collections.deque[int]) -> Iterator[np.ndarray]:
        """Yield wanted frames, and decode only what they depend on. Stop at the first irregularity of the file.

        The frames that were not yielded stay in ``wanted``.
        """
        import av
        from av.video.reformatter import VideoReformatter

        to_rgb = VideoReformatter()
        with contextlib.suppress(av.error.FFmpegError):
            for frame, number in self._decoded_for(set(wanted)):
                if frame.is_corrupt or not wanted or number > wanted[0]:
                    return
                while wanted and wanted[0] == number:
                    yield _picture(frame, to_rgb, self.path, number)
                    wanted.popleft()

    def _decoded_for(self, wanted: set[int]) -> Iterator[tuple[Any, int]]:
        """Yield the wanted frames and their numbers."""
        assert self.groups is not None
        left = collections.Counter(self.groups[[i for i in wanted if 0 <= i < self.count]].tolist())
        group, skipped = -1, False
        with open_container(self.path) as container:
            stream = video_stream(container)
            if stream is None:
                return
            stream.thread_type = "AUTO"
            context = stream.codec_context

            def numbered(frames: Sequence[Any]) -> Iterator[tuple[Any, int]]:
                found = ((frame, self._number(frame, stream)) for frame in frames)
                return ((frame, number) for frame, number in found if number in wanted)

            for packet in container.demux(stream):
                if packet.size:
                    group += packet.is_keyframe
                    if self._number(packet, stream) in wanted:
                        left[group] -= 1
                    elif left[group] <= 0:
                        if not skipped:  # the next packet that is decoded starts a group
                            yield from numbered(context.decode(None))
                            context.flush_buffers()
                        skipped = True
                        continue
                    elif h264.is_unreferenced(packet):
                        continue
                    skipped = False
                if not (skipped and not packet.size):
                    yield from numbered(packet.decode())

    def _number(self, timed: Any, stream: Any) -> int:
        """Return the number of a frame or packet by its time stamp; -1 if no frame has it."""
        if timed.pts is None or self.times is None or self.start is None:
            return -1
        time = float(timed.pts * stream.time_base) - self.start
        number = int(np.searchsorted(self.times, time - SAME_TIME))
        return number if number < self.count and abs(self.times[number] - time) < SAME_TIME else -1

    def _dense(self, wanted: Iterator[int]) -> Iterator[np.ndarray]:
        """Yield wanted frames, and decode all frames up to the last of them."""
        target = next(wanted, None)
        if target is None:
            return
        from av.video.reformatter import VideoReformatter

        to_rgb = VideoReformatter()  # one converter for all frames; each frame would set up its own
        number = -1
        for number, frame in enumerate(_decoded(self.path, self.recover)):
            while target == number:
                yield _picture(frame, to_rgb, self.path, None if self.recover else number)
                target = next(wanted, None)
                if target is None:
                    return
                if target < number:
                    raise InputError(f"Frame {target} was requested after frame {number}; indices must ascend.")
        if not 0 <= target < self.count:
            raise MediaError(f"{self.path}: no frame {target}; the file has {self.count} frames.")
        raise MediaError(
            f"{self.path}: {self.count} frames are announced, but only {number + 1} can be decoded. "
            "The file is damaged or cut off; recover=True reads what is left."
        )


def _rate(count: int, last: float) -> float:
    """The mean rate of `count` frames, the last of which is shown at `last` seconds.

    Many files count time in milliseconds, which turns 30 into 30.003. If a common rate lies within that uncertainty,
    it is returned.

    >>> _rate(120, 3.967), _rate(31, 1.001), _rate(66, 3.9)
    (30.0, 29.97002997002997, 16.666666666666668)
    """
    rate = (count - 1) / last
    usual = min((round(rate), round(rate) * 1000 / 1001), key=lambda other: abs(other - rate))
    return float(usual) if usual and abs(usual - rate) <= 1e-3 / last * rate else rate


def video_stream(container: Any) -> Any:
    """The first video stream that is not the cover picture of a song."""
    import av

    pictures = av.stream.Disposition.attached_pic
    return next((s for s in container.streams.video if not s.disposition & pictures and s.codec_context), None)


def _count(container: Any, stream: Any, path: Path) -> tuple[list[float | None], np.ndarray | None, bool, float]:
    """(time stamp of every frame, its group, whether the count is exact, seconds of all streams), without decoding.

    The count in the header is not used: it may be 0, or the count before the file was cut. Packets that a cut file
    keeps only for decoding are marked as discarded. The groups are None where frames cannot be skipped.
    """
    stamps: list[float | None] = []
    groups: list[int] = []
    exact, group, regular = None, -1, h264.has_lengths(container, stream)
    begin = (container.start_time or 0) / 1e6
    end = 0.0
    most = limit("frames")
    for packet in container.demux():
        if not packet.size:
            continue
        # AVI numbers its frames in decoding order, and time stamps derived from that are wrong at the ends
        stamp = packet.dts if container.format.name == "avi" else packet.pts
        time = None if stamp is None else float(stamp * packet.time_base)
        if time is not None:
            end = max(end, time + float((packet.duration or 0) * packet.time_base) - begin)
        if packet.stream_index != stream.index:
            continue
        if exact is None:
            exact = bool(packet.is_keyframe)  # a file that starts between key frames loses frames at first
        group += packet.is_keyframe
        regular = regular and not packet.is_discard and (not packet.is_keyframe or h264.is_restart(packet))
        if not packet.is_discard and not _is_hidden(packet, stream):
            stamps.append(time)
            groups.append(group)
            if len(stamps) > most:
                check_limit("frames", len(stamps), f"{path}: the number of frames")
    if None not in stamps:
        order = np.argsort(np.array(stamps, float), kind="stable")  # packets come in decoding order
        return [stamps[i] for i in order], np.array(groups, np.int32)[order] if regular else None, bool(exact), end
    return stamps, None, bool(exact), end


def _is_hidden(packet: Any, stream: Any) -> bool:
    """Whether this is a VP8 packet with a reference picture that is never shown."""
    return stream.codec_context.name == "vp8" and not memoryview(packet)[0] >> 4 & 1


def _decoded(path: Path, recover: bool) -> Iterator[Any]:
    """Decoded frames in the order in which they are shown."""
    import av

    with open_container(path) as container:
        stream = video_stream(container)
        if stream is None:
            raise MediaError(f"{path}: the video is gone; the file was changed while it was read.")
        stream.thread_type = "AUTO"
        for packet in container.demux(stream):
            try:
                yield from packet.decode()
            except av.error.FFmpegError:
                if not recover:
                    raise


def _decodable(path: Path) -> Iterator[float | None]:
    """Time stamps of the frames that can be decoded, up to the point where the file breaks off."""
    with contextlib.suppress(MediaError):
        for number, frame in enumerate(_decoded(path, recover=True)):
            if number >= limit("frames"):
                return
            yield frame.time


def _seconds(stamps: Sequence[float | None]) -> np.ndarray | None:
    known = [stamp for stamp in stamps if stamp is not None]
    if len(known) < len(stamps):
        return None
    times = np.array(known) - known[0]
    return times if bool(np.all(np.diff(times) > 0)) else None


def _picture(frame: Any, to_rgb: Any, path: Path, number: int | None) -> np.ndarray:
    """An upright RGB frame. Phones film sideways and note it in the file; decoders do not apply it."""
    check_size(frame.width, frame.height, str(path))
    if number is not None and frame.is_corrupt:
        raise MediaError(f"{path}: frame {number} is damaged; recover=True reads what is left.")
    # the interpolation is ffmpeg's default; it matters where chroma is stretched to an odd width or height
    picture = to_rgb.reformat(frame, format="rgb24", interpolation="BICUBIC").to_ndarray()
    turns = round(frame.rotation / 90) % 4
    if _is_mirrored(frame):
        picture = picture[::-1]
    return np.ascontiguousarray(np.rot90(picture, turns))


def _is_mirrored(frame: Any) -> bool:
    """Whether the file's display matrix flips its frames, in addition to rotating them."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return False
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].astype(float)
    return a * d < b * c
