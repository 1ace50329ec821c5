"""Pictures fetched by URL: retried, checked, and written whole or not at all."""

from __future__ import annotations

import logging
import os
import time
from typing import BinaryIO
from urllib.parse import urlsplit

import requests

from blip_tracing.errors import InputError
from blip_tracing.given.pictures import identify_picture, open_picture
from blip_tracing.machinery.files import sha256_of, written_whole

ATTEMPTS = 5
BACKOFF_SECONDS = 1.0
CONNECT_AND_READ_SECONDS = (10, 60)
BLOCK_BYTES = 1 << 16
# "Too early", "too many requests" and their like; every 5xx is tried again too.
PASSING_STATUSES = (408, 425, 429)
# Some picture servers turn away clients that do not say what they are; and pictures are
# compressed already.
HEADERS = {"User-Agent": "blip-causal-tracing", "Accept-Encoding": "identity"}

logger = logging.getLogger(__name__)


class _PassingFailure(Exception):
    """A failure that another attempt may mend; the message is its reason."""


def check_address(url: str) -> None:
    """Check that an address is one which the client can ask, without asking.

    Raises InputError: host or port is missing, or is none.
    """
    try:
        asked = urlsplit(requests.Request("GET", url).prepare().url)
        if urlsplit(url).port == 0:  # also: Python's own reading takes less than the client's
            raise ValueError("port 0")
        # As the client looks a host up: a label too long or empty shows only then.
        str(asked.hostname).encode("idna")
    except ValueError as error:
        raise InputError(f"{url}: is no address ({_reason(error)}); mend it") from error


def download_picture(
    url: str,
    destination: str | os.PathLike[str],
    sha256: str = "",
    attempts: int = ATTEMPTS,
    backoff: float = BACKOFF_SECONDS,
) -> None:
    """Fetch a picture; on failure nothing is left behind and an older file stays as it was.

    Tried up to `attempts` times while the server fails, the connection breaks or the body is cut
    short, waiting `backoff` seconds before the second attempt and twice as long before each next.
    Raises InputError naming the URL when the attempts are used up, the server refuses, what it
    sends is no picture, or its digest is not `sha256` (64 hex digits; "" to take any).
    """
    for attempt in range(1, attempts + 1):
        try:
            _fetch(url, destination, sha256)
            return
        except _PassingFailure as failure:
            logger.warning("%s: attempt %d of %d: %s", url, attempt, attempts, failure)
            if attempt == attempts:
                raise InputError(
                    f"{url}: {failure} (attempt {attempts} of {attempts}); try again later, or "
                    "download it by hand and give its path"
                ) from failure
        time.sleep(backoff * 2 ** (attempt - 1))


def _fetch(url: str, destination: str | os.PathLike[str], sha256: str) -> None:
    with written_whole(destination) as file:
        content_type = _receive(url, file)
        file.flush()
        _check_picture(url, file.name, content_type)
        _check_digest(url, file.name, sha256)


def _receive(url: str, file: BinaryIO) -> str:
    """Write the body to `file` and return the content type that the server claims for it."""
    try:
        with requests.get(
            url, headers=HEADERS, timeout=CONNECT_AND_READ_SECONDS, stream=True
        ) as response:
            _check_status(url, response)
            for block in response.iter_content(BLOCK_BYTES):
                file.write(block)
            return response.headers.get("Content-Type", "a body of no declared type")
    except requests.exceptions.ChunkedEncodingError as error:
        # Raised, too, for a body that is shorter than its Content-Length.
        raise _PassingFailure(f"the body was cut short ({_reason(error)})") from error
    except (requests.exceptions.ConnectionError, requests.exceptions.Timeout) as error:
        raise _PassingFailure(f"the connection failed ({_reason(error)})") from error
    except requests.exceptions.RequestException as error:
        raise InputError(f"{url}: cannot be fetched ({_reason(error)})") from error


def _check_status(url: str, response: requests.Response) -> None:
    answer = f"the server answered {response.status_code} {response.reason}".rstrip()
    if response.status_code in PASSING_STATUSES or response.status_code >= 500:
        raise _PassingFailure(answer)
    if response.status_code != requests.codes.ok:
        raise InputError(f"{url}: {answer}; check the address")


def _check_picture(url: str, path: str, content_type: str) -> None:
    try:
        identify_picture(path)
    except InputError as error:
        sent = content_type.split(";")[0]
        raise InputError(
            f"{url}: the server sent {sent}, not a picture; check the address in a browser"
        ) from error
    try:
        # Without a declared length a cut body shows only when all of it is decoded.
        open_picture(path).close()
    except InputError as error:
        raise _PassingFailure("the picture is cut short or damaged") from error


def _check_digest(url: str, path: str, sha256: str) -> None:
    found = sha256_of([path])
    if sha256 and found != sha256.lower():
        raise InputError(
            f"{url}: its sha256 is {found}, not the sheet's {sha256.lower()}; "
            "check the picture, then mend image_sha256 or the address"
        )


def _reason(error: Exception) -> str:
    """What went wrong, without the layers of exceptions that it came through."""
    cause = getattr(error.args[0], "reason", error) if error.args else error
    return " ".join(str(cause).split())
