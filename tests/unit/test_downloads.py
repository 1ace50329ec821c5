"""Pictures by address, from a server on this machine that fails in every way first."""

import hashlib
import io
import logging
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

from blip_tracing.errors import InputError
from blip_tracing.given.downloads import download_picture
from blip_tracing.given.pictures import is_url, open_picture, picture_path

TINY_BACKOFF = 0.001
OLD = b"what was there before"


def picture_bytes() -> bytes:
    buffer = io.BytesIO()
    Image.radial_gradient("L").convert("RGB").save(buffer, "JPEG")
    return buffer.getvalue()


PICTURE = picture_bytes()
PAGE = b"<!doctype html><title>Not here</title>"


class Server(ThreadingHTTPServer):
    """Gives its `answers` one a request, the last one again and again."""

    answers: list[str]
    requests: int

    def next_answer(self) -> str:
        self.requests += 1
        return self.answers[min(self.requests, len(self.answers)) - 1]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        match self.server.next_answer():
            case "busy":
                self.answer(503, "text/plain", b"busy")
            case "gone":
                self.answer(404, "text/plain", b"gone")
            case "page":
                self.answer(200, "text/html; charset=utf-8", PAGE)
            case "cut":
                self.answer(200, "image/jpeg", PICTURE[:-100], declared=len(PICTURE))
            case "cut, undeclared":
                self.answer(200, "image/jpeg", PICTURE[: len(PICTURE) // 2], declared=None)
            case "hung up":
                self.connection.shutdown(socket.SHUT_RDWR)
            case "good":
                self.answer(200, "image/jpeg", PICTURE)

    def answer(self, status: int, kind: str, body: bytes, declared: int | None = -1) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if declared is not None:
            self.send_header("Content-Length", str(len(body) if declared < 0 else declared))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server(("127.0.0.1", 0), Handler) as server:
        server.requests = 0
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def fetch(server: Server, answers: list[str], folder: Path, **options: object) -> Path:
    server.answers = answers
    destination = folder / "pictures/shirt.jpg"
    download_picture(address(server), destination, backoff=TINY_BACKOFF, **options)  # type: ignore[arg-type]
    return destination


def address(server: Server) -> str:
    return f"http://127.0.0.1:{server.server_port}/shirt.jpg"


def refusal(server: Server, answers: list[str], folder: Path, **options: object) -> str:
    """The one line that a failing fetch ends with."""
    with pytest.raises(InputError) as refused:
        fetch(server, answers, folder, **options)
    message = str(refused.value)
    assert message.startswith(f"{address(server)}: ")
    assert "\n" not in message
    return message.removeprefix(f"{address(server)}: ")


@pytest.mark.parametrize("failure", ["busy", "cut", "cut, undeclared", "hung up"])
def test_a_failure_that_passes_is_tried_again(
    server: Server, tmp_path: Path, failure: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        destination = fetch(server, [failure, failure, "good"], tmp_path, attempts=3)
    assert destination.read_bytes() == PICTURE
    assert server.requests == 3
    said = [record.getMessage().split(": ")[1] for record in caplog.records]
    assert said == ["attempt 1 of 3", "attempt 2 of 3"]


def test_different_failures_share_the_attempts(server: Server, tmp_path: Path) -> None:
    message = refusal(server, ["busy", "cut", "hung up", "busy", "good"], tmp_path, attempts=4)
    assert server.requests == 4
    assert message == (
        "the server answered 503 Service Unavailable (attempt 4 of 4); "
        "try again later, or download it by hand and give its path"
    )


def test_each_wait_is_twice_the_one_before(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("blip_tracing.given.downloads.time.sleep", waits.append)
    refusal(server, ["busy"], tmp_path, attempts=4)
    assert waits == [TINY_BACKOFF, 2 * TINY_BACKOFF, 4 * TINY_BACKOFF]


def test_a_body_cut_short_says_how_much_came(server: Server, tmp_path: Path) -> None:
    message = refusal(server, ["cut"], tmp_path, attempts=1)
    assert message.startswith("the body was cut short (")
    assert f"{len(PICTURE) - 100} bytes read, 100 more expected" in message


def test_nobody_listening_is_said(tmp_path: Path) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{reserved.getsockname()[1]}/shirt.jpg"
        with pytest.raises(InputError, match=r"the connection failed \(.*refused\)"):
            download_picture(url, tmp_path / "shirt.jpg", attempts=2, backoff=TINY_BACKOFF)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("gone", "the server answered 404 Not Found; check the address"),
        ("page", "the server sent text/html, not a picture; check the address in a browser"),
    ],
)
def test_a_failure_that_stays_is_not_tried_again(
    server: Server, tmp_path: Path, answer: str, message: str
) -> None:
    assert refusal(server, [answer], tmp_path) == message
    assert server.requests == 1


def test_an_address_that_is_none_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^http://: cannot be fetched \("):
        download_picture("http://", tmp_path / "shirt.jpg")


def test_the_checksum_is_checked_where_it_is_given(server: Server, tmp_path: Path) -> None:
    found = hashlib.sha256(PICTURE).hexdigest()
    assert fetch(server, ["good"], tmp_path, sha256=found.upper()).read_bytes() == PICTURE
    message = refusal(server, ["good"], tmp_path, sha256="0" * 64)
    assert message.startswith(f"its sha256 is {found}, not the sheet's {'0' * 64}; check")


@pytest.mark.parametrize("answer", ["busy", "cut", "cut, undeclared", "page", "gone", "hung up"])
def test_a_failure_leaves_nothing_behind(server: Server, tmp_path: Path, answer: str) -> None:
    refusal(server, [answer], tmp_path, attempts=2)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_failure_leaves_an_older_picture_as_it_was(server: Server, tmp_path: Path) -> None:
    older = tmp_path / "pictures/shirt.jpg"
    older.parent.mkdir()
    older.write_bytes(OLD)
    refusal(server, ["good"], tmp_path, sha256="0" * 64)
    assert older.read_bytes() == OLD
    assert list(older.parent.iterdir()) == [older]


def test_a_picture_that_came_is_all_there_is(server: Server, tmp_path: Path) -> None:
    destination = fetch(server, ["cut", "good"], tmp_path)
    assert list(destination.parent.iterdir()) == [destination]
    assert open_picture(destination).size == (256, 256)


def test_an_address_has_one_place_and_a_path_stays_as_it_is() -> None:
    url = "https://example.org/a/Shirt.JPG?size=2"
    name = hashlib.sha256(url.encode()).hexdigest()[:12]
    assert picture_path(url) == f"results/pictures/{name}.jpg"
    assert picture_path("https://example.org/").count(".") == 0
    assert picture_path("images/shirt.png") == "images/shirt.png"
    assert [is_url(image) for image in ("HTTP://x/y", "https://x", "http.png", "ftp://x")] == [
        True,
        True,
        False,
        False,
    ]


def test_a_picture_is_opened_as_rgb_and_a_damaged_one_named(tmp_path: Path) -> None:
    grey, cut, text = tmp_path / "grey.png", tmp_path / "cut.jpg", tmp_path / "text.jpg"
    Image.new("LA", (3, 2)).save(grey)
    cut.write_bytes(PICTURE[: len(PICTURE) // 2])
    text.write_text("not a picture")
    assert (open_picture(grey).mode, open_picture(grey).size) == ("RGB", (3, 2))
    with pytest.raises(InputError, match=f"^{cut}: the picture is cut short or damaged"):
        open_picture(cut)
    with pytest.raises(InputError, match=f"^{text}: is no picture that Pillow knows"):
        open_picture(text)
    with pytest.raises(
        InputError, match=f"^{tmp_path}/none.png: there is no such file; mend its path$"
    ):
        open_picture(tmp_path / "none.png")
