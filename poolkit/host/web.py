"""Files of web servers, read as streams: http and https only, and no redirect leads anywhere else.

The package urllib3 does the talking. It is imported when the first address is opened, and is an extra of poolkit's own.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import urljoin, urlsplit, urlunsplit

from poolkit import errors

SCHEMES = ("http", "https")
_REDIRECTS = 10  # more than any mirror needs; curl allows 50, browsers 20
_MOVED = frozenset((301, 302, 303, 307, 308))  # RFC 9110, 15.4: those that name another place for the same thing
_CONNECT, _READ = 30.0, 60.0  # seconds without an answer until a server is given up
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


class Body(NamedTuple):
    """What a server sends. ``length`` is None where it does not say; ``framed`` says whether an early end would show."""

    stream: Any
    length: int | None
    framed: bool
    shown: str


def is_url(word: str) -> bool:
    """Whether a word is the address of something, and not the path of a file."""
    return _SCHEME.match(word) is not None


def shown(url: str) -> str:
    """The address for messages: without a password, and without a query, which may be as good as one."""
    parts = urlsplit(url)
    return errors.shown(urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", "")), 300)


def check(url: str) -> str:
    """``url`` if it may be fetched; ``Unsupported`` for another scheme, ``InvalidArgument`` for what is no address."""
    try:
        parts = urlsplit(url)
        named = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # a port that is no number, a bracket that is not closed
        raise errors.InvalidArgument(f"'{_plain(url)}' is not the address of a file") from None
    if parts.scheme not in SCHEMES:
        raise errors.Unsupported(
            f"'{parts.scheme[:30]}' addresses are not fetched: only http and https are",
            hint="name the file itself"
            if parts.scheme == "file"
            else "fetch it with another program, and name the file",
        )
    if not named or re.search(r"[\x00-\x20\x7f]", url):
        raise errors.InvalidArgument(f"'{_plain(url)}' is not the address of a file")
    if "@" in parts.netloc:
        raise errors.Unsafe(
            f"the address '{shown(url)}' has a user or a password in it, which every user of this machine could read",
            hint="fetch it with a program that takes them from a file, and give its output as standard input",
        )
    return url


@contextlib.contextmanager
def opened(url: str) -> Iterator[Body]:
    """The file at an address, as a stream that is closed afterwards.

    Up to ten redirects are followed: to http and https only, and never from https to http. Proxies are those of the
    environment (``https_proxy``, ``no_proxy``), certificates those of the system. ``Unreachable`` for a server that does not
    answer, ``HostError`` for one that refuses.
    """
    try:
        import urllib3
    except ImportError:
        raise errors.Unsupported(
            "fetching an image from a server needs the Python package urllib3", hint="pip install 'poolkit[http]'"
        ) from None
    with contextlib.ExitStack() as stack:
        for _ in range(_REDIRECTS + 1):
            check(url)
            with worded(url):
                manager = stack.enter_context(_manager(urllib3, url))
                response = manager.request(
                    "GET", url, redirect=False, preload_content=False, decode_content=False,
                    timeout=urllib3.Timeout(connect=_CONNECT, read=_READ),
                    headers={"Accept-Encoding": "identity", "User-Agent": "poolkit"},
                )  # fmt: skip
            stack.callback(response.close)
            if response.status not in _MOVED:
                break
            url = _aim(url, response.headers.get("Location"))
        else:
            raise errors.HostError(f"'{shown(url)}' was reached by {_REDIRECTS} redirects, and is one itself")
        if response.status != 200:
            reason = response.reason if response.reason and response.reason.isprintable() else ""
            raise errors.HostError(
                f"the server refuses '{shown(url)}': {response.status} {reason[:100]}".rstrip(),
                hint="look whether the address is right" if response.status in (404, 410) else None,
            )
        length = response.headers.get("Content-Length", "")
        known = int(length) if length.isascii() and length.isdigit() and len(length) < 20 else None
        yield Body(response, known, known is not None or bool(response.chunked), shown(url))


@contextlib.contextmanager
def worded(url: str) -> Iterator[None]:
    """What urllib3 raises becomes one of poolkit's errors."""
    import urllib3.exceptions as theirs

    try:
        yield
    except (theirs.ProtocolError, theirs.ReadTimeoutError) as error:
        if isinstance(error, theirs.ReadTimeoutError):
            raise errors.Unreachable(f"'{shown(url)}': the server fell silent for {_READ:g} seconds") from error
        raise errors.HostError(
            f"'{shown(url)}' ended before all of it was there", hint="try again; nothing was kept"
        ) from error
    except theirs.SSLError as error:
        raise errors.Unsafe(
            f"'{shown(url)}': the server's certificate is not trusted, or TLS failed: {_reason(error)}",
            hint="SSL_CERT_FILE names a file with further authorities",
        ) from error
    except theirs.HTTPError as error:
        raise errors.Unreachable(f"'{shown(url)}' cannot be reached: {_reason(error)}") from error


def _manager(urllib3: Any, url: str) -> Any:
    """Connections to a server, by the proxy that the environment names for it."""
    from urllib.request import getproxies_environment, proxy_bypass

    parts = urlsplit(url)
    proxies = getproxies_environment()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if proxy and not proxy_bypass(parts.netloc):
        proxy = proxy if "://" in proxy else f"http://{proxy}"
        user = urlsplit(proxy).netloc.rpartition("@")[0]
        headers = urllib3.make_headers(proxy_basic_auth=_unquoted(user)) if user else None
        return urllib3.ProxyManager(proxy, retries=False, proxy_headers=headers)
    return urllib3.PoolManager(retries=False)


def _unquoted(text: str) -> str:
    from urllib.parse import unquote

    return unquote(text)


def _aim(url: str, location: str | None) -> str:
    """Where a redirect leads to, if it may be followed."""
    if not location:
        raise errors.HostError(f"'{shown(url)}' is a redirect to nowhere")
    try:
        aim = urljoin(url, location)
        scheme = urlsplit(aim).scheme
    except ValueError:
        raise errors.HostError(f"'{shown(url)}' is a redirect to what is no address") from None
    if scheme not in SCHEMES or (scheme == "http" and url.startswith("https:")):
        raise errors.Unsafe(
            f"'{shown(url)}' redirects to '{_plain(aim)}', from {urlsplit(url).scheme} to {scheme[:30] or 'nothing'}; "
            "it was not followed",
            hint="name that address itself, if it is meant",
        )
    return aim


def _reason(error: Exception) -> str:
    inner: BaseException = getattr(error, "reason", None) or error.__cause__ or error
    text = " ".join((getattr(inner, "strerror", None) or str(inner)).split())
    return re.sub(r"^<[^>]*>: |^\S*\([^)]*\): ", "", text)[:200] or type(inner).__name__


def _plain(url: str) -> str:
    return errors.shown(url.partition("?")[0])
