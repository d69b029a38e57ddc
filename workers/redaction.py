"""What must not leave a host in a log: secrets that are known, and text that looks like one. Values in, values out.

Every secret is starred out byte for byte, so that offsets into a log stay right. The patterns are bounded: none takes
more than linear time, whatever an engine writes.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Mapping
from urllib.parse import unquote, urlsplit

LONGEST = 8 * 1024  # bytes: no secret with what tells that it is one is longer
SHORTEST = 6  # characters of a known secret: a shorter one would star out common words

_VALUE = r"([^\s\"',;)\]}]{6,})"
_ASSIGNED = r"s?[\"']?\s{0,4}(?:=>|[:=])\s{0,4}[\[(]?[\"']?"
_SECRETS = re.compile(
    "|".join(
        (
            r"(?<![A-Za-z0-9])((?:hf_|sk-|fb[ejn]?-|gh[opsu]_|github_pat_|glpat-|xox[abprs]-|nvapi-|A[KS]IA)"
            r"[A-Za-z0-9_-]{12,})",
            r"(?<![A-Za-z0-9])(eyJ[A-Za-z0-9_-]{8,2048}\.[A-Za-z0-9_-]{8,2048}(?:\.[A-Za-z0-9_-]*)?)",
            r"(?i:\bauthorization)[\"']?\s{0,4}[:=]\s{0,4}[\"']?(?:(?i:bearer|basic|token|digest)\s{1,4})?" + _VALUE,
            r"\b[Bb]earer\s{1,4}([^\s\"',]{8,})",
            r"(?i:api[-_]?key|secret|secret[-_]?key|passw(?:or)?d|passphrase|private[-_]?key|access[-_]?key"
            r"|(?:access|api|auth|hf|hub|join|node|refresh|registry|security|session)[-_]?token)" + _ASSIGNED + _VALUE,
            r"(?i:(?<![A-Za-z_])token=[\"']?)" + _VALUE,
            r"(?<![A-Z0-9_])[A-Z][A-Z0-9_]{0,60}(?:TOKEN|SECRET|PASSWORD|KEY)=[\"']?" + _VALUE,
            r"--(?:api-key|hf-token|token|password|secret)[ =][\"']?" + _VALUE,
            r"://[^/\s:@]{0,256}:([^/\s@]{1,1024})@",
        )
    )
)
_NAMES = re.compile(r"(?:TOKEN|SECRET|PASSWORD|PASSWD|API_KEY|ACCESS_KEY|PRIVATE_KEY)$")


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """`text` with every secret starred out, its length in bytes unchanged."""
    for secret in sorted(secrets, key=len, reverse=True):  # one may be part of another
        if secret:
            text = text.replace(secret, _stars(secret))
    return _SECRETS.sub(_hide, text)


def decoded(data: bytes) -> str:
    """`data` as text of just as many bytes, whatever it holds."""
    return data.decode("utf-8", "forebay_one_byte_each")


def of_environment(environ: Mapping[str, str]) -> frozenset[str]:
    """The values of those variables whose names say that they are secret: engines inherit and may print them."""
    return frozenset(v for name, v in environ.items() if _NAMES.search(name.upper()) and len(v) >= SHORTEST)


def of_url(url: str) -> frozenset[str]:
    """The password in an address, as it stands there and as it is meant."""
    password = urlsplit(url).password or ""
    return frozenset(found for found in (password, unquote(password)) if len(found) >= SHORTEST)


def _one_byte_each(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "?" * (error.end - error.start), error.end


codecs.register_error("forebay_one_byte_each", _one_byte_each)


def _hide(match: re.Match[str]) -> str:
    begin, end = match.span(match.lastindex or 0)
    whole, at = match[0], match.start()
    return whole[: begin - at] + _stars(whole[begin - at : end - at]) + whole[end - at :]


def _stars(secret: str) -> str:
    return "*" * len(secret.encode())
