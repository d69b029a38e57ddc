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

LONG = 4096  # lengths that a stream remembers


@dataclass(frozen=True, slots=True)
class Frame:
    head: bytes  # up to the text
    seam: bytes  # from the end of the text to the tokens
    seam_length: int
    tail: bytes  # from the end of the tokens
    untold: bytes  # from the end of the text, had nobody asked for tokens
    wire_tail: bytes  # from the end of the tokens to that of the chunk
    wire_untold: bytes
    bare_length: int  # without the text, had nobody asked for tokens
    openings: dict[int, bytes]  # by a chunk's size on the wire: what it begins with, up to the text
    said: dict[int, bytes]  # by a text's length: the same of the chunk had nobody asked for tokens

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
        untold = middle + b'"token_ids":null' + tail[1:]
        return cls(
            head, seam, len(seam), tail, untold, tail + b"\r\n", untold + b"\r\n", len(head) + len(untold), {}, {},
        )  # fmt: skip

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

    def chunk_without_ids(self, data: bytes) -> bytes | None:
        """As `without_ids`, of one whole chunk as it is on the wire, and as one. Runs once a token."""
        size = len(data)
        opening = self.openings.get(size) or self._opening(size)
        begin = len(opening)
        end = data.rfind(b"[") + 1 - self.seam_length
        if (
            data.startswith(opening)
            and data.startswith(self.seam, end)
            and data.endswith(self.wire_tail)
            and data.find(b"\n", begin) == size - 4
        ):
            return (self.said.get(end - begin) or self._said(end - begin)) + data[begin:end] + self.wire_untold
        return None

    def chunks_without_ids(self, data: bytes) -> list[bytes] | None:
        """As `chunk_without_ids`, of several that came at once; None unless all are such."""
        openings, said, seam, tail, untold = self.openings, self.said, self.seam, self.wire_tail, self.wire_untold
        start, size, told = 0, len(data), []
        while start < size:
            stop = data.find(b"\n", data.find(b"\n", start) + 1) + 4  # where it ends if it is but one event
            opening = openings.get(stop - start) or self._opening(stop - start)
            begin = start + len(opening)
            end = data.rfind(b"[", begin, stop) + 1 - self.seam_length
            if not (
                data.startswith(opening, start) and data.startswith(seam, end) and data.endswith(tail, begin, stop)
            ):
                return None
            told.append((said.get(end - begin) or self._said(end - begin)) + data[begin:end] + untold)
            start = stop
        return told

    def _said(self, length: int) -> bytes:
        """What a chunk begins with whose text takes so many bytes, had nobody asked for tokens."""
        said = b"%x\r\n%b" % (length + self.bare_length, self.head)
        if len(self.said) < LONG:
            self.said[length] = said
        return said

    def _opening(self, size: int) -> bytes:
        """What a chunk begins with that takes so many bytes on the wire: the length of its body, and the head."""
        lengths = (size - 4 - digits for digits in range(1, 9))
        length = next((length for digits, length in enumerate(lengths, 1) if len(b"%x" % length) == digits), 0)
        opening = b"%x\r\n" % length + self.head
        if len(self.openings) < LONG:
            self.openings[size] = opening
        return opening
