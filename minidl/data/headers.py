"""What surrounds the pixels in JPEG and PNG files, taken apart before Pillow sees any of it.

Pillow is given the parts that pixels are made of and no others. So whatever is wrong in comments, colour
profiles, thumbnails, text, animation or EXIF can neither fail nor warn, and text is not inflated. All that is
used of the rest is how the camera was held.
"""

import re

JPEG, PNG, BMP = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM"  # how the files begin

_MARKER = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")  # of a JPEG, but for those that restart within a scan
_ALONE = {0x01, 0xD8, 0xD9}  # markers without a length behind them
_SCAN, _END = 0xDA, 0xD9
_MAX_SCANS = 100  # each costs the time of a whole picture, and usual programs write ten
# APP0 (JFIF) and APP14 (Adobe) tell how colours are stored; the other APPs and comments say nothing of pixels
_ASIDES = {*range(0xE1, 0xF0), 0xFE} - {0xEE}
_CHUNKS = {b"IHDR", b"PLTE", b"IDAT", b"IEND"}  # of a PNG; without tRNS, which tells what is transparent
_EXIF = b"Exif\0\0"
_ORIENTATION = 0x0112  # the EXIF tag


def strip(data: bytes) -> tuple[bytes, int]:
    """(a picture's file without what pixels do not need, its EXIF orientation: 1, upright, to 8)

    Files that are damaged, or of other formats, are left for their decoder to refuse. ValueError for a JPEG
    made to take for ever.
    """
    if data.startswith(JPEG):
        data, exif = _strip_jpeg(data)
    elif data.startswith(PNG):
        data, exif = _strip_png(data)
    else:
        exif = b""
    return data, orientation(exif)


def orientation(exif: bytes) -> int:
    """Which of the eight ways a picture lies, from a block of EXIF (a TIFF file); 1 if it does not tell."""
    exif = exif.removeprefix(_EXIF)
    if exif[:4] not in (b"II*\0", b"MM\0*"):
        return 1

    def number(at: int, size: int) -> int:
        return int.from_bytes(exif[at : at + size], "little" if exif[:1] == b"I" else "big")

    table = number(4, 4)
    for entry in range(table + 2, table + 2 + 12 * number(table, 2), 12):  # tag, type, count, value
        if number(entry, 2) == _ORIENTATION:
            value = number(entry + 8, 4 if number(entry + 2, 2) == 4 else 2)  # type 4 is a long
            return value if 1 <= value <= 8 else 1
    return 1


def _strip_jpeg(data: bytes) -> tuple[bytes, bytes]:
    """The file without asides, and the first block of EXIF."""
    kept, exif, at = [data[:2]], b"", 2
    while (marker := _MARKER.search(data, at)) and marker[1][0] != _SCAN:
        kind, start, at = marker[1][0], marker.end() - 1, _end(data, marker)
        if kind not in _ASIDES:
            kept.append(b"\xff" + data[start:at])
        elif kind == 0xE1 and not exif and data[start + 3 : at].startswith(_EXIF):
            exif = data[start + 3 : at]
    if data.count(bytes([0xFF, _SCAN]), at) > _MAX_SCANS:  # or else something behind the picture's end
        _check_scans(data, at)
    return b"".join((*kept, data[at:])), exif


def _check_scans(data: bytes, at: int) -> None:
    scans = 0
    while (marker := _MARKER.search(data, at)) and marker[1][0] != _END:
        at = _end(data, marker)
        scans += marker[1][0] == _SCAN
        if scans > _MAX_SCANS:
            raise ValueError(f"it is drawn in more than {_MAX_SCANS} scans")


def _end(data: bytes, marker: re.Match[bytes]) -> int:
    """Where what belongs to a marker ends."""
    at = marker.end()
    return at if marker[1][0] in _ALONE else at + max(2, int.from_bytes(data[at : at + 2]))


def _strip_png(data: bytes) -> tuple[bytes, bytes]:
    """The file with the chunks of pixels alone, and the block of EXIF."""
    kept, exif, at = [data[: len(PNG)]], b"", len(PNG)
    while at < len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4])  # length, kind, data, checksum
        kind = data[at + 4 : at + 8]
        if kind in _CHUNKS:
            kept.append(data[at:end])
        elif kind == b"eXIf":
            exif = data[at + 8 : end - 4]
        at = end
    return b"".join(kept), exif
