"""Small random BLIP checkpoints, saved in Hugging Face's layout."""

from pathlib import Path

import torch
from transformers import (
    BertTokenizerFast,
    BlipConfig,
    BlipForQuestionAnswering,
    BlipTextConfig,
    BlipVisionConfig,
)
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [
    "what",
    "is",
    "the",
    "color",
    "of",
    "animal",
    "shirt",
    "red",
    "brown",
    "blue",
    "green",
    "who",
    "where",
    "a",
    "in",
    "front",
]
STARTS = ["[DEC]", "[ENC]"]


def small_vocabulary() -> list[str]:
    """Special tokens, a few words, and BLIP's two own tokens at the end."""
    return [*SPECIAL, *WORDS, *STARTS]


def random_blip(
    vocabulary: int,
    hidden: int = 48,
    image_text_hidden: int = 16,
    layers: int = 3,
    heads: int = 4,
    intermediate: int = 80,
    positions: int = 32,
    image_size: int = 24,
    patch_size: int = 8,
    initializer_range: float = 0.3,
    seed: int = 0,
    **vision: int,
) -> BlipForQuestionAnswering:
    """A BLIP with random weights, large enough to make interventions matter.

    vision: settings of the vision tower that are to differ from those of the text towers (its
    width cannot: one configuration is for the encoder, which reads pictures, and the decoder).
    """
    shared = {
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "initializer_range": initializer_range,
    }
    text = BlipTextConfig(
        **shared,
        vocab_size=vocabulary,
        encoder_hidden_size=hidden,
        max_position_embeddings=positions,
        bos_token_id=vocabulary - 2,
        sep_token_id=SPECIAL.index("[SEP]"),
        pad_token_id=SPECIAL.index("[PAD]"),
    )
    seen = BlipVisionConfig(**shared | vision, image_size=image_size, patch_size=patch_size)
    config = BlipConfig(
        text_config=text.to_dict(),
        vision_config=seen.to_dict(),
        image_text_hidden_size=image_text_hidden,
    )
    torch.manual_seed(seed)
    model = BlipForQuestionAnswering(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):  # zero from the start, which would hide a forgotten bias
            torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


def sharpen(
    blip: BlipForQuestionAnswering, outputs: float = 0.1, reading: float = 2, head: float = 3
) -> BlipForQuestionAnswering:
    """Make what a deep random BLIP answers depend on its question's words; in place.

    In twelve random blocks of post-layer-norm all positions' states become one, whatever they
    were. Small output projections (times `outputs`) leave a position what it was given; a
    cross-attention of the decoder that looks sharper and writes more (times `reading`) and a larger
    head turn that into other answers.
    """
    encoder, decoder = blip.text_encoder.encoder.layer, blip.text_decoder.bert.encoder.layer
    scales = [(blip.text_decoder.cls.predictions.decoder, head)]
    for layer in encoder:
        scales.append((layer.crossattention.output.dense, outputs))
    for layer in decoder:
        scales.append((layer.crossattention.output.dense, reading))
        scales.append((layer.crossattention.self.query, reading))
    for layer in (*encoder, *decoder):
        scales.append((layer.attention.output.dense, outputs))
        scales.append((layer.output.dense, outputs))
    with torch.no_grad():
        for linear, scale in scales:
            linear.weight.mul_(scale)
    return blip


def save_checkpoint(
    directory: Path, model: BlipForQuestionAnswering, vocabulary: list[str]
) -> Path:
    """Save model, tokenizer and picture processor as the Hub holds them."""
    model.save_pretrained(directory)
    size = model.config.vision_config.image_size
    BlipImageProcessorPil(size={"height": size, "width": size}).save_pretrained(directory)
    BertTokenizerFast(
        vocab={token: token_id for token_id, token in enumerate(vocabulary)}
    ).save_pretrained(directory)
    return directory
