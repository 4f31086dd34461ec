"""The bodies that clients send to the service."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from infill.service.exchange import encode

TEXTS = st.text(st.sampled_from('a\n"\\é😀\ud83d\ude00\udce9'), max_size=30)


@given(TEXTS)
def test_a_body_is_utf_8_and_keeps_every_offset(text: str) -> None:
    sent = json.loads(encode({"text": text}).decode("utf-8"))["text"]
    assert len(sent) == len(text)
    for one, other in zip(text, sent, strict=True):
        assert other == ("\ufffd" if "\ud800" <= one <= "\udfff" else one)
