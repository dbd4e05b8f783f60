"""Make text from files safe to print."""

from __future__ import annotations

# Everything but a line break that moves a cursor, changes a terminal or the order of what it shows:
# C0 and C1 controls with the escape of ANSI sequences, separators of lines, bidirectional controls,
# and the halves of pairs by which Python represents bytes that are no text.
_UNSAFE = (
    *(code for code in range(0x20) if code != ord("\n")),
    *range(0x7F, 0xA0),
    *(0x061C, 0x200E, 0x200F, 0x2028, 0x2029, 0xFEFF),
    *range(0x202A, 0x202F),
    *range(0x2066, 0x206A),
    *range(0xD800, 0xE000),
)
_ESCAPES = {code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" for code in _UNSAFE}


def printable(text: str) -> str:
    """Return a text with control characters written as Python escapes them; line breaks are kept.

    Names, messages and records of a file may come from anyone, and escape sequences in them could
    rewrite what the terminal shows, or its title and clipboard.
    """
    return text.translate(_ESCAPES)
