"""Files from the net: into the user's cache, checked, continued where they were cut off."""

import hashlib
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from verydeep.basics.errors import UserError
from verydeep.basics.progress import track
from verydeep.basics.version import VERSION

BLOCK = 1 << 20
ATTEMPTS = 5
PATIENCE = 30.0
"""Seconds without a byte before a connection counts as lost."""


def download(url: str, digest: str, folder: Path, *, offline: bool = False, pause: float = 0.5) -> Path:
    """Return the file of a URL, in `folder` under the URL's last part, fetched if it is not there yet.

    What arrives is kept in `NAME.part`, and continued from there (an HTTP range) when the connection is lost, in this
    call or a later one: after `pause` seconds, then twice as many. Only a file with the right hash gets its name:
    `digest` is `sha256:...`, `sha1:...` or `md5:...`, the first digits being enough. Proxies are taken from the
    environment (`https_proxy`, `no_proxy`). UserError where it is not there and `offline`, the network cannot be
    reached, the server refuses, or the content is not the published one.
    """
    path = folder / url.rpartition("/")[2]
    if path.is_file():
        return path
    if offline:
        raise UserError(f"{url} is not in the cache ({path}), and --offline forbids to download it")
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    for attempt in range(ATTEMPTS):
        try:
            if _fetch(url, part):
                break
            reason = "the connection was closed too early"
        except urllib.error.HTTPError as error:
            raise UserError(f"{url}: the server answers {error.code} {error.reason}") from None
        except (OSError, http.client.HTTPException) as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        if attempt + 1 < ATTEMPTS:
            time.sleep(pause * 2**attempt)
    else:
        raise UserError(
            f"{url} cannot be downloaded ({reason}): check the network and the proxy (https_proxy), or fetch it "
            "elsewhere and give the file's path; what arrived is kept and continued next time"
        )
    _verify(url, part, digest)
    part.replace(path)
    return path


def _fetch(url: str, part: Path) -> bool:
    """Append to `part` what is missing of the file; return whether it is whole now."""
    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"User-Agent": f"verydeep/{VERSION}"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        # An opener of its own, because the one behind urlopen keeps the proxies of its first call.
        answer = urllib.request.build_opener().open(request, timeout=PATIENCE)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing is left, or the part is no beginning of this file: the hash tells
            return True
        raise
    with answer:
        continued = answer.status == 206 and _start(answer.headers.get("Content-Range", "")) == have
        if have and not continued:
            have = 0  # the server knows no ranges: once more from the beginning
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length is not None else None
        with part.open("ab" if have else "wb") as file:
            count = None if total is None else (total - have + BLOCK - 1) // BLOCK
            for block in track(_blocks(answer), count, url.rpartition("/")[2], unit="MiB"):
                file.write(block)
            size = file.tell()
    return total is None or size >= total


def _start(content_range: str) -> int:
    """Return the first byte's place that `bytes 100-199/200` tells."""
    first = content_range.removeprefix("bytes ").partition("-")[0]
    return int(first) if first.isdecimal() else -1


def _blocks(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    while block := answer.read(BLOCK):
        yield block


def _verify(url: str, part: Path, digest: str) -> None:
    kind, _, expected = digest.partition(":")
    with part.open("rb") as file:
        hasher = hashlib.new(kind)
        while block := file.read(BLOCK):
            hasher.update(block)
    found = hasher.hexdigest()
    if not found.startswith(expected):
        part.unlink()
        raise UserError(
            f"{url}: what arrived is not the published file ({kind} {found[: len(expected)]}, expected {expected}); it "
            "is removed, try again"
        )
