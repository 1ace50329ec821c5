"""Draws scenes by chance, with what can be asked about them, as a dataset.

    python resources/miniature/draw_scenes.py scenes --scenes 1000 --seed 0

The pictures are `scenes/000000000001.png` and so on, and `scenes/questions.csv` holds their
questions in the form of the files that Palit et al. (2023) drew from COCO-QA, odd column names
included.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from scenes import draw_scene, questions_about, random_scene

QUESTIONS = "questions.csv"
COLUMNS = ("", "train_image_id_count", "question_count", "answer_count")


def picture_name(number: int) -> str:
    """A picture's file name, as COCO writes them: `000000000001.png`."""
    return f"{number:012d}.png"


def draw_dataset(folder: Path, scenes: int, seed: int, size: int) -> int:
    """Draws scenes of `size` × `size` pixels into `folder` and lists their questions there.

    The first scenes are the same however many there are. Returns the number of questions.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # A stream that training, which spawns its own from a seed, has not seen.
    rng = np.random.default_rng(seed)
    rows: list[tuple[int, int, str, str]] = []
    for number in range(1, scenes + 1):
        scene = random_scene(rng)
        draw_scene(scene, size).save(folder / picture_name(number))
        for question in questions_about(scene):
            rows.append((len(rows), number, question.text, question.answer))
    with (folder / QUESTIONS).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows)
    return len(rows)


def main() -> None:
    """Draws the scenes that the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scenes", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=96, help="pixels of a side (default: 96)")
    arguments = parser.parse_args()
    questions = draw_dataset(arguments.folder, arguments.scenes, arguments.seed, arguments.size)
    print(f"{arguments.folder}: {arguments.scenes:,} scenes, {questions:,} questions")


if __name__ == "__main__":
    main()
