"""From RGB frames to the pixels that an encoder takes."""

from collections.abc import Iterator
from fractions import Fraction
from typing import Any, Protocol

# Of the scaler: bilinear, accurate rounding, chroma at full width. Its default is 1 level too dark in the mean.
EXACT = 2 | 0x40000 | 0x2000
BT709, LIMITED = 1, 1  # FFmpeg's numbers of what every player takes YUV for


class Colours(Protocol):
    """One frame in, none or some out; None says that no more comes."""

    def __call__(self, frame: Any) -> Iterator[Any]: ...


class Scaled:
    """To a pixel format, frame by frame.

    Args:
        av: PyAV.
        pixels: name of the format; YUV is BT.709 of limited range.
    """

    def __init__(self, av: Any, pixels: str) -> None:
        self._scaler = av.video.reformatter.VideoReformatter()
        self._how = {"format": pixels, "interpolation": EXACT, "threads": 1}
        if pixels.startswith("yuv"):
            self._how |= {"dst_colorspace": BT709, "dst_color_range": LIMITED}

    def __call__(self, frame: Any) -> Iterator[Any]:
        """See Colours."""
        if frame is not None:
            yield self._scaler.reformat(frame, **self._how)


class Palettes:
    """To 256 colours, the best ones for each frame, dithered.

    Args:
        av: PyAV.
        height: of all frames, pixels.
        width: of all frames, pixels.
        rate: frames a second.
    """

    def __init__(self, av: Any, height: int, width: int, rate: Fraction) -> None:
        self._errors = (av.BlockingIOError, av.EOFError)
        graph = av.filter.Graph()
        self._source = graph.add_buffer(width=width, height=height, format="rgb24", time_base=1 / rate)
        split, make = graph.add("split"), graph.add("palettegen", "stats_mode=single")
        use, self._sink = graph.add("paletteuse", "new=1"), graph.add("buffersink")
        self._source.link_to(split)
        split.link_to(use, 0, 0)
        split.link_to(make, 1, 0)
        make.link_to(use, 0, 1)
        use.link_to(self._sink)
        graph.configure()
        self._graph = graph

    def __call__(self, frame: Any) -> Iterator[Any]:
        """See Colours."""
        self._source.push(frame)
        while True:
            try:
                yield self._sink.pull()
            except self._errors:
                return
