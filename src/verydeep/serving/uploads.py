"""The pictures in a request's body: the body itself, or the first files of a form."""

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from verydeep.serving.refusal import RefusedError


def picture_of(content_type: str, body: bytes) -> bytes:
    """Return the bytes of the picture; RefusedError where a form is damaged or has no file."""
    if parse_options_header(content_type)[0] == b"multipart/form-data":
        return files_of(content_type, body, 1)[0]
    if not body:
        raise RefusedError(422, "the body is empty; send a picture file's bytes, or a form with one file")
    return body


def files_of(content_type: str, body: bytes, count: int) -> list[bytes]:
    """Return the first `count` files of a form; RefusedError where it is none, is damaged, or has fewer."""
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data":
        raise RefusedError(422, f"expected a form (multipart/form-data) with {count} files")
    reader = _Files(count)
    try:
        parser = MultipartParser(options.get(b"boundary", b""), reader.callbacks)  # type: ignore[arg-type]
        parser.write(body)
        parser.finalize()
    except (MultipartParseError, ValueError) as error:
        raise RefusedError(422, f"a damaged form: {' '.join(str(error).split())}") from None
    if len(reader.files) < count:
        said = "one part with a file name" if count == 1 else f"{count} parts with file names"
        raise RefusedError(422, f"the form has {len(reader.files) or 'no'} file; expected {said}")
    return [b"".join(parts) for parts in reader.files]


class _Files:
    """Collects what stands in the first `count` parts that have a file name."""

    def __init__(self, count: int) -> None:
        self.files: list[list[bytes]] = []
        self._count, self._inside = count, False
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
        if self._name.lower() == b"content-disposition" and len(self.files) < self._count and not self._inside:
            self._inside = b"filename" in parse_options_header(self._value)[1]
            if self._inside:
                self.files.append([])
        self._name = self._value = b""

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._inside:
            self.files[-1].append(data[start:end])

    def _part_end(self) -> None:
        self._inside = False
