"""What an experiment is, in words that follow from its receiver, donor and sites."""

from __future__ import annotations

from blip_tracing.telling.places import (
    all_states_words,
    is_drawn_by_head,
    mean_words,
    rows_words,
    suffices_words,
    thing_words,
    window_words,
)
from blip_tracing.telling.words import CORRUPTED_RUN, NOTHING_RESTORED, level_words
from blip_tracing.vocabulary.corruptions import KINDS, Kind
from blip_tracing.vocabulary.experiment import EACH, Experiment, Run
from blip_tracing.vocabulary.metrics import Metric
from blip_tracing.vocabulary.sites import ENCODER, VISION, towers_of
from blip_tracing.vocabulary.views import is_drawn_over_picture, side_by_side

SOURCES = (
    "This report follows A. Arora's pyvene tutorial “Intervening on Vision-Language Models”, 2023, "
    "which is in part based on V. Palit, R. Pandey, A. Arora, P. P. Liang, “Towards "
    "Vision-Language Mechanistic Interpretability: A Causal Tracing Tool for BLIP”, ICCV workshops "
    "2023. Causal tracing is by K. Meng, D. Bau, A. Andonian, Y. Belinkov, “Locating and Editing "
    "Factual Associations in GPT”, NeurIPS 2022. The corruptions differ: Meng et al. put noise on "
    "the subject's tokens alone, Palit et al. multiplied it into the states of the picture, the "
    "tutorial puts it on all tokens of the question; what was corrupted here is said under Methods."
)


def title_of(experiment: Experiment, site: str = "") -> str:
    """`Patching`, or `Patching, encoder.block_input`."""
    name = experiment.name.replace("_", " ").capitalize()
    return f"{name}, {site}" if site else name


def level_sign(*experiments: Experiment) -> str:
    """What their levels are called, `level` where that differs; `σ` where nothing is corrupted."""
    signs = {_kind(asked).sign for asked in experiments if asked.corrupted}
    return next(iter(signs), "σ") if len(signs) < 2 else "level"


def amount_words(experiment: Experiment, level: float) -> str:
    """An experiment's level: `σ = 5`; nothing where nothing is corrupted."""
    return level_words(level, level_sign(experiment))


def _kind(experiment: Experiment) -> Kind:
    """The kind of its corruption."""
    assert experiment.corrupted is not None
    assert experiment.corrupted.corruption is not None
    return KINDS[experiment.corrupted.corruption.kind]


def run_words(run: Run) -> str:
    """`the base question's run`, with what corrupts it."""
    words = f"the {run.question} question's run"
    if run.corruption is None:
        return words
    return f"{words} with {run.corruption.words} ({run.name})"


def followed_words(experiment: Experiment) -> str:
    """`source answer`: whose probability is followed."""
    return f"{experiment.followed} answer"


def put_words(experiment: Experiment, site: str) -> str:
    """What a cell is: `one encoder.block_input of the source question's run put in`."""
    comma = "" if experiment.positions == EACH else ","
    return f"{thing_words(experiment, site)}{comma} of {run_words(experiment.donor)} put in"


def restored_words(experiment: Experiment, site: str) -> str:
    """A cell in a legend: `one encoder.block_input restored`."""
    done = "restored" if experiment.receiver.corruption else "put in"
    return f"{thing_words(experiment, site)} {done}"


def corrupted_words(experiment: Experiment) -> str:
    """The corrupted run alone, in a legend beside what `restored_words` says."""
    return NOTHING_RESTORED if experiment.receiver.corruption else CORRUPTED_RUN


def moves_words(experiment: Experiment, metric: Metric) -> str:
    """What a large effect does to a metric of the answer that is followed: `raises p(red)`."""
    moves = "raises" if metric.rises(experiment) > 0 else "lowers"
    return f"{moves} {metric.words.format(followed_words(experiment))}"


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
        f"{title_of(experiment)}: {run_words(experiment.receiver)} is repeated over and over; each "
        f"time {all_states_words(experiment, experiment.sites)} is replaced by what "
        f"{run_words(experiment.donor)} has there, {_picture_words(experiment)}."
        f"{_window_sentence(experiment)}"
    )
    answer = followed_words(experiment)
    if experiment.receiver.corruption:
        return (
            f"{done} The more probable the {answer} becomes than with the {_kind(experiment).noun} "
            f"alone (the floor), the further {suffices_words(experiment)} to bring it back, all "
            f"else being as {_kind(experiment).noun} leaves it: this is sufficiency, and says "
            "nothing of what is necessary."
        )
    if experiment.donor.corruption:
        return (
            f"{done} Where the {answer} becomes less probable than in "
            f"{run_words(experiment.receiver)}, {_kind(experiment).noun} at that one place goes so "
            "far to take the answer away, all other states being clean."
        )
    return (
        f"{done} The more probable the {answer} becomes, the further {suffices_words(experiment)} "
        "to turn the answer: this is sufficiency, and says nothing of what is necessary."
    )


def reference_of(experiment: Experiment) -> str:
    """What an effect is a change from."""
    if experiment.receiver.corruption:
        same = "as much noise" if experiment.fresh else f"the same {_kind(experiment).noun}"
        return f"Compared with {same} and nothing put in (the floor)."
    return f"Compared with {run_words(experiment.receiver)}, nothing put in."


def _picture_words(experiment: Experiment) -> str:
    """Which picture the donor sees."""
    if experiment.receiver.question == experiment.donor.question:
        return "on the same picture"
    if VISION in towers_of(experiment.sites):
        return "on the source picture"
    return "on the same picture or, where the sheet names one, on the source picture"


def _window_sentence(experiment: Experiment) -> str:
    if experiment.window == 1:
        return ""
    return (
        f" A cell at layer ℓ puts in {window_words(experiment)} together, as far as there are so "
        "many, each layer's states being the donor's own at that layer."
    )


def layers_and_sites(experiment: Experiment) -> str:
    """How layers count, and what the published figures' layer is where such a site is asked."""
    words = "Layers count from 0 in each tower."
    stream = {"encoder.block_input", "encoder.block_output"}
    if not stream & set(experiment.sites):
        return words
    return (
        f"{words} `encoder.block_input[ℓ]` is what the published figures call layer ℓ: the "
        "tutorial asked for the block's output, but the pyvene of its day read and wrote the "
        "block's input. `encoder.block_output` is the corrected reading, and `block_input[ℓ+1]` "
        "equals `block_output[ℓ]`."
    )


def how_to_read(experiment: Experiment) -> str:
    """How the experiment's figures are read."""
    sentences = [_kind_words(experiment, site) for site in experiment.sites]
    mapped = [site for site in experiment.sites if not is_drawn_over_picture(experiment, site)]
    answer = followed_words(experiment)
    if mapped and experiment.corrupted:
        sentences.append(
            f"Darker is a more probable {answer}; compare tiles with the floor (the run alone), "
            "not with 0. The title of each map gives the mean over its tiles."
            f"{_draw_words(experiment)}"
        )
    elif mapped:
        arrow = (
            " An arrow, as in “animal ← shirt”, shows a position where the donor brings another "
            "token."
        )
        named = experiment.positions == EACH and any(
            ENCODER in towers_of([site]) and not is_drawn_by_head(site) for site in mapped
        )
        sentences.append(
            f"Left: probability of the {answer}; right: of the other answer."
            f"{arrow if named else ''}"
        )
    if len(mapped) < len(experiment.sites) or side_by_side(experiment):
        sentences.append(
            "Figures that are drawn over the picture, or have several sites in a row, are of "
            f"changes in the probability of the {answer}: purple for more than in the receiver's "
            "own run, orange for less, no colour for none."
        )
    return " ".join(dict.fromkeys(sentences))


def _draw_words(experiment: Experiment) -> str:
    """Which tiles share a draw."""
    if not _kind(experiment).drawn:
        return ""
    if experiment.fresh:
        return (
            " Every tile has draws of the noise of its own, so differences between tiles are in "
            "part differences between draws."
        )
    return (
        " Every draw of the noise is used for all layers, positions and σ alike (scaled by σ), so "
        "differences between tiles are not differences between draws."
    )


def _kind_words(experiment: Experiment, site: str) -> str:
    """What a tile at a site is."""
    if is_drawn_over_picture(experiment, site):
        return (
            "Over the picture, one panel is one layer and one square one region, whose states at "
            "that layer are put in; [CLS], which is no region, stands below the panel."
        )
    if is_drawn_by_head(site):
        over = mean_words(experiment, site)
        word = (
            ", and beside it, where the questions differ, the same at those tokens"
            if over and ENCODER in towers_of([site]) and experiment.positions == EACH
            else ""
        )
        return f"One tile is one head: layer across, head down{f', {over}' if over else ''}{word}."
    if experiment.positions == EACH and ENCODER in towers_of([site]):
        return "One tile is one place: layer across, token position down."
    return f"One tile is one place: layer across, {rows_words(experiment, site)} down."
