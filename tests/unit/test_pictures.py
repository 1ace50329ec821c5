"""Pictures of every kind are seen as a viewer shows them, or refused in one line."""

import base64
import io
import resource
import subprocess
import sys
import time
import zlib
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from project import ROOT, copy_project, snakemake
from stories import made_up_run

from blip_tracing.drawing import figures
from blip_tracing.errors import InputError
from blip_tracing.given.pictures import identify_picture, open_picture
from blip_tracing.printing.document import write_document
from blip_tracing.printing.page import PICTURE_SIDE, picture_address
from blip_tracing.telling.story import tell

ORIENTATION = 0x0112
GIB = 1 << 30
CONFIG, SHEET = "config/config.yaml", "config/examples.tsv"


def chunk(kind, data):
    """A part of a PNG file."""
    content = kind + data
    return len(data).to_bytes(4, "big") + content + zlib.crc32(content).to_bytes(4, "big")


def write_black_png(path, width, height):
    """A black picture of one bit a pixel, whole, at the cost of its compressed bytes alone."""
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([1, 0, 0, 0, 0])
    row = bytes(1 + (width + 7) // 8)
    packer = zlib.compressobj(1)
    data = b"".join(packer.compress(row * 100) for _ in range(height // 100)) + packer.flush()
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", data), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def cut_short(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


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


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.gif", "a.bmp", "a.webp", "a.tiff"])
def test_a_truncated_picture_is_named(tmp_path, half_red, name):
    half_red.resize((200, 200)).save(tmp_path / name)
    cut_short(tmp_path / name)
    with pytest.raises(InputError) as refused:
        open_picture(tmp_path / name)
    message = str(refused.value)
    assert message.startswith(f"{tmp_path / name}: ")
    assert message.splitlines() == [message]


def test_a_header_that_makes_no_sense_is_named(tmp_path):
    """Pillow's readers raise what they like: here a ValueError, there a NotImplementedError."""
    for content in (b"P6\n-3 x\n255\n", b"DDS \x7c\0\0\0" + bytes([7] * 200)):
        (tmp_path / "a").write_bytes(content)
        with pytest.raises(InputError, match=rf"{tmp_path}/a: .*picture"):
            open_picture(tmp_path / "a")


@pytest.fixture(scope="module")
def huge(tmp_path_factory):
    """50,000 × 50,000 pixels, which decoded would take 7.5 GB."""
    path = tmp_path_factory.mktemp("huge") / "huge.png"
    write_black_png(path, 50_000, 50_000)
    return path


TOO_LARGE = (
    "is too large; scale it down to at most 89,478,485 pixels (the model sees some 384 × 384)"
)


def test_a_huge_picture_is_refused_by_its_header(huge):
    for check in (identify_picture, open_picture):
        start = time.monotonic()
        with pytest.raises(InputError) as refused:
            check(huge)
        assert str(refused.value) == f"{huge}: {TOO_LARGE}"
        assert time.monotonic() - start < 1


def test_the_largest_picture_that_is_read(tmp_path):
    write_black_png(tmp_path / "a.png", 9_400, 9_500)
    identify_picture(tmp_path / "a.png")
    write_black_png(tmp_path / "a.png", 9_500, 9_500)
    with pytest.raises(InputError, match="is too large"):
        identify_picture(tmp_path / "a.png")


SHAPES = [(1, 20_000), (20_000, 1), (100, 480), (480, 100)]


@pytest.mark.parametrize(("width", "height"), SHAPES)
def test_a_picture_of_any_shape_is_shown(tmp_path, width, height):
    """In the figure of the baseline report, on the page, and in the document of the supplement."""
    path = tmp_path / "a.png"
    Image.new("RGB", (width, height), "red").save(path)
    run = made_up_run(tmp_path / "run")
    run = replace(run, pictures=dict.fromkeys(run.pictures, str(path)))
    name = next(iter(run.pictures))
    plot = figures.baseline(run.tables["baseline"], run.tables["runs"], name, path)
    figures.save_figure(plot, tmp_path / "figure", ["png", "svg", "pdf"])
    red = np.asarray(open_picture(tmp_path / "figure.png"))
    assert (red == (255, 0, 0)).all(axis=-1).any(), "the figure shows the picture"
    shown = Image.open(io.BytesIO(base64.b64decode(picture_address(path).split(",")[1])))
    assert max(shown.size) == min(max(width, height), 2 * PICTURE_SIDE)
    document = tmp_path / "story.pdf"
    write_document(tell(run), ROOT / "workflow/report/story.typ", document)
    assert document.read_bytes().startswith(b"%PDF")


@pytest.mark.workflow
def test_a_huge_picture_is_refused_while_the_jobs_are_planned(huge, tmp_path):
    project = copy_project(tmp_path / "project")
    sheet = (project / SHEET).read_text()
    (project / SHEET).write_text(sheet.replace("resources/miniature/images/hat_box.png", str(huge)))
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "1"],
        cwd=project,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (2 * GIB, 2 * GIB)),
        timeout=60,
    )
    assert done.returncode == 1
    where = "config/examples.tsv, row 4 (example 'hat_box'), image"
    assert done.stdout.splitlines()[1:] == [f"{where}: {huge}: {TOO_LARGE}"]
    assert not (project / "results").exists()


@pytest.mark.workflow
def test_every_kind_is_encoded_and_a_truncated_one_fails_its_job_by_name(tmp_path):
    """A picture that is cut short shows only when it is decoded, which planning does not do."""
    project = copy_project(tmp_path / "project")
    photo = Image.open(ROOT / "resources/miniature/images/hat_box.png").convert("RGB")
    turned = Image.Exif()
    turned[ORIENTATION] = 6
    photo.convert("CMYK").save(project / "cmyk.jpg")
    Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 256).save(
        project / "sixteen.png"
    )
    photo.save(project / "moving.gif", save_all=True, append_images=[photo.rotate(90)])
    photo.save(project / "turned.jpg", exif=turned)
    photo.save(project / "short.png")
    names = ["cmyk.jpg", "sixteen.png", "moving.gif", "turned.jpg", "short.png"]
    rows = [f"{name}\t{name}\twhat is at the top\twhat is at the bottom" for name in names]
    header = "example\timage\tbase_question\tsource_question"
    (project / SHEET).write_text("\n".join([header, *rows]))
    cut_short(project / "short.png")
    encoded = "results/images/0000.safetensors"
    done = snakemake(project, encoded)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout
    said = {line for line in done.stdout.splitlines() if line.startswith("short.png: ")}
    (line,) = said
    assert line.startswith("short.png: the picture is cut short or damaged (")
    assert line.endswith("); replace the file")
    assert not (project / encoded).exists()
    photo.save(project / "short.png")
    done = snakemake(project, encoded)
    assert done.returncode == 0, done.stdout
