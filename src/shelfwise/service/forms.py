"""Forms: multipart content as it comes, held in memory, refused as soon as it is more than is taken.

It does not know what fields mean, only which there are. A part called ``image`` is a photo, whatever else it says of
itself; names of files are not looked at.
"""

from collections.abc import Sequence

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from shelfwise.service.problems import Refusal

IMAGE = "image"
#: Bytes of one text, and of all headers of one part.
TEXT_MOST, HEADERS_MOST = 200_000, 8_000
#: Letters of a name of a field that are repeated in a problem.
SHOWN = 60


class Form:
    """The fields of a form, filled as its content comes.

    Attributes:
        photos: the contents of its parts called ``image``, in their order.
        texts: its other fields.
    """

    def __init__(self, content_type: str, fields: Sequence[str], *, photos: int, photo: int) -> None:
        """Begin.

        Args:
            content_type: as the request states it, with the boundary.
            fields: what it may have beside photos, each once.
            photos: how many it may have.
            photo: bytes that each may have.

        Raises:
            Refusal: there is no boundary.
        """
        self.photos: list[bytes] = []
        self.texts: dict[str, str] = {}
        self._fields, self._photos, self._photo = fields, photos, photo
        self._name, self._most = "", 0
        self._content = bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._header, self._value, self._got = bytearray(), bytearray(), 0
        self._whole = False
        _, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        if not 0 < len(boundary) <= 200:
            raise Refusal(
                400, "form", "the content type of the form names no boundary, or one of over 200 bytes"
            )
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._name_comes,
                "on_header_value": self._value_comes,
                "on_header_end": self._header_ends,
                "on_headers_finished": self._headers_end,
                "on_part_data": self._data_comes,
                "on_part_end": self._part_ends,
                "on_end": self._end,
            },
        )

    def write(self, data: bytes) -> None:
        """Take the next piece of the content.

        Raises:
            Refusal: it is no form, or more than is taken.
        """
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise Refusal(400, "form", _BROKEN) from error

    def end(self) -> None:
        """Make sure that all of it came.

        Raises:
            Refusal: its last boundary is missing.
        """
        try:
            self._parser.finalize()
        except FormParserError as error:
            raise Refusal(400, "form", _BROKEN) from error
        if not self._whole:
            raise Refusal(400, "form", "the form is cut off: the boundary at its end is missing")

    def _begin(self) -> None:
        self._headers, self._content, self._got = {}, bytearray(), 0

    def _name_comes(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]
        self._count(end - start)

    def _value_comes(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        self._count(end - start)

    def _count(self, more: int) -> None:
        self._got += more
        if self._got > HEADERS_MOST:
            detail = f"a part of the form has more than {HEADERS_MOST:,} bytes of headers"
            raise Refusal(400, "form", detail)

    def _header_ends(self) -> None:
        self._headers[bytes(self._header).lower()] = bytes(self._value)
        self._header, self._value = bytearray(), bytearray()

    def _headers_end(self) -> None:
        """Decide by the headers of a part what it is and how large it may be."""
        _, options = parse_options_header(self._headers.get(b"content-disposition"))
        name = options.get(b"name")
        if name is None:
            raise Refusal(400, "form", "a part of the form has no name")
        self._name = name.decode("utf-8", errors="replace")
        if self._name == IMAGE:
            if len(self.photos) == self._photos:
                raise Refusal(422, "too_many", f"image: more than {self._photos} photos")
            self._most = self._photo
            return
        self._most = TEXT_MOST
        if self._name not in self._fields:
            known = ", ".join((IMAGE, *self._fields))
            detail = f"the field {self._name[:SHOWN]!a} is not known; the form takes {known}"
            raise Refusal(422, "field", detail)
        if self._name in self.texts:
            raise Refusal(422, "field", f"{self._name}: the field is there twice")
        if b"filename" in options:
            raise Refusal(422, "field", f"{self._name}: a file, where a text is taken")

    def _data_comes(self, data: bytes, start: int, end: int) -> None:
        self._content += data[start:end]
        if len(self._content) > self._most:
            code = "image_too_large" if self._name == IMAGE else "too_large"
            detail = f"{self._name}: more than {self._most:,} bytes, which is what is taken"
            raise Refusal(413, code, detail)

    def _part_ends(self) -> None:
        if self._name == IMAGE:
            self.photos.append(bytes(self._content))
            return
        try:
            self.texts[self._name] = self._content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise Refusal(422, "field", f"{self._name}: not UTF-8") from error

    def _end(self) -> None:
        self._whole = True


_BROKEN = "the content is not a form in parts as its boundary says"
