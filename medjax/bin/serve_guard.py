"""Who may ask `medjax.bin.serve`: hosts, origins and the token."""

import hmac
import ipaddress
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

COOKIE = "medjax_session"
_LOCAL_NAMES = {"localhost"}


class RefusedError(Exception):
    """A request that is not answered. status: of HTTP."""

    def __init__(self, status: int, reason: str):
        super().__init__(reason)
        self.status = status


def is_loopback(host: str) -> bool:
    """Whether an address or name is of this machine alone."""
    address = _address(host)
    return host.lower() in _LOCAL_NAMES if address is None else address.is_loopback


@dataclass(frozen=True)
class Guard:
    """host: that the server is bound to. token: what those who ask must know; empty for nothing. session: what a
    browser's cookie holds in place of the token.
    """

    host: str
    token: str = ""
    session: str = field(default_factory=lambda: secrets.token_urlsafe(32))

    def check(self, headers: Mapping[str, str], post: bool) -> None:
        """Raises RefusedError where another site's page may be behind the request, or the token is missing or wrong."""
        self._check_host(headers.get("Host", ""))
        if post:
            self._check_origin(headers)
        if self.token and not self._knows(headers):
            raise RefusedError(401, "a token is needed: open the address that the server printed when it started")

    def opens(self, headers: Mapping[str, str], given: str) -> bool:
        """Whether a token that came in the address is right.

        Raises:
          RefusedError: see `check`.
        """
        self._check_host(headers.get("Host", ""))
        return bool(self.token) and _same(given, self.token)

    def cookie(self) -> str:
        """The Set-Cookie header for a browser that brought the token."""
        return f"{COOKIE}={self.session}; Path=/; HttpOnly; SameSite=Strict"

    def _check_host(self, host: str) -> None:
        """A name under which somebody else's page could reach this server (DNS rebinding) is no name of it; an address
        in numbers is not looked up anywhere."""
        try:
            name = (urlsplit(f"//{host}").hostname or "").lower()
        except ValueError:
            name = ""
        address = _address(name)
        local = is_loopback(self.host)
        if address is not None:
            right = address.is_loopback if local else True
        else:
            own = set() if local else {self.host.lower(), socket.gethostname().lower(), socket.getfqdn().lower()}
            right = name in _LOCAL_NAMES | own
        if not right:
            raise RefusedError(403, "the Host header names another machine; use the address that the server printed")

    def _check_origin(self, headers: Mapping[str, str]) -> None:
        origin = headers.get("Origin")
        if origin is not None and origin.lower() != f"http://{headers.get('Host', '')}".lower():
            raise RefusedError(403, "the request comes from a page of another site")
        if headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
            raise RefusedError(403, "the request comes from a page of another site")

    def _knows(self, headers: Mapping[str, str]) -> bool:
        scheme, _, given = headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and _same(given.strip(), self.token):
            return True
        try:
            cookies = SimpleCookie(headers.get("Cookie", ""))
        except CookieError:
            return False
        return COOKIE in cookies and _same(cookies[COOKIE].value, self.session)


def _same(given: str, right: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), right.encode())


def _address(host: str):
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
