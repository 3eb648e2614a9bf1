"""Addresses: which URLs may be asked for, and which machines may be connected to.

It sends nothing. A URL is read strictly: what two programs could read differently is refused, not guessed at. A host
is resolved once, every address it has is checked, and the caller connects to what was checked and to nothing else
(OWASP, "Server-Side Request Forgery Prevention Cheat Sheet"). Ranges are those of the special-purpose registries of
IANA (RFC 6890 and its updates).
"""

import ipaddress
import re
import socket
import unicodedata
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from shelfwise.data.terms import NotFetched

PORTS = {"http": 80, "https": 443}
#: Longer ones are refused; servers take about 8,000 characters.
LONGEST_URL = 8192
#: Range, what it is, and whether ``allow_private`` opens it.
_RANGES_4 = (
    ("0.0.0.0/8", "an unspecified", False),
    ("10.0.0.0/8", "a private", True),
    ("100.64.0.0/10", "a carrier's shared", True),
    ("127.0.0.0/8", "a loopback", True),
    ("169.254.0.0/16", "a link-local", False),
    ("172.16.0.0/12", "a private", True),
    ("192.0.0.0/24", "a reserved", False),
    ("192.0.2.0/24", "a documentation", False),
    ("192.88.99.0/24", "a 6to4 relay", False),
    ("192.168.0.0/16", "a private", True),
    ("198.18.0.0/15", "a benchmarking", False),
    ("198.51.100.0/24", "a documentation", False),
    ("203.0.113.0/24", "a documentation", False),
    ("224.0.0.0/4", "a multicast", False),
    ("240.0.0.0/4", "a reserved", False),
)
_RANGES_6 = (
    ("::/128", "an unspecified", False),
    ("::1/128", "a loopback", True),
    ("::ffff:0:0/96", "an IPv4-mapped", False),
    ("::/96", "an IPv4-compatible", False),
    ("64:ff9b::/96", "a NAT64", False),
    ("64:ff9b:1::/48", "a NAT64", False),
    ("2001::/32", "a Teredo", False),
    ("2001::/23", "a reserved", False),
    ("2001:db8::/32", "a documentation", False),
    ("2002::/16", "a 6to4", False),
    ("3fff::/20", "a documentation", False),
    ("fc00::/7", "a private", True),
    ("fe80::/10", "a link-local", False),
    ("ff00::/8", "a multicast", False),
)
_FOUR = tuple((ipaddress.IPv4Network(block), name, opens) for block, name, opens in _RANGES_4)
_SIX = tuple((ipaddress.IPv6Network(block), name, opens) for block, name, opens in _RANGES_6)
#: All of IPv6 that is given out for use between networks (RFC 4291).
_GLOBAL_6 = ipaddress.IPv6Network("2000::/3")

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.\-]*):")
_LABEL = re.compile(r"^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$")
_NUMBER = re.compile(r"^([0-9]+|0x[0-9a-f]*)$")

IP = ipaddress.IPv4Address | ipaddress.IPv6Address
#: Where to connect: address family and the numeric address in the form of ``socket.connect``.
Endpoint = tuple[int, tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Address:
    """A URL that may be asked for, read strictly.

    Attributes:
        scheme: ``http`` or ``https``.
        host: in lower case, international names in their ASCII form; an IPv6 address without brackets.
        port: the stated one, or that of the scheme.
        target: path and query, percent-encoded.
    """

    scheme: str
    host: str
    port: int
    target: str

    @property
    def netloc(self) -> str:
        """Host and port as a Host header has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The one spelling of this address."""
        return f"{self.scheme}://{self.netloc}{self.target}"


def scheme_of(url: str) -> str:
    """Return the scheme of a URL in lower case, or an empty string."""
    found = _SCHEME.match(url)
    return found.group(1).lower() if found else ""


def read_address(url: str, *, allow_private: bool = False) -> Address:
    """Read an http or https URL strictly.

    Args:
        url: as a table has it, without outer blanks.
        allow_private: let private and loopback addresses pass.

    Raises:
        NotFetched: refused, with the reason.
    """
    _check_characters(url)
    scheme = scheme_of(url)
    if scheme not in PORTS:
        what = (
            f"the scheme {scheme!r} is not http or https" if scheme else "there is no scheme such as https://"
        )
        raise _refused("scheme", what)
    if not url[len(scheme) + 1 :].startswith("//"):
        raise _refused("bad_url", "'//' is missing after the scheme")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise _refused("bad_url", str(error)) from error
    if "@" in parts.netloc:
        raise _refused("credentials", "the address holds a user name or password, which belong in no table")
    if port == 0:
        raise _refused("bad_url", "port 0 cannot be connected to")
    host = _read_host(parts.netloc, parts.hostname or "")
    ip = _literal(host)
    if ip is not None:
        _check_ip(ip, host, allow_private)
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    query = quote(parts.query, safe="/%:@!$&'()*+,;=~-._?[]")
    target = path + (f"?{query}" if query else "")
    return Address(scheme, host, port or PORTS[scheme], target)


def redirected(address: Address, location: str, *, allow_private: bool, allow_downgrade: bool) -> Address:
    """Return where a redirect leads, checked as a first address is.

    Raises:
        NotFetched: refused, with the reason.
    """
    location = location.strip(" ")
    _check_characters(location)
    try:
        joined = location if scheme_of(location) else urljoin(address.url, location)
    except ValueError as error:
        raise _refused("bad_url", f"redirected to what is no address: {error}") from error
    following = read_address(joined, allow_private=allow_private)
    if (address.scheme, following.scheme) == ("https", "http") and not allow_downgrade:
        raise _refused("downgrade", f"redirected from https to http on {following.host}")
    return following


def resolve(address: Address, *, allow_private: bool = False) -> tuple[Endpoint, ...]:
    """Return where to connect for an address: all that its host has, each of them checked.

    One address that is forbidden refuses the host, for a name that leads to several machines may lead to any of them.

    Raises:
        NotFetched: the host is not known, or has a forbidden address.
    """
    try:
        found = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP
        )
    except socket.gaierror as error:
        again = error.errno in (socket.EAI_AGAIN, getattr(socket, "EAI_SYSTEM", None))
        raise NotFetched(
            "failed", "unknown_host", f"the host {address.host} is not known", again=again
        ) from error
    except (UnicodeError, OSError) as error:
        raise NotFetched("failed", "unknown_host", f"the host {address.host}: {error}", again=True) from error
    endpoints: list[Endpoint] = []
    for family, _, _, _, place in found:
        numeric = str(place[0])
        _check_ip(ipaddress.ip_address(numeric), address.host, allow_private)
        if (family, place) not in endpoints:
            endpoints.append((family, place))
    if not endpoints:
        raise NotFetched("failed", "unknown_host", f"the host {address.host} has no address")
    return tuple(endpoints)


def forbidden(ip: IP, *, allow_private: bool = False) -> str | None:
    """Return what kind of address this is if it may not be connected to, such as ``a loopback``; else ``None``."""
    if isinstance(ip, ipaddress.IPv4Address):
        ranges: tuple[tuple[Any, str, bool], ...] = _FOUR
    else:
        ranges = _SIX
    for block, name, opens in ranges:
        if ip in block:
            return None if opens and allow_private else name
    return None if ip.version == 4 or ip in _GLOBAL_6 else "a reserved"


def _check_ip(ip: IP, host: str, allow_private: bool) -> None:
    name = forbidden(ip, allow_private=allow_private)
    if name is not None:
        said = f"{ip} is" if host == str(ip) else f"{host} leads to {ip},"
        raise _refused("forbidden_address", f"{said} {name} address")


def _check_characters(url: str) -> None:
    if len(url) > LONGEST_URL:
        raise _refused(
            "bad_url", f"the address has {len(url):,} characters, {LONGEST_URL:,} at most are taken"
        )
    for character in url:
        if character == "\\" or unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
            raise _refused("bad_url", f"the address holds the character {character!a}")


def _read_host(netloc: str, host: str) -> str:
    """The host in its one spelling."""
    if netloc.startswith("["):
        try:
            return str(ipaddress.IPv6Address(host))
        except ValueError as error:
            raise _refused("bad_url", f"{host!r} is not an IPv6 address") from error
    plain = unicodedata.normalize("NFKC", host).lower()
    if not plain.isascii():
        try:
            plain = plain.encode("idna").decode("ascii").lower()
        except UnicodeError as error:
            raise _refused("bad_url", f"{host!r} is not a host name") from error
    plain = plain.removesuffix(".")
    labels = plain.split(".")
    if len(plain) > 253 or not all(_LABEL.match(label) for label in labels):
        raise _refused("bad_url", f"{host!r} is not a host name")
    if _NUMBER.match(labels[-1]):
        try:
            return str(ipaddress.IPv4Address(plain))
        except ValueError as error:
            raise _refused("bad_url", f"{host!r} is a number that programs read differently") from error
    return plain


def _literal(host: str) -> IP | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _refused(reason: str, detail: str) -> NotFetched:
    return NotFetched("refused", reason, detail)
