"""Pictures of every kind are seen as a viewer shows them."""

import numpy as np
import pytest
from PIL import Image

from blip_tracing.errors import InputError
from blip_tracing.pictures import open_picture

ORIENTATION = 0x0112


def corners(path):
    """The colours of the top left and the top right pixel."""
    seen = np.asarray(open_picture(path))
    return tuple(seen[0, 0].tolist()), tuple(seen[0, -1].tolist())


@pytest.fixture
def half_red():
    """Red on the left, blue on the right."""
    picture = Image.new("RGB", (20, 10), "blue")
    picture.paste("red", (0, 0, 10, 10))
    return picture


def test_a_plain_picture_is_unchanged(tmp_path, half_red):
    half_red.save(tmp_path / "a.png")
    assert open_picture(tmp_path / "a.png").tobytes() == half_red.tobytes()


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    grey = np.tile(np.array([0, 30_000, 65_535], dtype=np.uint16), (4, 1))
    Image.fromarray(grey).save(tmp_path / "a.png")
    seen = np.asarray(open_picture(tmp_path / "a.png"))
    assert seen[0, :, 0].tolist() == [0, 117, 255]


def test_transparent_parts_lie_on_white(tmp_path):
    picture = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    picture.putpixel((0, 0), (255, 0, 0, 255))
    picture.save(tmp_path / "a.png")
    assert corners(tmp_path / "a.png") == ((255, 0, 0), (255, 255, 255))


def test_a_turned_photograph_is_set_upright(tmp_path, half_red):
    exif = Image.Exif()
    exif[ORIENTATION] = 3  # upside down
    half_red.save(tmp_path / "a.png", exif=exif)
    assert corners(tmp_path / "a.png") == ((0, 0, 255), (255, 0, 0))


def test_printers_colours_and_animations_are_read(tmp_path, half_red):
    half_red.convert("CMYK").save(tmp_path / "a.tiff")
    assert corners(tmp_path / "a.tiff")[0][0] > 200
    half_red.save(tmp_path / "b.gif", save_all=True, append_images=[Image.new("RGB", (20, 10))])
    left, right = corners(tmp_path / "b.gif")
    assert left[0] > 200
    assert right[2] > 200


def test_a_truncated_picture_is_named(tmp_path, half_red):
    half_red.resize((200, 200)).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:700])
    with pytest.raises(InputError, match=r"a\.jpg: the picture is cut short or damaged"):
        open_picture(tmp_path / "a.jpg")
