"""A HEIC picture of tiles, as phones write them: ISO 23008-12's boxes around pictures that ffmpeg encodes."""

from __future__ import annotations

import struct
from pathlib import Path

from tests.local.ittybit_server.stack import ffmpeg

TILE = 64


def write_tiled(path: Path, colours: list[str], columns: int, size: tuple[int, int]) -> None:
    """Write tiles of one colour each, row by row; ``size`` is what is shown of them."""
    tiles = [_encode(path.with_suffix(".mp4"), colour) for colour in colours]
    rows, whole = len(tiles) // columns, len(tiles) + 1  # the grid's item comes after its tiles'
    grid = struct.pack(">4B2H", 0, 0, rows - 1, columns - 1, *size)
    items = [(b"hvc1", data) for _, data in tiles] + [(b"grid", grid)]
    entries = [_full(b"infe", 2, struct.pack(">2H4sx", number, 0, kind)) for number, (kind, _) in enumerate(items, 1)]
    sizes = [_full(b"ispe", 0, struct.pack(">2I", *each)) for each in ((TILE, TILE), size)]
    tile_properties = [struct.pack(">H3B", number, 2, 0x81, 2) for number in range(1, whole)]
    properties = _box(b"ipco", tiles[0][0], *sizes) + _full(
        b"ipma", 0, struct.pack(">I", whole), *tile_properties, struct.pack(">H2B", whole, 1, 3)
    )
    parts = _box(b"dimg", struct.pack(f">{whole + 1}H", whole, whole - 1, *range(1, whole)))

    def meta(place: int) -> bytes:
        places = []
        for number, (_, data) in enumerate(items, 1):
            places.append(struct.pack(">4H2I", number, 0, 0, 1, place, len(data)))
            place += len(data)
        return _full(
            b"meta",
            0,
            _full(b"hdlr", 0, struct.pack(">4x4s13x", b"pict")),
            _full(b"pitm", 0, struct.pack(">H", whole)),
            _full(b"iloc", 1, struct.pack(">BxH", 0x44, whole), *places),
            _full(b"iinf", 0, struct.pack(">H", whole), *entries),
            _box(b"iprp", properties),
            _full(b"iref", 0, parts),
        )

    kind = _box(b"ftyp", b"heic", bytes(4), b"mif1heic")
    path.write_bytes(kind + meta(len(kind + meta(0)) + 8) + _box(b"mdat", *(data for _, data in items)))


def _encode(path: Path, colour: str) -> tuple[bytes, bytes]:
    """The decoder's configuration and the data of a tile, taken out of an MP4 with one frame."""
    source = ["-f", "lavfi", "-i", f"color={colour}:s={TILE}x{TILE}", "-frames:v", "1", "-pix_fmt", "yuv420p"]
    ffmpeg(*source, "-c:v", "libx265", "-x265-params", "log-level=none:info=0", "-tag:v", "hvc1", path)
    content = path.read_bytes()
    path.unlink()
    return _find(content, b"hvcC"), _find(content, b"mdat")[8:]


def _find(content: bytes, kind: bytes) -> bytes:
    start = content.index(kind) - 4
    return content[start : start + int.from_bytes(content[start : start + 4])]


def _box(kind: bytes, *parts: bytes) -> bytes:
    content = b"".join(parts)
    return struct.pack(">I4s", 8 + len(content), kind) + content


def _full(kind: bytes, version: int, *parts: bytes) -> bytes:
    return _box(kind, struct.pack(">I", version << 24), *parts)
