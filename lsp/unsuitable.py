"""Decides which documents get neither suggestions nor findings although they are not private: generated and huge ones.

Must not know the protocol.
"""

from __future__ import annotations

from infill.code.generated import generated_sign

LONGEST = 2_000_000  # characters
GENERATED = {
    "name": "The name of this file says that it is generated.",
    "generated": "The first lines of this file say that it is generated.",
    "minified": "This file looks minified: its lines are too long.",
}


def unsuitable_reason(path: str | None, text: str) -> str | None:
    """Why the document is left out, as a sentence; None if it is not."""
    if len(text) > LONGEST:
        return f"This file is longer than {LONGEST:,} characters."
    sign = generated_sign(path, text)
    return GENERATED[sign] if sign is not None else None
