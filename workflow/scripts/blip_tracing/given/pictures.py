"""Pictures: where they lie and how they are opened."""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from PIL import Image, ImageOps, UnidentifiedImageError

from blip_tracing.errors import InputError
from blip_tracing.machinery.files import check_file, read_record, sha256_of
from blip_tracing.vocabulary.experiment import QUESTIONS, SOURCE

# The sheet's columns of pictures, and those of their checksums.
PICTURES = {"image": "image_sha256", "source_image": "source_image_sha256"}
# How many times as long as thick a picture is shown at most.
THINNEST = 40
PICTURES_FOLDER = "results/pictures"
# A URL's path can end in anything; only an ending that looks like a suffix is kept.
PLAIN_SUFFIX = re.compile(r"\.[a-z0-9]{1,5}")


def is_url(image: str) -> bool:
    """Whether the sheet's `image` is to be downloaded."""
    return image.lower().startswith(("http://", "https://"))


def picture_of(row: Mapping[str, str], question: str) -> str:
    """The picture of a row's run, as the sheet names it: the source run can have its own."""
    return (question == SOURCE and row.get("source_image")) or row["image"]


def pictures_of(rows: Iterable[Mapping[str, str]]) -> list[str]:
    """The rows' distinct pictures in order of first appearance."""
    return list(dict.fromkeys(picture_of(row, question) for row in rows for question in QUESTIONS))


def picture_path(image: str) -> str:
    """The local file of the sheet's `image`: a path as it is, a URL's place in `results/`."""
    if not is_url(image):
        return image
    suffix = PurePosixPath(urlsplit(image).path).suffix.lower()
    kept = suffix if PLAIN_SUFFIX.fullmatch(suffix) else ""
    return f"{PICTURES_FOLDER}/{hashlib.sha256(image.encode()).hexdigest()[:12]}{kept}"


def identify_picture(path: str | os.PathLike[str]) -> None:
    """Check from its first bytes that a file is a picture, without decoding the rest.

    Raises InputError naming the file when it is missing, unreadable or no picture.
    """
    _open(path).close()


def open_picture(path: str | os.PathLike[str]) -> Image.Image:
    """A picture's first frame as a viewer shows it, in RGB, decoded whole and its file closed.

    Upright as its EXIF says, transparent parts on white, 16 bits a channel scaled to 8.

    Raises InputError naming the file when it is missing, unreadable, no picture or cut short.
    """
    with _open(path) as picture:
        try:
            return _as_shown(picture)
        # Pillow's decoders report damage with any of these, by format.
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            raise InputError(
                f"{os.fspath(path)}: the picture is cut short or damaged "
                f"({_one_line(error)}); replace the file"
            ) from error


def check_answered(facts: Iterable[str], paths: Iterable[str]) -> None:
    """Check that pictures are those that were answered about.

    facts: those of the jobs that encoded them. Raises InputError naming the file that is not.
    """
    records = list(facts)
    answered = {
        picture_path(image): digest
        for record in records
        for image, digest in read_record(record, ["pictures"])["pictures"].items()
    }
    for path in paths:
        if answered.get(path) != sha256_of([path]):
            raise InputError(
                f"{path}: is not the picture that was answered about (replaced since); put that "
                f"one back, or delete {' and '.join(records)}, and the next run asks about this one"
            )


def small_picture(path: str | os.PathLike[str], side: int) -> Image.Image:
    """A picture (`open_picture`) as reports show it: neither side longer than `side` pixels.

    One that is thinner than THINNEST is drawn so thick, so that something of it can be seen.
    """
    picture = open_picture(path)
    picture.thumbnail((side, side))
    least = max(picture.size) // THINNEST
    if min(picture.size) >= least:
        return picture
    return picture.resize((max(picture.width, least), max(picture.height, least)))


def _as_shown(picture: Image.Image) -> Image.Image:
    upright = ImageOps.exif_transpose(picture)
    if upright.mode.startswith("I"):  # grey of 16 bits, which Pillow would clip to white
        upright = upright.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    if upright.has_transparency_data:
        page = Image.new("RGBA", upright.size, "white")
        upright = Image.alpha_composite(page, upright.convert("RGBA"))
    return upright.convert("RGB")


def _open(path: str | os.PathLike[str]) -> Image.Image:
    try:
        check_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return Image.open(path)
    except FileNotFoundError as error:
        raise InputError(f"{os.fspath(path)}: there is no such file; mend its path") from error
    except UnidentifiedImageError as error:
        raise InputError(
            f"{os.fspath(path)}: is no picture that Pillow knows; give a JPEG or PNG file"
        ) from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise InputError(
            f"{os.fspath(path)}: is too large; scale it down to at most "
            f"{Image.MAX_IMAGE_PIXELS:,} pixels (the model sees some 384 × 384)"
        ) from error
    # What a damaged header makes Pillow's readers raise is theirs, by format.
    except Exception as error:
        raise InputError(
            f"{os.fspath(path)}: cannot be opened as a picture ({_one_line(error)})"
        ) from error


def _one_line(error: BaseException) -> str:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(reason.split()) or type(error).__name__
