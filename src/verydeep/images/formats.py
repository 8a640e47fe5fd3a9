"""Which files are pictures: the formats that are decoded, by the first bytes and the endings of their names."""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from io import BytesIO

from PIL import features
from PIL.ImageFile import ImageFile

HEAD = 32
"""First bytes of a file that tell its format."""


@dataclass(frozen=True, slots=True)
class Format:
    """A format: its names' endings, its first bytes, and who reads it."""

    name: str
    suffixes: frozenset[str]
    signature: re.Pattern[bytes]
    reader: str  # a class of Pillow's plugins, "module:class"
    remedy: str = ""  # what to install where `is_read` is False

    @property
    def is_read(self) -> bool:
        """Whether this installation decodes it."""
        codec = {"AVIF": "avif", "JPEG 2000": "jpg_2000", "WebP": "webp"}.get(self.name)
        return find_spec(self.reader.split(".")[0]) is not None and (codec is None or bool(features.check(codec)))

    def open(self, data: bytes) -> ImageFile:
        """Read the header; errors of many types where it is damaged."""
        module, _, name = self.reader.partition(":")
        image: ImageFile = getattr(import_module(module), name)(BytesIO(data))
        return image


def _format(name: str, suffixes: str, signature: bytes, reader: str, remedy: str = "") -> Format:
    return Format(name, frozenset(suffixes.split()), re.compile(signature, re.DOTALL), reader, remedy)


# Pillow's readers are called one by one: `Image.open` would try forty formats and apply its own size limit.
FORMATS = (
    _format("JPEG", "jpg jpeg jpe jfif", rb"\xff\xd8\xff", "PIL.JpegImagePlugin:JpegImageFile"),
    _format("PNG", "png apng", rb"\x89PNG", "PIL.PngImagePlugin:PngImageFile"),
    _format("WebP", "webp", rb"RIFF....WEBP", "PIL.WebPImagePlugin:WebPImageFile"),
    _format("TIFF", "tif tiff", rb"II[*+]\0|MM\0[*+]", "PIL.TiffImagePlugin:TiffImageFile"),
    # The reserved bytes are 0, or the size of the header that follows is one of those that were ever used.
    _format(
        "BMP", "bmp dib", rb"BM....(\0{4}|.{8}[\x0c\x28\x34\x38\x40\x6c\x7c]\0)", "PIL.BmpImagePlugin:BmpImageFile"
    ),
    _format("GIF", "gif", rb"GIF8[79]a", "PIL.GifImagePlugin:GifImageFile"),
    _format("PPM", "ppm pgm pbm pnm", rb"P[1-6][\s#]", "PIL.PpmImagePlugin:PpmImageFile"),
    _format(
        "JPEG 2000",
        "jp2 j2k jpx jpf jpc j2c",
        rb"\0\0\0\x0cjP  \r\n|\xff\x4f\xff\x51",
        "PIL.Jpeg2KImagePlugin:Jpeg2KImageFile",
        "a Pillow with OpenJPEG",
    ),
    _format(
        "AVIF", "avif avifs", rb"....ftypavi[fs]", "PIL.AvifImagePlugin:AvifImageFile", "pip install 'pillow>=11.3'"
    ),
    _format(
        "HEIC",
        "heic heif hif",
        rb"....ftyp(hei[cxms]|hev[cxms]|mif1|msf1)",
        "pillow_heif.as_plugin:HeifImageFile",
        "pip install 'verydeep[heic]'",
    ),
)
READ = tuple(each for each in FORMATS if each.is_read)
SUFFIXES = frozenset().union(*(each.suffixes for each in READ))


def suffix(name: str) -> str:
    """Return the ending of a file's name in lower case, without the dot; empty where there is none."""
    last = name.rpartition("/")[2]
    return last.rpartition(".")[2].lower() if "." in last else ""


def is_picture(name: str, head: Callable[[], bytes]) -> bool:
    """Say whether a file counts as a picture.

    By its name's ending, whatever is in it (a damaged one shall be noticed), and else by its first bytes, which
    `head` returns (a photograph without an ending is one).
    """
    return suffix(name) in SUFFIXES or format_of(head(), READ) is not None


def counted(names: Iterable[str]) -> str:
    """Return how many files there are of each ending, the most first, and what would read those that are pictures."""
    counts = Counter(suffix(name) for name in names)
    words = [f"{number} {f'.{ending}' if ending else 'without an ending'}" for ending, number in counts.most_common(5)]
    remedies = {
        f"{each.remedy} reads {each.name}, or convert them to JPEG"
        for each in FORMATS
        if each not in READ and each.suffixes & set(counts)
    }
    return "; ".join([", ".join(words), *sorted(remedies)])


def format_of(head: bytes, formats: tuple[Format, ...] = FORMATS) -> Format | None:
    """Return the format of the file that begins with `head`."""
    return next((each for each in formats if each.signature.match(head)), None)


def expected() -> str:
    """Return the names of what is decoded, for messages."""
    names = [each.name for each in READ]
    return f"{', '.join(names[:-1])} or {names[-1]}"
