"""The noise of a draw: pinned, so that a torch that draws otherwise is found out."""

import hashlib

import pytest

from blip_tracing.engine.draws import draw_noise


def test_the_noise_is_what_it_was() -> None:
    """Results are compared across machines and years by it. A failure here is another generator in
    torch: results from before cannot be repeated with it, and belong to the pinned release.

    Signs, since the last digit is the processor's.
    """
    noise = draw_noise(0, "cat", 0, 9, 768)
    assert noise.shape == (9, 768)
    signs = bytes((noise > 0).flatten().tolist())
    assert hashlib.sha256(signs).hexdigest() == (
        "f1a1db225a14db31375d8aa8d0ca54b3efb4b296aeace0f2f3ddeb0b6da212df"
    )
    values = [*noise[0, :3].tolist(), noise[-1, -1].item()]
    assert values == pytest.approx([-0.0163011, -1.2591003, 0.8816284, 1.3338400], abs=1e-5)


@pytest.mark.parametrize("other", [(1, "cat", 0), (0, "dog", 0), (0, "cat", 1)])
def test_each_key_has_noise_of_its_own(other: tuple[int, str, int]) -> None:
    pinned, drawn = draw_noise(0, "cat", 0, 9, 768), draw_noise(*other, 9, 768)
    correlation = float((pinned * drawn).mean())
    assert abs(correlation) < 5 / (9 * 768) ** 0.5
