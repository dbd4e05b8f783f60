"""Write any tensor name as a name that files, archives and directories of other formats accept."""

from __future__ import annotations

import hashlib
import unicodedata
from urllib.parse import quote

# Directories hold names of 255 bytes; the rest is for prefixes and suffixes.
_MOST_BYTES = 160
_DIGITS = 16
# Names that Zarr or Windows keep for themselves, with or without a suffix.
_PORTS = (f"{port}{number}" for port in ("com", "lpt") for number in range(10))
_RESERVED = {"con", "prn", "aux", "nul", "zarr", *_PORTS}


def escaped(name: str) -> str:
    """Return a name as one component of a path, distinct for each name, and safe everywhere.

    Letters and digits of any script, ``_``, ``-`` and ``.`` within the name are kept; every other
    character, and a first one that would make the name special, is written as ``%`` and two
    hexadecimal digits for each byte of UTF-8, as in a URL. The empty name is ``%``. So
    `urllib.parse.unquote` returns the name, except for one of more than 160 bytes, which ends in
    ``%~`` and 16 digits of its SHA-256.
    """
    if not name:
        return "%"
    text = "".join(character if _is_plain(character) else _quoted(character) for character in name)
    if text[0] == "." or text.startswith("__") or text.split(".")[0].lower() in _RESERVED:
        text = _quoted(text[0]) + text[1:]
    raw = name.encode("utf-8", "surrogatepass")
    if len(text.encode()) <= _MOST_BYTES:
        return text
    digest = hashlib.sha256(raw).hexdigest()[:_DIGITS]
    kept = text.encode()[: _MOST_BYTES - _DIGITS - 2].decode(errors="ignore")
    return f"{kept}%~{digest}"


def _is_plain(character: str) -> bool:
    # A file system may normalise names, which must not make two of them equal.
    return character in "_-." or (
        character.isalnum() and unicodedata.normalize("NFC", character) == character
    )


def _quoted(character: str) -> str:
    raw = character.encode("utf-8", "surrogatepass")
    return quote(raw, safe="") if not character.isascii() else f"%{raw[0]:02X}"
