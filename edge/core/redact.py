"""Take credentials out of what is shown: sources of cameras in logs, messages and errors.

Passwords hold characters that nobody escaped: where that leaves in doubt what is host and what is password,
all of it is hidden.
"""

import re
from urllib.parse import urlsplit, urlunsplit

HIDDEN = "***"


def without_credentials(source: str) -> str:
    """Return a source that is safe to show: no user, password, query or fragment of a URL."""
    try:
        parts = urlsplit(source)
        _ = parts.port  # ValueError: "user:pass", where a "/", "?" or "#" cut off the "@" and the host
    except ValueError:
        return f"{source.partition(':')[0]}://{HIDDEN}"
    if not parts.scheme or (not parts.netloc and "@" not in source):
        return source
    if not parts.netloc or "@" in parts.path + parts.query + parts.fragment:
        return f"{parts.scheme}://{HIDDEN}"
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def scrub(text: str) -> str:
    """Return a text in which no URL has a user, a password or a query."""
    text = re.sub(r"(\w+:/*)\S*@", r"\1", text)
    return re.sub(r"(\w+://[^\s?#]*)[?#]\S*", rf"\1?{HIDDEN}", text)
