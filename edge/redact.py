"""Take credentials out of what is shown: sources of cameras in logs, messages and errors."""

import re
from urllib.parse import urlsplit, urlunsplit


def without_credentials(source: str) -> str:
    """Return a source that is safe to show: no user, password, query or fragment of a URL."""
    parts = urlsplit(source)
    if not parts.scheme or not parts.netloc:
        return source
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def scrub(text: str) -> str:
    """Return a text in which no URL has a user or password."""
    return re.sub(r"(\w+://)[^\s/@]+@", r"\1", text)
