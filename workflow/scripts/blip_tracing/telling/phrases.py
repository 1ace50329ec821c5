"""What an experiment is, in words that follow from its receiver, donor and sites."""

from __future__ import annotations

from blip_tracing.telling.words import CORRUPTED_RUN, NOTHING_RESTORED
from blip_tracing.vocabulary.corruptions import KINDS
from blip_tracing.vocabulary.experiment import Experiment, Run

LAYERS_AND_SITES = (
    "`encoder.block_input[ℓ]` is what the published figures call layer ℓ: the tutorial asked for "
    "the block's output, but the pyvene of its day read and wrote the block's input. "
    "`encoder.block_output` is the corrected reading, and `block_input[ℓ+1]` equals "
    "`block_output[ℓ]`."
)

SOURCES = (
    "This report follows A. Arora's pyvene tutorial “Intervening on Vision-Language Models”, 2023, "
    "which is in part based on V. Palit, R. Pandey, A. Arora, P. P. Liang, “Towards "
    "Vision-Language Mechanistic Interpretability: A Causal Tracing Tool for BLIP”, ICCV workshops "
    "2023. Causal tracing is by K. Meng, D. Bau, A. Andonian, Y. Belinkov, “Locating and Editing "
    "Factual Associations in GPT”, NeurIPS 2022. The corruptions differ: Meng et al. put noise on "
    "the subject's tokens alone, Palit et al. on the states of the picture, the tutorial and this "
    "report on all tokens of the question; the picture is never corrupted here."
)


def title_of(experiment: Experiment, site: str = "") -> str:
    """`Patching`, or `Patching, encoder.block_input`."""
    name = experiment.name.replace("_", " ").capitalize()
    return f"{name}, {site}" if site else name


def run_words(run: Run) -> str:
    """`the base question's run`, with what corrupts it."""
    words = f"the {run.question} question's run"
    if run.corruption is None:
        return words
    return f"{words} with {KINDS[run.corruption.kind].words} ({run.name})"


def followed_words(experiment: Experiment) -> str:
    """`source answer`: whose probability is followed."""
    return f"{experiment.followed} answer"


def put_words(experiment: Experiment, site: str) -> str:
    """What a cell is: `one encoder.block_input of the source question's run put in`."""
    return f"one {site} of {run_words(experiment.donor)} put in"


def restored_words(experiment: Experiment, site: str) -> str:
    """A cell in a legend: `one encoder.block_input restored`."""
    done = "restored" if experiment.receiver.corruption else "put in"
    return f"one {site} {done}"


def corrupted_words(experiment: Experiment) -> str:
    """The corrupted run alone, in a legend beside what `restored_words` says."""
    return NOTHING_RESTORED if experiment.receiver.corruption else CORRUPTED_RUN


def moves_words(experiment: Experiment) -> str:
    """What a large effect does to the answer that is followed."""
    return "raises" if experiment.direction > 0 else "lowers"


def turns_words(experiment: Experiment) -> str:
    """What an intervention does that covers at least half of the total effect."""
    if experiment.direction < 0:
        return "takes the answer away"
    return "brings the answer back" if experiment.receiver.corruption else "turns the answer"


def acted_words(experiment: Experiment) -> str:
    """What is done to a state, as a finding begins."""
    return "restoring" if experiment.receiver.corruption else "replacing"


def method_of(experiment: Experiment) -> str:
    """What is done, and what a large effect says."""
    done = (
        f"{title_of(experiment)}: {run_words(experiment.receiver)} is repeated for every layer and "
        f"token; each time the state at that one place is replaced by the one of "
        f"{run_words(experiment.donor)} on the same picture."
    )
    answer = followed_words(experiment)
    if experiment.receiver.corruption:
        return (
            f"{done} The more probable the {answer} becomes than with the noise alone (the floor), "
            "the further that one state suffices to bring it back, given the clean picture and "
            "noise at all other tokens: this is sufficiency, and says nothing of what is necessary."
        )
    if experiment.donor.corruption:
        return (
            f"{done} Where the {answer} becomes less probable than in "
            f"{run_words(experiment.receiver)}, noise at that one place goes so far to take the "
            "answer away, all other states being clean."
        )
    return (
        f"{done} The more probable the {answer} becomes, the further that one state suffices to "
        "turn the answer: this is sufficiency, and says nothing of what is necessary."
    )


def reference_of(experiment: Experiment) -> str:
    """What an effect is a change from."""
    if experiment.receiver.corruption:
        return "Compared with the same noise and nothing put in (the floor)."
    return f"Compared with {run_words(experiment.receiver)}, nothing put in."


def how_to_read(experiment: Experiment) -> str:
    """How the experiment's figures are read."""
    tile = "One tile is one place: layer across, token position down."
    if experiment.corrupted:
        return (
            f"{tile} Darker is a more probable {followed_words(experiment)}; compare tiles with "
            "the floor (the run alone), not with 0. The title of each map gives the mean over its "
            "tiles. "
            "Every draw of the noise is used for all layers, positions and σ alike (scaled by σ), "
            "so differences between tiles are not differences between draws."
        )
    return (
        f"Left: probability of the {followed_words(experiment)}; right: of the other answer. "
        f"{tile} An arrow, as in “animal ← shirt”, shows a position where the donor brings another "
        "token."
    )
