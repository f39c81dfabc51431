"""Reading what ffmpeg says of a file, in its own words."""

from __future__ import annotations

from local.ittybit_server.probing import Media, parse

VIDEO = """\
Input #0, mov,mp4,m4a,3gp,3g2,mj2, from 'clip.mp4':
  Metadata:
    title           : Duration: 99:00:00.00
  Duration: 01:02:03.50, start: 0.000000, bitrate: 265 kb/s
  Stream #0:0[0x1](und): Video: h264 (High) (avc1 / 0x31637661), yuv420p(progressive), 1920x1080 \
[SAR 1:1 DAR 16:9], 184 kb/s, 29.97 fps, 29.97 tbr, 12800 tbn (default)
    Metadata:
      handler_name    : VideoHandler
    Side data:
      displaymatrix: rotation of -90.00 degrees
  Stream #0:1[0x2](und): Audio: aac (LC) (mp4a / 0x6134706D), 44100 Hz, mono, fltp, 70 kb/s (default)
"""
WITH_COVER = """\
Input #0, mp3, from 'song.mp3':
  Duration: 00:00:02.04, start: 0.025057, bitrate: 70 kb/s
  Stream #0:0: Audio: mp3 (mp3float), 44100 Hz, mono, fltp, 64 kb/s
  Stream #0:1: Video: png, rgb24(pc, gbr/unknown/unknown), 64x48, 90k tbr, 90k tbn (attached pic)
"""
STILL = """\
Input #0, png_pipe, from 'still.png':
  Duration: N/A, bitrate: N/A
  Stream #0:0: Video: png, rgb24(pc, gbr/unknown/unknown), 64x48 [SAR 1:1 DAR 4:3], 25 fps, 25 tbr, 25 tbn
"""


def test_a_video_turned_by_the_phone() -> None:
    expected = Media(1080, 1920, 3723.5, 265_000, 29.97, "h264", "aac")
    assert parse(VIDEO) == expected


def test_cover_art_is_no_video() -> None:
    assert parse(WITH_COVER) == Media(duration=2.04, bitrate=70_000, audio="mp3")


def test_a_still_has_no_duration() -> None:
    assert parse(STILL) == Media(width=64, height=48, framerate=25, video="png")


def test_no_media() -> None:
    assert parse("text.mp4: Invalid data found when processing input") == Media()
