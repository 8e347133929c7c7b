"""What all apps answer, so that every server writes the same bytes."""

from __future__ import annotations

HELLO = b"<h1>It Works!</h1>"
LARGE = b"x" * (1 << 20)
PIECE = b"x" * 8192
PIECES = 8
UPLOAD = 102400
