"""Draws the pictures of the default sheet, `config/examples.tsv`, into the folder `images`."""

from __future__ import annotations

import argparse
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


def main() -> None:
    """Draws every example as `<output>/<example>.png`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "images")
    output: Path = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    for name, scene in EXAMPLES.items():
        draw_scene(scene, SIZE).save(output / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
