"""Make untrusted text safe to show."""

from __future__ import annotations

import re

# control characters except tab and line feed, characters that change the text direction, and surrogates
UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    r"""Return the text with control characters escaped.

    Example:
        >>> printable("fc\x1b[2J")
        'fc\\x1b[2J'
    """
    return UNSAFE.sub(lambda found: ascii(found[0])[1:-1], text)
