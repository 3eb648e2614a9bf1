"""Remote: photos by address, fetched by the rules of downloads, for one request at a time.

It does not know products. Every address is resolved once, checked and connected to as checked; redirects likewise.
"""

import tempfile
from pathlib import Path

from shelfwise.data.addresses import Address, read_address
from shelfwise.data.terms import DownloadOptions, NotFetched
from shelfwise.data.wire import Wires


class Remote:
    """Fetches photos; safe for many threads."""

    def __init__(self, *, max_bytes: int, seconds: float, allow_private: bool) -> None:
        """Keep to these limits, for one photo each."""
        self._options = DownloadOptions(
            max_bytes=max_bytes, total=seconds, idle=min(seconds, 15.0), allow_private=allow_private
        )
        self._wires = Wires(self._options, Path(tempfile.gettempdir()))

    def get(self, url: str) -> bytes:
        """Return the content at an address.

        Raises:
            NotFetched: with the reason.
        """
        address = read_address(url, allow_private=self._options.allow_private)
        for _ in range(self._options.redirects + 1):
            found = self._wires.get(address)
            if not isinstance(found, Address):
                with found.file:
                    return found.file.read()
            address = found
        detail = f"redirected more than {self._options.redirects} times"
        raise NotFetched("failed", "redirects", detail)

    def close(self) -> None:
        """Close every connection."""
        self._wires.close()
