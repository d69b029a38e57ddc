"""What the plain events of one stream have in common: all but their text and their tokens. Found once, it tells the
next plain event by its two ends, without a search through all of it, and where its tokens lie. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

_EVENT = re.compile(
    rb'(?P<head>data: \{"id".*?"(?:text|content|reasoning|reasoning_content)":")'  # a text begins,
    rb'(?:[^"\\\n]|\\[^\n])*+'
    rb'(?P<middle>"[^\n]*)"token_ids":\[[\d,]+(?P<tail>\][^\[\n]*\n\n)'  # it ends here; the tokens
)


@dataclass(frozen=True, slots=True)
class Frame:
    head: bytes  # up to the text
    seam: bytes  # from the end of the text to the tokens
    seam_length: int
    tail: bytes  # from the end of the tokens
    untold: bytes  # from the end of the text, had nobody asked for tokens

    @classmethod
    def of(cls, event: bytes) -> Frame | None:
        """The frame of a plain event; None when its text or its tokens cannot be made out."""
        found = _EVENT.fullmatch(event)
        if found is None:
            return None
        head, middle, tail = found["head"], found["middle"], found["tail"]
        if b'"finish_reason":null' not in middle + tail or b'"usage"' in head + middle + tail:
            return None
        seam = middle + b'"token_ids":['
        return cls(head, seam, len(seam), tail, middle + b'"token_ids":null' + tail[1:])

    def without_ids(self, piece: bytes) -> bytes | None:
        """`piece` as it would be had nobody asked for tokens; None when it is not one whole event of this frame. The
        quotes of a seam cannot be part of a text. Runs once a token."""
        at = piece.rfind(b"[") + 1
        if (
            piece[at - self.seam_length : at] == self.seam
            and piece.startswith(self.head)
            and piece.endswith(self.tail)
            and piece.find(b"\n") == len(piece) - 2
        ):
            return piece[: at - self.seam_length] + self.untold
        return None
