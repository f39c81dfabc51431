"""Timestamps for the frames of a stream, each later than the one before: some files have none, or imprecise ones."""

from __future__ import annotations

from fractions import Fraction

from av import AudioFrame, VideoFrame

_JITTER = Fraction(1, 10)


class Timing:
    """The timestamps of one stream.

    Args:
        rate: Frames of the picture per second, where the file does not say when one is shown.
    """

    def __init__(self, rate: Fraction) -> None:
        self._step = 1 / rate
        self._last: Fraction | None = None
        self._due: Fraction | None = None

    def settle(self, frame: VideoFrame | AudioFrame) -> None:
        """Correct the frame's timestamp, if need be."""
        base = frame.time_base or self._step
        stamps = [stamp * base for stamp in (frame.pts, frame.dts) if stamp is not None]
        if isinstance(frame, AudioFrame):
            self._settle_sound(frame, stamps)
        else:
            self._settle_picture(frame, stamps, base)

    def _settle_picture(self, frame: VideoFrame, stamps: list[Fraction], base: Fraction) -> None:
        """The first stamp that lies after the frame before; else one frame's length after that."""
        last = self._last
        later = [stamp for stamp in stamps if last is None or stamp > last]
        moment = later[0] if later else Fraction(0) if last is None else last + self._step
        frame.time_base, frame.pts = base, round(moment / base)
        self._last = moment

    def _settle_sound(self, frame: AudioFrame, stamps: list[Fraction]) -> None:
        """Where the samples before it end, unless there is a gap: stamps in whole milliseconds are no gap."""
        unit = Fraction(1, frame.sample_rate)
        moment = stamps[0] if stamps else self._due or Fraction(0)
        if self._due is not None and moment < self._due + _JITTER:
            moment = self._due
        frame.time_base, frame.pts = unit, round(moment / unit)
        self._due = moment + frame.samples * unit
