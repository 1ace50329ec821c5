"""Says so where the model that was run is a toy, whatever its folder is called."""

from pathlib import Path

from blip_tracing.machinery.files import sha256_of

MINIATURE = Path(__file__).parents[4] / "resources/miniature/checkpoint/model.safetensors"
WORDS = (
    "The model is a miniature that ships with the workflow, trained on drawn scenes: nothing here "
    "is a claim about BLIP itself."
)


def toy_words(weights_sha256: str) -> str:
    """What a reader must know first of a model with this digest; "" where it is no miniature."""
    shipped = MINIATURE.is_file() and sha256_of([MINIATURE]) == weights_sha256
    return WORDS if shipped else ""
