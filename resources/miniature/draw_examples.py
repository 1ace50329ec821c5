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
