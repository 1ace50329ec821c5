"""Draws the pictures of the default sheet, `config/examples.tsv`, into the folder `images`.

Beside them those in which one thing is another, and the sheet of both, `config/pictures.tsv`.
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import dataclass, replace
from pathlib import Path

from scenes import (
    FLOORS,
    MEADOWS,
    PAINTS,
    SHELF_TOP,
    SKIES,
    WALLS,
    Backdrop,
    Placed,
    Scene,
    ask_color,
    ask_place,
    draw_scene,
)

SIZE = 480

EXAMPLES = {
    "animal_shirt": Scene(
        Backdrop("meadow", far=SKIES[0], near=MEADOWS[0], horizon=0.56, phase=0.15),
        (
            Placed("animal", "brown", "left", 0.26, 0.67, 0.213, PAINTS["brown"]),
            Placed("shirt", "red", "right", 0.74, 0.66, 0.21, PAINTS["red"], tilt=0.03),
        ),
    ),
    "ball_kite": Scene(
        Backdrop("meadow", far=SKIES[1], near=MEADOWS[2], horizon=0.6, phase=0.55),
        (
            Placed("kite", "yellow", "left", 0.26, 0.46, 0.213, PAINTS["yellow"], tilt=-0.22),
            Placed("ball", "blue", "right", 0.74, 0.69, 0.19, PAINTS["blue"]),
        ),
    ),
    "hat_box": Scene(
        Backdrop("room", far=WALLS[1], near=FLOORS[0], horizon=0.74, phase=0.4, shelf=True),
        (
            Placed("hat", "black", "top", 0.4, SHELF_TOP - 0.2, 0.2, PAINTS["black"]),
            Placed("box", "pink", "bottom", 0.61, 0.755, 0.2, PAINTS["pink"]),
        ),
    ),
    "shirt_hat": Scene(
        Backdrop("room", far=WALLS[2], near=FLOORS[2], horizon=0.73, phase=0.8),
        (
            Placed("shirt", "green", "left", 0.26, 0.68, 0.21, PAINTS["green"], mirrored=True),
            Placed("hat", "white", "right", 0.74, 0.7, 0.2, PAINTS["white"], mirrored=True),
        ),
    ),
    "box_animal": Scene(
        Backdrop("room", far=WALLS[0], near=FLOORS[1], horizon=0.7, phase=0.25),
        (
            Placed("animal", "black", "left", 0.27, 0.69, 0.205, PAINTS["black"], mirrored=True),
            Placed("box", "green", "right", 0.75, 0.68, 0.19, PAINTS["green"]),
        ),
    ),
    "hat_kite": Scene(
        Backdrop("room", far=WALLS[3], near=FLOORS[0], horizon=0.75, phase=0.6, shelf=True),
        (
            Placed("kite", "white", "top", 0.6, SHELF_TOP - 0.205, 0.205, PAINTS["white"]),
            Placed("hat", "pink", "bottom", 0.38, 0.75, 0.2, PAINTS["pink"], mirrored=True),
        ),
    ),
    "shirt_animal": Scene(
        Backdrop("meadow", far=SKIES[2], near=MEADOWS[1], horizon=0.58, phase=0.35),
        (
            Placed("shirt", "yellow", "left", 0.26, 0.7, 0.19, PAINTS["yellow"]),
            Placed("animal", "white", "right", 0.74, 0.68, 0.21, PAINTS["white"]),
        ),
    ),
    "ball_shirt": Scene(
        Backdrop("room", far=WALLS[2], near=FLOORS[1], horizon=0.72, phase=0.1, shelf=True),
        (
            Placed("shirt", "blue", "top", 0.36, SHELF_TOP - 0.19, 0.19, PAINTS["blue"]),
            Placed("ball", "yellow", "bottom", 0.62, 0.76, 0.19, PAINTS["yellow"]),
        ),
    ),
    "kite_box": Scene(
        Backdrop("meadow", far=SKIES[0], near=MEADOWS[1], horizon=0.62, phase=0.7),
        (
            Placed("box", "red", "left", 0.25, 0.7, 0.2, PAINTS["red"], mirrored=True),
            Placed("kite", "green", "right", 0.74, 0.5, 0.21, PAINTS["green"], tilt=0.2),
        ),
    ),
    "animal_hat": Scene(
        Backdrop("room", far=WALLS[1], near=FLOORS[2], horizon=0.74, phase=0.45, shelf=True),
        (
            Placed("animal", "red", "top", 0.62, SHELF_TOP - 0.2, 0.2, PAINTS["red"]),
            Placed("hat", "blue", "bottom", 0.4, 0.76, 0.19, PAINTS["blue"]),
        ),
    ),
    "box_kite": Scene(
        Backdrop("meadow", far=SKIES[1], near=MEADOWS[0], horizon=0.55, phase=0.9),
        (
            Placed("kite", "pink", "left", 0.27, 0.48, 0.2, PAINTS["pink"], tilt=-0.15),
            Placed("box", "black", "right", 0.73, 0.7, 0.2, PAINTS["black"]),
        ),
    ),
    "ball_animal": Scene(
        Backdrop("room", far=WALLS[0], near=FLOORS[2], horizon=0.71, phase=0.5),
        (
            Placed("ball", "brown", "left", 0.26, 0.7, 0.185, PAINTS["brown"]),
            Placed("animal", "yellow", "right", 0.75, 0.69, 0.205, PAINTS["yellow"], mirrored=True),
        ),
    ),
}


@dataclass(frozen=True)
class Exchange:
    """An example's scene with the thing at one place in another colour, or another thing there."""

    example: str
    place: str
    color: str = ""
    thing: str = ""

    @property
    def placed(self) -> Placed:
        """What is exchanged."""
        (placed,) = (each for each in EXAMPLES[self.example].things if each.place == self.place)
        return placed

    @property
    def scene(self) -> Scene:
        """All else as it was."""
        before = EXAMPLES[self.example]
        if self.color:
            after = replace(self.placed, color=self.color, paint=PAINTS[self.color])
        else:
            after = replace(self.placed, thing=self.thing)
        things = tuple(after if each is self.placed else each for each in before.things)
        return Scene(before.backdrop, things)

    @property
    def question(self) -> str:
        """What the two pictures answer otherwise."""
        return ask_color(self.placed.thing) if self.color else ask_place(self.place)

    @property
    def kind(self) -> str:
        """What the question is after."""
        return "color" if self.color else "place"

    @property
    def boxes(self) -> str:
        """Where the things are, as the sheet has it: the one that is exchanged, and the other."""
        other = next(each for each in EXAMPLES[self.example].things if each.place != self.place)
        named = {"thing": self.placed, "other thing": other}
        return "; ".join(f"{name}={box_of(placed)}" for name, placed in named.items())


def box_of(placed: Placed) -> str:
    """Left, top, right and bottom of a thing, which is drawn twice its scale wide and high."""
    edges = (
        placed.x - placed.scale, placed.y - placed.scale,
        placed.x + placed.scale, placed.y + placed.scale,
    )  # fmt: skip
    return ",".join(f"{min(max(edge, 0), 1):.3f}" for edge in edges)


EXCHANGES = {
    "shirt_blue": Exchange("animal_shirt", "right", color="blue"),
    "ball_green": Exchange("ball_kite", "right", color="green"),
    "hat_yellow": Exchange("hat_box", "top", color="yellow"),
    "box_pink": Exchange("box_animal", "right", color="pink"),
    "kite_blue": Exchange("hat_kite", "top", color="blue"),
    "animal_red": Exchange("shirt_animal", "right", color="red"),
    "shirt_black": Exchange("ball_shirt", "top", color="black"),
    "box_yellow": Exchange("kite_box", "left", color="yellow"),
    "animal_is_ball": Exchange("animal_hat", "top", thing="ball"),
    "ball_is_hat": Exchange("ball_animal", "left", thing="hat"),
    "hat_is_box": Exchange("shirt_hat", "right", thing="box"),
    "box_is_shirt": Exchange("box_kite", "right", thing="shirt"),
}
# Every picture that ships, by name.
SCENES = EXAMPLES | {name: exchange.scene for name, exchange in EXCHANGES.items()}
COLUMNS = ("example", "image", "source_image", "base_question", "source_question", "boxes", "group")


def sheet_rows(folder: str) -> list[tuple[str, ...]]:
    """The sheet of the exchanges: a question about a picture, and about the one with another."""
    return [
        (
            name, f"{folder}/{exchange.example}.png", f"{folder}/{name}.png", exchange.question,
            exchange.question, exchange.boxes, exchange.kind,
        )
        for name, exchange in EXCHANGES.items()
    ]  # fmt: skip


def main() -> None:
    """Draws every scene as `<output>/<name>.png`, and writes the sheet."""
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=here / "images")
    parser.add_argument("--sheet", type=Path, default=here.parents[1] / "config" / "pictures.tsv")
    arguments = parser.parse_args()
    output: Path = arguments.output
    output.mkdir(parents=True, exist_ok=True)
    for name, scene in SCENES.items():
        draw_scene(scene, SIZE).save(output / f"{name}.png", optimize=True)
    with arguments.sheet.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerows([COLUMNS, *sheet_rows("resources/miniature/images")])


if __name__ == "__main__":
    main()
