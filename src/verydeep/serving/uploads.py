"""The picture in a request's body: the body itself, or the first file of a form."""

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from verydeep.serving.refusal import RefusedError


def picture_of(content_type: str, body: bytes) -> bytes:
    """Return the bytes of the picture; RefusedError where a form is damaged or has no file."""
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data":
        if not body:
            raise RefusedError(422, "the body is empty; send a picture file's bytes, or a form with one file")
        return body
    reader = _FirstFile()
    try:
        parser = MultipartParser(options.get(b"boundary", b""), reader.callbacks)  # type: ignore[arg-type]
        parser.write(body)
        parser.finalize()
    except (MultipartParseError, ValueError) as error:
        raise RefusedError(422, f"a damaged form: {' '.join(str(error).split())}") from None
    if not reader.found:
        raise RefusedError(422, "the form has no file; expected one part with a file name")
    return b"".join(reader.data)


class _FirstFile:
    """Collects what stands in the first part that has a file name."""

    def __init__(self) -> None:
        self.data: list[bytes] = []
        self.found = self._inside = False
        self._name = self._value = b""
        names = ("part_begin", "header_field", "header_value", "header_end", "part_data", "part_end")
        self.callbacks = {f"on_{name}": getattr(self, f"_{name}") for name in names}

    def _part_begin(self) -> None:
        self._name = self._value = b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._name.lower() == b"content-disposition" and not self.found:
            self.found = self._inside = b"filename" in parse_options_header(self._value)[1]
        self._name = self._value = b""

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._inside:
            self.data.append(data[start:end])

    def _part_end(self) -> None:
        self._inside = False
