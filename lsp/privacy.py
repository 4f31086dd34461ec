"""Decides which documents get neither suggestions nor findings: private files, and files that programs write.

Must not know the protocol.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from infill import privacy
from infill.code.generated import generated_sign, has_generated_name

LONGEST = 2_000_000  # characters
GENERATED = {
    "name": "The name of this file says that it is generated.",
    "generated": "The first lines of this file say that it is generated.",
    "minified": "This file looks minified: its lines are too long.",
}


def private_reason(path: str | None, patterns: Sequence[str], folders: Sequence[Path], text: str) -> str | None:
    """Why the document is left out, as a sentence; None if it is not. Reads ignore files on disk, so it blocks.

    patterns, folders: as in `infill.privacy`. text: the editor's text, used only if the name does not decide.
    """
    if path is not None:
        if sentence := privacy.private_reason(Path(path), patterns, folders):
            return sentence
        if has_generated_name(path):
            return GENERATED["name"]
    return unsuitable_text(text)


def unsuitable_text(text: str) -> str | None:
    """Why a document with this text is left out, whatever its name is."""
    if len(text) > LONGEST:
        return f"This file is longer than {LONGEST:,} characters."
    sign = generated_sign(None, text)
    return GENERATED[sign] if sign is not None else None
