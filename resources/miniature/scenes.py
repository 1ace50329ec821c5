"""Drawn scenes of coloured things, and the questions that they answer.

A scene is described without pixels (positions and lengths are fractions of the picture's side),
so the same scene can be drawn at any size. All chance comes from the caller's generator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

Rgb = tuple[int, int, int]
Point = tuple[float, float]

PAINTS: dict[str, Rgb] = {
    "red": (212, 32, 38),
    "green": (38, 142, 62),
    "blue": (36, 84, 200),
    "yellow": (247, 207, 38),
    "brown": (126, 76, 38),
    "black": (38, 38, 44),
    "white": (250, 250, 250),
    "pink": (248, 132, 186),
}
COLORS = tuple(PAINTS)
PLACE_PHRASES = {
    "left": "on the left",
    "right": "on the right",
    "top": "at the top",
    "bottom": "at the bottom",
}
LAYOUTS = {"row": ("left", "right"), "stack": ("top", "bottom"), "single": ("middle",)}

WHITE: Rgb = (255, 255, 255)
INK: Rgb = (30, 26, 34)
SKIES: tuple[Rgb, ...] = ((176, 212, 236), (196, 206, 236), (240, 214, 192))
MEADOWS: tuple[Rgb, ...] = ((176, 204, 142), (196, 200, 142), (160, 198, 162))
WALLS: tuple[Rgb, ...] = ((222, 208, 186), (190, 208, 206), (208, 198, 218), (206, 214, 190))
FLOORS: tuple[Rgb, ...] = ((196, 166, 128), (178, 158, 140), (208, 184, 150))

SHELF_TOP = 0.47
# Edges are smoothed by drawing this many times larger and averaging.
OVERSAMPLING = 3


@dataclass(frozen=True)
class Placed:
    """One thing in a scene; `x`, `y` is its centre and `scale` half its side."""

    thing: str
    color: str
    place: str
    x: float
    y: float
    scale: float
    paint: Rgb
    mirrored: bool = False
    tilt: float = 0.0


@dataclass(frozen=True)
class Backdrop:
    """What lies behind the things: a `meadow` or a `room`, its two colours and its horizon."""

    kind: str
    far: Rgb
    near: Rgb
    horizon: float
    phase: float
    shelf: bool = False


@dataclass(frozen=True)
class Scene:
    """A backdrop and the things in front of it."""

    backdrop: Backdrop
    things: tuple[Placed, ...]


@dataclass(frozen=True)
class Question:
    """A question about a scene, with its one-word answer; `kind` is color, thing or place."""

    kind: str
    text: str
    answer: str


def ask_color(thing: str) -> str:
    """The question for the colour of `thing`."""
    return f"what is the color of the {thing}"


def ask_thing(color: str) -> str:
    """The question for the thing that has `color`."""
    return f"what thing is {color}"


def ask_place(place: str) -> str:
    """The question for the thing at `place`; raises KeyError for a place that no thing has."""
    return f"what is {PLACE_PHRASES[place]}"


def questions_about(scene: Scene) -> list[Question]:
    """Every question that the scene answers; a thing in the middle has no place question."""
    asked = []
    for placed in scene.things:
        asked.append(Question("color", ask_color(placed.thing), placed.color))
        asked.append(Question("thing", ask_thing(placed.color), placed.thing))
        if placed.place in PLACE_PHRASES:
            asked.append(Question("place", ask_place(placed.place), placed.thing))
    return asked


def mix(first: Rgb, second: Rgb, share: float) -> Rgb:
    """The colour `share` of the way from `first` to `second`, share in [0, 1]."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def jittered(color: Rgb, spread: int, rng: np.random.Generator) -> Rgb:
    """`color` with up to `spread` added to or taken from each channel, kept in 0..255."""
    shift = rng.integers(-spread, spread + 1, size=3)
    red, green, blue = (int(np.clip(c + s, 0, 255)) for c, s in zip(color, shift, strict=True))
    return red, green, blue


def random_scene(rng: np.random.Generator, layout: str | None = None) -> Scene:
    """A scene drawn by chance.

    `layout` is `row` (left and right), `stack` (top and bottom) or `single`; None picks one of
    the two with two things. Things and colours never repeat within a scene. Raises KeyError for
    another layout.
    """
    layout = layout or str(rng.choice(["row", "stack"]))
    places = LAYOUTS[layout]
    backdrop = random_backdrop(rng, layout)
    things = rng.choice(THINGS, size=len(places), replace=False)
    colors = rng.choice(COLORS, size=len(places), replace=False)
    placed = tuple(
        random_placed(rng, str(thing), str(color), place, backdrop)
        for thing, color, place in zip(things, colors, places, strict=True)
    )
    return Scene(backdrop, placed)


def random_backdrop(rng: np.random.Generator, layout: str) -> Backdrop:
    """A backdrop fit for `layout`; a stack stands in a room, which has a shelf for it."""
    stacked = layout == "stack"
    if stacked or rng.random() < 0.5:
        kind, fars, nears, horizon = "room", WALLS, FLOORS, rng.uniform(0.68, 0.78)
    else:
        kind, fars, nears, horizon = "meadow", SKIES, MEADOWS, rng.uniform(0.5, 0.66)
    return Backdrop(
        kind=kind,
        far=jittered(fars[rng.integers(len(fars))], 10, rng),
        near=jittered(nears[rng.integers(len(nears))], 10, rng),
        horizon=float(horizon),
        phase=float(rng.random()),
        shelf=stacked,
    )


def random_placed(
    rng: np.random.Generator, thing: str, color: str, place: str, backdrop: Backdrop
) -> Placed:
    """A thing with a position, size, shade and tilt by chance, wholly inside the picture."""
    scale = float(rng.uniform(0.17, 0.215))
    flies = thing == "kite"
    tilt = rng.uniform(-0.3, 0.3) if flies else rng.uniform(-0.06, 0.06)
    foot = float(rng.uniform(max(backdrop.horizon + 0.04, 0.72), 0.92))
    x = float(rng.uniform(0.29, 0.71))
    y = foot - scale
    if place == "left":
        x = float(rng.uniform(0.24, 0.28))
    elif place == "right":
        x = float(rng.uniform(0.72, 0.76))
    elif place == "top":
        y = SHELF_TOP - scale
    elif place == "bottom":
        y = float(rng.uniform(0.93, 0.97)) - scale
    if flies and place not in ("top", "bottom"):
        y -= float(rng.uniform(0.05, 0.25))
    return Placed(
        thing=thing,
        color=color,
        place=place,
        x=x,
        y=y,
        scale=scale,
        paint=jittered(PAINTS[color], 14, rng),
        mirrored=bool(rng.random() < 0.5),
        tilt=float(tilt),
    )


def rounded(points: Sequence[Point], passes: int) -> list[Point]:
    """A closed outline with its corners cut `passes` times, each pass doubling the points."""
    outline = list(points)
    for _ in range(passes):
        cut: list[Point] = []
        for (x0, y0), (x1, y1) in zip(outline, outline[1:] + outline[:1], strict=True):
            cut.append((0.75 * x0 + 0.25 * x1, 0.75 * y0 + 0.25 * y1))
            cut.append((0.25 * x0 + 0.75 * x1, 0.25 * y0 + 0.75 * y1))
        outline = cut
    return outline


def oval(x: float, y: float, width: float, height: float) -> list[Point]:
    """The outline of an ellipse about (x, y) with the given half axes."""
    angles = [2 * math.pi * step / 40 for step in range(40)]
    return [(x + width * math.cos(a), y + height * math.sin(a)) for a in angles]


class Pen:
    """Draws in a thing's own frame: (0, 0) is its centre, -1 and 1 its edges, y points down."""

    def __init__(self, canvas: Image.Image, placed: Placed) -> None:
        self.draw = ImageDraw.Draw(canvas, "RGBA")
        self.side = canvas.width
        self.placed = placed
        self.paint = placed.paint
        self.light = mix(placed.paint, WHITE, 0.3)
        self.dark = mix(placed.paint, INK, 0.3)
        self.edge = mix(placed.paint, INK, 0.55)
        # Dark lines would be lost on a black thing.
        self.detail = mix(placed.paint, WHITE, 0.25) if max(placed.paint) < 80 else self.edge

    def pixel(self, point: Point) -> Point:
        """Where `point` of the thing's frame lies on the canvas."""
        x, y = point
        x = -x if self.placed.mirrored else x
        cos, sin = math.cos(self.placed.tilt), math.sin(self.placed.tilt)
        turned = (x * cos - y * sin, x * sin + y * cos)
        return (
            (self.placed.x + self.placed.scale * turned[0]) * self.side,
            (self.placed.y + self.placed.scale * turned[1]) * self.side,
        )

    def fill(self, points: Sequence[Point], paint: Rgb, outlined: bool = True) -> None:
        """Fills a closed outline, and draws its edge unless `outlined` is false."""
        corners = [self.pixel(point) for point in points]
        self.draw.polygon(corners, fill=paint)
        if outlined:
            self.trace([*points, points[0], points[1]], self.edge, 0.045)

    def trace(self, points: Sequence[Point], paint: Rgb, width: float) -> None:
        """Draws an open line; `width` is in the thing's own frame."""
        pixels = [self.pixel(point) for point in points]
        thickness = max(1, round(width * self.placed.scale * self.side))
        self.draw.line(pixels, fill=paint, width=thickness, joint="curve")


def draw_shirt(pen: Pen) -> None:
    """A short-sleeved shirt with a collar and buttons."""
    half = [(0.26, -0.9), (0.56, -0.8), (1.0, -0.28), (0.68, -0.02), (0.5, -0.22), (0.54, 0.92)]
    outline = [*half, *[(-x, y) for x, y in reversed(half)], (0.0, -0.66)]
    pen.fill(outline, pen.paint)
    for sign in (-1, 1):
        pen.fill(
            [(sign * 0.62, -0.12), (sign * 0.68, -0.02), (sign, -0.28), (sign * 0.93, -0.37)],
            pen.dark,
        )
        pen.trace([(sign * 0.5, -0.22), (sign * 0.46, -0.44)], pen.dark, 0.05)
        pen.fill(
            [(0.0, -0.64), (sign * 0.24, -0.92), (sign * 0.38, -0.78), (sign * 0.2, -0.42)],
            pen.light,
        )
    pen.trace([(0.0, -0.6), (0.0, 0.9)], pen.dark, 0.05)
    for y in (-0.3, 0.02, 0.34, 0.66):
        pen.fill(oval(0.1, y, 0.05, 0.05), pen.light)


def draw_animal(pen: Pen) -> None:
    """A dog seen from the side: legs, tail, head with an ear, an eye and a nose."""
    for x in (-0.5, 0.3):
        pen.fill([(x, 0.2), (x + 0.2, 0.2), (x + 0.18, 0.92), (x + 0.02, 0.92)], pen.dark)
    tail = [(-0.6, -0.1), (-0.8, -0.5), (-0.98, -0.66), (-0.9, -0.36), (-0.66, 0.16)]
    pen.fill(rounded(tail, 2), pen.paint)
    for x in (-0.72, 0.12):
        pen.fill([(x, 0.2), (x + 0.24, 0.2), (x + 0.22, 0.98), (x, 0.98)], pen.paint)
    body = [
        (-0.84, -0.2),
        (-0.2, -0.2),
        (0.3, -0.5),
        (0.62, -0.3),
        (0.5, 0.36),
        (0.0, 0.42),
        (-0.4, 0.36),
        (-0.84, 0.46),
    ]
    pen.fill(rounded(body, 3), pen.paint)
    head = [
        (0.2, -0.86),
        (0.62, -0.9),
        (0.72, -0.62),
        (1.04, -0.58),
        (1.0, -0.24),
        (0.6, -0.18),
        (0.2, -0.2),
    ]
    pen.fill(rounded(head, 3), pen.paint)
    ear = [(0.2, -0.84), (0.44, -0.84), (0.4, -0.3), (0.16, -0.18), (0.1, -0.5)]
    pen.fill(rounded(ear, 2), pen.dark)
    pen.fill(oval(0.58, -0.6, 0.075, 0.075), WHITE)
    pen.fill(oval(0.6, -0.6, 0.035, 0.035), INK, outlined=False)
    pen.fill(oval(0.95, -0.48, 0.07, 0.06), INK, outlined=False)


def draw_ball(pen: Pen) -> None:
    """A ball with a shaded underside, two seams and a highlight."""
    pen.fill(oval(0.0, 0.1, 0.86, 0.86), pen.dark)
    pen.fill(oval(-0.05, 0.03, 0.77, 0.77), pen.paint, outlined=False)
    for bend in (-0.42, 0.34):
        seam = [
            (bend * math.cos(a) + 0.02, 0.1 + 0.83 * math.sin(a))
            for a in np.linspace(-math.pi / 2, math.pi / 2, 20)
        ]
        pen.trace(seam, pen.detail, 0.04)
    pen.fill(oval(-0.36, -0.34, 0.2, 0.14), mix(pen.paint, WHITE, 0.75), outlined=False)


def draw_box(pen: Pen) -> None:
    """A closed box in perspective, with a strip of tape."""
    pen.fill([(-0.92, -0.28), (0.4, -0.28), (0.4, 0.96), (-0.92, 0.96)], pen.paint)
    pen.fill([(0.4, -0.28), (0.94, -0.72), (0.94, 0.46), (0.4, 0.96)], pen.dark)
    pen.fill([(-0.92, -0.28), (-0.34, -0.72), (0.94, -0.72), (0.4, -0.28)], pen.light)
    pen.fill(
        [(-0.38, -0.28), (0.2, -0.72), (0.42, -0.72), (-0.14, -0.28), (-0.14, 0.06), (-0.38, 0.06)],
        mix(pen.paint, WHITE, 0.55),
    )


def draw_hat(pen: Pen) -> None:
    """A hat with a wide brim, a dented crown and a band."""
    pen.fill(oval(0.0, 0.7, 0.99, 0.27), pen.dark)
    pen.fill(oval(0.0, 0.64, 0.97, 0.23), pen.paint, outlined=False)
    crown = [
        (-0.64, 0.86),
        (-0.6, -0.1),
        (-0.42, -0.6),
        (0.0, -0.36),
        (0.42, -0.6),
        (0.6, -0.1),
        (0.64, 0.86),
        (0.3, 0.9),
        (-0.3, 0.9),
    ]
    pen.fill(rounded(crown, 3), pen.paint)
    band = [(-0.58, 0.36), (0.0, 0.47), (0.58, 0.36), (0.59, 0.62), (0.0, 0.76), (-0.59, 0.62)]
    pen.fill(band, pen.detail)
    pen.trace([(-0.28, -0.3), (-0.36, 0.1)], pen.light, 0.08)


def draw_kite(pen: Pen) -> None:
    """A diamond kite in four panels, with a tail of bows."""
    top, left, right, foot = (0.0, -1.0), (-0.72, -0.3), (0.72, -0.3), (0.0, 0.5)
    middle = (0.0, -0.3)
    tail = [(0.16 * math.sin(9 * t), 0.5 + 0.5 * t) for t in np.linspace(0, 1, 20)]
    pen.trace(tail, pen.edge, 0.045)
    for share in (0.35, 0.7, 1.0):
        x, y = tail[round(share * (len(tail) - 1))]
        pen.fill(
            [
                (x - 0.16, y - 0.08),
                (x + 0.16, y + 0.06),
                (x + 0.16, y - 0.08),
                (x - 0.16, y + 0.06),
            ],
            pen.paint,
        )
    pen.fill([top, right, foot, left], pen.paint)
    pen.fill([top, middle, left], pen.light)
    pen.fill([right, middle, foot], pen.dark)
    pen.trace([top, foot], pen.detail, 0.045)
    pen.trace([left, right], pen.detail, 0.045)


PAINTERS: dict[str, Callable[[Pen], None]] = {
    "shirt": draw_shirt,
    "animal": draw_animal,
    "ball": draw_ball,
    "box": draw_box,
    "hat": draw_hat,
    "kite": draw_kite,
}
THINGS = tuple(PAINTERS)


def gradient(top: Rgb, bottom: Rgb, width: int, height: int) -> Image.Image:
    """A picture that goes from `top` to `bottom`."""
    share = np.linspace(0.0, 1.0, height)[:, None]
    column = np.array(top) * (1 - share) + np.array(bottom) * share
    pixels = np.broadcast_to(column.round().astype(np.uint8)[:, None], (height, width, 3))
    return Image.fromarray(np.ascontiguousarray(pixels))


def draw_halves(canvas: Image.Image, backdrop: Backdrop) -> None:
    """Fills the canvas with the far colour above the horizon and the near one below it."""
    side = canvas.width
    horizon = round(backdrop.horizon * side)
    upper = gradient(backdrop.far, mix(backdrop.far, WHITE, 0.35), side, horizon)
    lower = gradient(backdrop.near, mix(backdrop.near, INK, 0.12), side, side - horizon)
    canvas.paste(upper, (0, 0))
    canvas.paste(lower, (0, horizon))


def draw_meadow(canvas: Image.Image, backdrop: Backdrop) -> None:
    """A sky with two clouds, far hills and a meadow with tufts of grass."""
    draw_halves(canvas, backdrop)
    side = canvas.width
    draw = ImageDraw.Draw(canvas, "RGBA")
    for x, y, size in ((0.16, 0.12, 0.05), (0.66, 0.07, 0.04)):
        x = (x + backdrop.phase) % 1.0
        for dx, lift, grow in ((-1.3, 0.0, 0.8), (0.0, 0.4, 1.15), (1.3, 0.0, 0.85)):
            puff = oval(x + dx * size, y - lift * size, 1.2 * grow * size, 0.75 * grow * size)
            draw.polygon([(a * side, b * side) for a, b in puff], fill=(*WHITE, 90))
    haze = mix(backdrop.near, backdrop.far, 0.5)
    for height, turns, paint in ((0.09, 1.1, haze), (0.05, 1.9, mix(haze, backdrop.near, 0.5))):
        ridge = [
            (
                x,
                backdrop.horizon
                - height * (0.6 + 0.4 * math.sin(6.3 * (turns * x + height * 40 + backdrop.phase))),
            )
            for x in np.linspace(0, 1, 60)
        ]
        hill = [*ridge, (1.0, backdrop.horizon + 0.01), (0.0, backdrop.horizon + 0.01)]
        draw.polygon([(x * side, y * side) for x, y in hill], fill=paint)
    blade = (*mix(backdrop.near, INK, 0.3), 110)
    for step in range(26):
        # Multiples of irrational numbers scatter evenly and need no generator.
        x = (step * 0.618034 + backdrop.phase) % 1.0
        y = backdrop.horizon + 0.05 + (step * 0.754878) % 1.0 * (0.93 - backdrop.horizon)
        for lean in (-0.008, 0.0, 0.008):
            draw.line(
                [(x * side, y * side), ((x + lean) * side, (y - 0.02) * side)],
                fill=blade,
                width=max(1, round(0.003 * side)),
            )


def draw_room(canvas: Image.Image, backdrop: Backdrop) -> None:
    """A striped wall, a skirting board, floor boards, and the shelf where there is one."""
    draw_halves(canvas, backdrop)
    side = canvas.width
    draw = ImageDraw.Draw(canvas, "RGBA")
    horizon = backdrop.horizon
    for step in range(-1, 10):
        x = (step + backdrop.phase) / 9
        draw.rectangle([x * side, 0, (x + 0.055) * side, horizon * side], fill=(*WHITE, 36))
    draw.rectangle(
        [0, (horizon - 0.025) * side, side, horizon * side], fill=mix(backdrop.far, WHITE, 0.6)
    )
    board = (*mix(backdrop.near, INK, 0.4), 70)
    for step in range(-6, 8):
        x = (step + backdrop.phase) / 6 + 0.5
        draw.line(
            [
                ((0.5 + (x - 0.5) * 0.6) * side, horizon * side),
                ((0.5 + (x - 0.5) * 1.2) * side, side),
            ],
            fill=board,
            width=max(1, round(0.004 * side)),
        )
    if backdrop.shelf:
        draw_shelf(draw, side, mix(backdrop.near, WHITE, 0.25))


def draw_shelf(draw: ImageDraw.ImageDraw, side: int, paint: Rgb) -> None:
    """A shelf across the wall on two brackets, with its shadow."""
    draw.rectangle(
        [0.07 * side, (SHELF_TOP + 0.03) * side, 0.93 * side, (SHELF_TOP + 0.05) * side],
        fill=(*INK, 40),
    )
    for x in (0.14, 0.84):
        draw.polygon(
            [
                (x * side, SHELF_TOP * side),
                ((x + 0.02) * side, SHELF_TOP * side),
                ((x + 0.02) * side, (SHELF_TOP + 0.075) * side),
            ],
            fill=mix(paint, INK, 0.4),
        )
    draw.rectangle(
        [0.06 * side, (SHELF_TOP - 0.005) * side, 0.94 * side, (SHELF_TOP + 0.03) * side],
        fill=paint,
        outline=mix(paint, INK, 0.35),
        width=max(1, round(0.003 * side)),
    )


def draw_shadow(canvas: Image.Image, placed: Placed) -> None:
    """A soft shadow under a thing that stands; a kite casts none."""
    if placed.thing == "kite":
        return
    draw = ImageDraw.Draw(canvas, "RGBA")
    y = placed.y + 0.97 * placed.scale
    for spread in (1.0, 0.86, 0.72):
        shadow = oval(placed.x, y, spread * placed.scale, 0.13 * spread * placed.scale)
        draw.polygon([(a * canvas.width, b * canvas.width) for a, b in shadow], fill=(*INK, 30))


def draw_scene(scene: Scene, size: int) -> Image.Image:
    """The scene as an RGB picture of `size` × `size` pixels.

    Raises KeyError for a thing that is none of THINGS, ValueError for an unknown backdrop.
    """
    canvas = Image.new("RGB", (size * OVERSAMPLING, size * OVERSAMPLING))
    if scene.backdrop.kind == "meadow":
        draw_meadow(canvas, scene.backdrop)
    elif scene.backdrop.kind == "room":
        draw_room(canvas, scene.backdrop)
    else:
        raise ValueError(f"unknown backdrop {scene.backdrop.kind!r}: use meadow or room")
    for placed in scene.things:
        draw_shadow(canvas, placed)
        PAINTERS[placed.thing](Pen(canvas, placed))
    return canvas.reduce(OVERSAMPLING)
