"""The null: unrelated examples, which they are, and which of their states go where."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import pandas as pd
import pytest
import torch
from answer_questions import CleanOutput, answer_shard
from checkpoints import random_blip, save_checkpoint, small_vocabulary
from intervene import Asked, CellsOutput, intervene_shard, null_of, role_orders
from oracle_corruptions import by_hand, corrupted
from run_corrupted import corrupt_shard
from transformers import BlipForQuestionAnswering

from blip_tracing.engine.clean_runs import CleanFiles
from blip_tracing.engine.donors import Candidate, choose_donors, match_positions
from blip_tracing.engine.draws import draw_noise
from blip_tracing.errors import InputError
from blip_tracing.given.checkpoint import Checkpoint
from blip_tracing.given.plan import CLEAN_FILES, NULL_BLOCK, Plan, donor_pools
from blip_tracing.given.settings import fill_config
from blip_tracing.machinery.tables import read_table, write_table
from blip_tracing.machinery.tensors import write_tensors
from blip_tracing.meaning.effects import measure_cells
from blip_tracing.meaning.roles import roles_of
from blip_tracing.models.blip_vqa import ResumableBlip
from blip_tracing.models.loaded import Loaded
from blip_tracing.models.plain import PlainBlip
from blip_tracing.vocabulary.corruptions import Corruption
from blip_tracing.vocabulary.experiment import BASE, PICTURE_ONLY, SOURCE, Experiment, Run
from blip_tracing.vocabulary.sites import SITES
from blip_tracing.vocabulary.tables import UNRELATED

# ---- the pool: what is known before a model runs -----------------------------------------------


def row_of(example: str, image: str, base: str, source: str) -> dict[str, str]:
    empty = {"base_answer": "", "source_answer": "", "image_sha256": ""}
    return {"example": example, "image": image, "base_question": base, "source_question": source,
            **empty}  # fmt: skip


@cache
def words(question: str) -> list[str]:
    return re.sub(r"[^\w\s]", " ", question).lower().split()


def pictures_seen(row: dict[str, str]) -> set[str]:
    return {row["image"], row.get("source_image") or row["image"]}


def passes(row: dict[str, str], other: dict[str, str], *unlike: str) -> bool:
    return not pictures_seen(row) & pictures_seen(other) and all(
        words(row[question]) != words(other["base_question"]) for question in unlike
    )


def expected_pool(rows: list[dict[str, str]], number: int) -> tuple[list[str], str]:
    """By the rules, one after the other: the names, and the question that may be asked."""
    blocks = [rows[start : start + NULL_BLOCK] for start in range(0, len(rows), NULL_BLOCK)]
    own = number // NULL_BLOCK
    nearest = [blocks[own], *reversed(blocks[:own]), *blocks[own + 1 :]]
    for unlike, relaxed in (
        (("base_question", "source_question"), ""),
        (("source_question",), BASE),
        ((), SOURCE),
    ):
        for block in nearest:
            pool = [other["example"] for other in block if passes(rows[number], other, *unlike)]
            if pool:
                return pool, relaxed
    return [], ""


def random_sheet(
    seed: int, count: int, pictures: int, questions: int, own: float = 0
) -> list[dict[str, str]]:
    """Rows in runs of one picture, as a sheet has them that asks several questions of each.

    own: the share of those whose source run has a picture of its own.
    """
    random = np.random.default_rng(seed)
    written = ("what is {}", "What is {}?", "WHAT is, {}")
    rows, image = [], 0
    for number in range(count):
        if random.random() < 0.2:
            image = int(random.integers(pictures))
        asked = [written[random.integers(3)].format(random.integers(questions)) for _ in range(2)]
        rows.append(row_of(f"e{number}", f"p{image}", *asked))
        if random.random() < own:
            rows[-1]["source_image"] = f"p{random.integers(pictures)}"
    return rows


@pytest.mark.parametrize("pictures", [1, 2, 9])
@pytest.mark.parametrize("questions", [1, 2, 3, 9])
@pytest.mark.parametrize("own", [0, 0.5])
def test_a_pool_is_the_rows_that_pass_the_rules(pictures: int, questions: int, own: float) -> None:
    relaxed = set()
    for seed in range(5):
        rows = random_sheet(seed, 53, pictures, questions, own)
        pools = donor_pools(rows)
        for number, row in enumerate(rows):
            names, what = expected_pool(rows, number)
            pool = pools.get(row["example"])
            assert ([other["example"] for other in pool.rows] if pool else []) == names
            assert (pool.relaxed if pool else "") == what
            relaxed.add(what)
    if questions == 1 and pictures > 1:
        assert relaxed - {""}


def test_one_picture_has_no_null_whatever_is_asked() -> None:
    assert donor_pools(random_sheet(0, 40, 1, 9)) == {}


def test_capitals_and_punctuation_do_not_make_another_question() -> None:
    rows = [
        row_of("a", "1", "what is red", "what is blue"),
        row_of("b", "2", "What is red?", "who"),
        row_of("c", "3", "what is  BLUE", "who"),
        row_of("d", "4", "what is green", "who"),
    ]
    assert [row["example"] for row in donor_pools(rows)["a"].rows] == ["d"]


def test_rows_that_are_added_leave_the_pools_of_full_blocks_alone() -> None:
    """Those before them, save a block that has to look behind itself."""
    rows = random_sheet(1, 60, 9, 9)
    before, after = donor_pools(rows[: 2 * NULL_BLOCK]), donor_pools(rows)
    assert len(before) == 2 * NULL_BLOCK
    assert {name: after[name] for name in before} == before


def config_of(**given: Any) -> dict[str, Any]:
    return fill_config(
        {
            "model": {"name": "m", "layers": {"encoder": LAYERS, "decoder": LAYERS, "vision": 3}},
            "examples": "sheet.tsv",
            "device": "cpu",
            "runs": {"noisy": {"of": BASE, "corrupt": CORRUPT}},
            "experiments": {
                "patching": {"receiver": BASE, "donor": SOURCE, "sites": STREAM},
                "tracing": {"receiver": "noisy", "donor": BASE, "sites": STREAM},
                "noising": {"receiver": BASE, "donor": "noisy"},
            },
            "effects": {"roles": RULES},
            "report": {"draws_at": CORRUPT["levels"][0]},
            "layers_per_job": LAYERS,
            "noise_levels_per_job": 2,
            **given,
        }
    )


@pytest.mark.parametrize("size", [1, 5, 16, 64])
def test_a_pool_does_not_depend_on_the_shards_and_its_shards_are_inputs(size: int) -> None:
    rows = random_sheet(3, 53, 4, 6)
    plan = Plan(config_of(shard_size=size), rows)
    assert plan.pools == donor_pools(rows)
    for shard, of_shard in plan.shards.items():
        needed = {shard}
        for row in of_shard:
            names = {other["example"] for other in plan.pools[row["example"]].rows}
            needed |= {
                other for other, held in plan.shards.items() for r in held if r["example"] in names
            }
        for kind in ("states", "facts", "tokens", "runs"):
            files = plan.clean_files(shard, kind)
            assert set(files) == {CLEAN_FILES[kind].format(shard=other) for other in needed}
            assert files[0] == CLEAN_FILES[kind].format(shard=shard)


# ---- which of a pool ---------------------------------------------------------------------------

ROLES = ["[CLS]", "before", "before", "noun", "", "[SEP]"]


def drawn(seed: int, example: str, name: str) -> str:
    return hashlib.sha256(f"{seed}\n{example}\n{name}".encode()).hexdigest()


def candidates_of(count: int, answers: Sequence[int] = (1, 2, 3)) -> list[Candidate]:
    """Of lengths and roles that differ."""
    random = np.random.default_rng(7)
    pool = []
    for number in range(count):
        inner = [str(random.choice(["before", "noun", ""])) for _ in range(random.integers(1, 6))]
        roles = ["[CLS]", *inner, "[SEP]"]
        answer = int(random.choice(list(answers)))
        pool.append(Candidate(f"c{number}", ["word"] * len(roles), roles, answer))
    return pool


@pytest.mark.parametrize("count", [1, 4, 100])
def test_the_first_are_chosen_that_are_most_alike_and_have_another_answer(count: int) -> None:
    pool = candidates_of(40)
    chosen, others = choose_donors("cat", ROLES, {1, 2}, pool, count, seed=4)
    left = [candidate for candidate in pool if candidate.answer == 3]
    assert others
    assert len(chosen) == min(count, len(left))

    def unlike(candidate: Candidate) -> tuple[bool, int, str]:
        lacks = any(role and role not in candidate.roles for role in ROLES)
        return lacks, abs(len(candidate.roles) - len(ROLES)), drawn(4, "cat", candidate.name)

    assert chosen == sorted(left, key=unlike)[:count]


def test_the_order_of_the_pool_does_not_matter_but_seed_and_name_do() -> None:
    pool = [replace(candidate, roles=ROLES) for candidate in candidates_of(30, answers=[3])]

    def names(example: str, seed: int, given: list[Candidate]) -> list[str]:
        chosen, _ = choose_donors(example, ROLES, {1, 2}, given, 5, seed)
        return [candidate.name for candidate in chosen]

    first = names("cat", 0, pool)
    assert names("cat", 0, pool[::-1]) == first
    assert names("dog", 0, pool) != first
    assert names("cat", 1, pool) != first
    # One that is added takes a place, and leaves the order of the others.
    assert [name for name in names("cat", 0, pool[1:]) if name in first] == [
        name for name in first if name != pool[0].name
    ]


def test_where_all_have_a_followed_answer_that_rule_gives_way() -> None:
    pool = candidates_of(6, answers=[1, 2])
    chosen, others = choose_donors("cat", ROLES, {1, 2}, pool, 3, 0)
    assert len(chosen) == 3
    assert not others
    assert choose_donors("cat", ROLES, {1, 2}, [], 3, 0) == ([], False)


# ---- which of its positions --------------------------------------------------------------------


def expected_position(roles: Sequence[str], others: Sequence[str], at: int) -> tuple[int, bool]:
    """One position, by the rule."""
    same = [place for place, role in enumerate(others) if role == roles[at]]
    ordinal = sum(role == roles[at] for role in roles[:at])
    if roles[at] == "" or not same:
        share = at / (len(roles) - 1) * (len(others) - 1)
        return int(np.floor(share + 0.5)), False
    return same[min(ordinal, len(same) - 1)], ordinal < len(same)


def test_a_position_takes_the_state_of_its_role_and_place_in_it() -> None:
    others = ["[CLS]", "before", "noun", "noun", "[SEP]"]
    positions, matched = match_positions(ROLES, others)
    # The second "before" takes the last that there is, what has no role the same relative place.
    assert positions == [0, 1, 1, 2, 3, 4]
    assert matched == [True, True, False, True, False, True]


def test_without_roles_in_common_places_are_relative_and_none_matches() -> None:
    positions, matched = match_positions(["a"] * 5, ["b"] * 9)
    assert positions == [0, 2, 4, 6, 8]
    assert not any(matched)


def test_any_two_questions_are_matched_by_the_rule() -> None:
    random = np.random.default_rng(2)
    for _ in range(200):
        roles, others = (
            [str(random.choice(["a", "b", ""])) for _ in range(random.integers(2, 9))]
            for _ in range(2)
        )
        expected = [expected_position(roles, others, at) for at in range(len(roles))]
        assert match_positions(roles, others) == tuple(map(list, zip(*expected, strict=True)))


# ---- measured, against the plain loop over the unmodified model --------------------------------

LAYERS, WIDTH, STATES, DONORS = 3, 48, 10, 2
CORRUPT: dict[str, Any] = {"levels": [0.5, 4.0], "draws": 3, "seed": 3}
RULES = [
    {"role": "[CLS]", "token": r"\[CLS\]"},
    {"role": "before noun", "before": "noun"},
    {"role": "noun", "pair": "differs"},
    {"role": "[SEP]", "token": r"\[SEP\]"},
]
STREAM = [name for name, site in SITES.items() if site.kept]
# Lengths and roles differ; hen asks what cat's source question asks, cat and pig share a picture.
ROWS = [
    row_of("cat", "p0", "what is the color of the animal", "what is the color of the shirt"),
    row_of("dog", "p1", "what color is the shirt", "what color is the animal"),
    row_of("cow", "p2", "where is the red shirt", "where is the brown shirt"),
    row_of("pig", "p0", "who is in front", "who is the front"),
    row_of("hen", "p3", "What is the color of the shirt", "what is the color of the animal"),
    row_of("owl", "p4", "is the shirt red", "is the shirt blue"),
    row_of("bee", "p5", "what is in front of the animal", "what is in front of the shirt"),
    row_of("ant", "p6", "what is a animal", "what is a shirt"),
]
# A site inside a block, whose null is not kept.
INNER = "encoder.self_attention"


@pytest.fixture(scope="module")
def blip() -> BlipForQuestionAnswering:
    """In float64, where rounding hides nothing; it answers with words alone."""
    blip = random_blip(len(small_vocabulary()), hidden=WIDTH, layers=LAYERS).double()
    with torch.no_grad():
        blip.text_decoder.cls.predictions.decoder.bias[[*range(5), -2, -1]] = -100
    return blip


@pytest.fixture(scope="module")
def checkpoint(blip: BlipForQuestionAnswering, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = save_checkpoint(tmp_path_factory.mktemp("checkpoint"), blip, small_vocabulary())
    return Checkpoint("m", "main", "", str(folder), LAYERS, "", {})


@pytest.fixture(scope="module")
def images() -> dict[str, torch.Tensor]:
    """Each picture's states (S, D)."""
    generator = torch.Generator().manual_seed(5)
    states = torch.randn(7, STATES, WIDTH, generator=generator, dtype=torch.float64)
    return {f"p{number}": image for number, image in enumerate(states)}


class Jobs:
    """The jobs of a plan, done on a small model in a folder, without Snakemake."""

    def __init__(self, folder: Path, loaded: Loaded, images: dict[str, torch.Tensor], plan: Plan):
        self.folder, self.loaded, self.plan = folder, loaded, plan
        for shard, names in plan.picture_shards.items():
            states = self.path(f"results/images/{shard}.safetensors")
            write_tensors({name: images[name] for name in names}, states)
            loaded.vouch(self.path(f"results/images/{shard}.json"), [states])
        for shard, rows in plan.shards.items():
            output = {
                name: self.path(path.format(shard=shard)) for name, path in CLEAN_FILES.items()
            }
            pictures, facts = (
                self.paths(plan.picture_files(shard, end)) for end in ("safetensors", "json")
            )
            with torch.inference_mode():
                answer_shard(
                    loaded, rows, pictures, facts, plan.config["metrics"], CleanOutput(**output)
                )

    def path(self, name: str) -> str:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return str(path)

    def paths(self, names: Sequence[str]) -> list[str]:
        return [self.path(name) for name in names]

    def table(self, name: str) -> pd.DataFrame:
        paths = [self.path(CLEAN_FILES[name].format(shard=shard)) for shard in self.plan.shards]
        return pd.concat(map(read_table, paths), ignore_index=True)

    def clean(self, shard: str, experiment: str | None = None) -> CleanFiles:
        states, tokens, runs = (
            self.paths(self.plan.clean_files(shard, kind)) for kind in ("states", "tokens", "runs")
        )
        pictures, facts = (
            self.paths(self.plan.picture_files(shard, end, experiment))
            for end in ("safetensors", "json")
        )
        facts += self.paths(self.plan.clean_files(shard, "facts"))
        return CleanFiles(pictures, states, tokens, runs, facts)

    def controls(self, experiment: str) -> pd.DataFrame:
        """The nulls of all shards, in the sheet's order."""
        _, table = self.measured(experiment)
        return table[table["control"] == UNRELATED].reset_index(drop=True)

    def measured(self, experiment: str) -> list[pd.DataFrame]:
        """The cells and the controls of all shards, in the sheet's order."""
        parts = []
        for shard, rows in self.plan.shards.items():
            output = CellsOutput(
                table=self.path(f"cells-{experiment}-{shard}.parquet"),
                controls=self.path(f"known-{experiment}-{shard}.parquet"),
                facts=self.path(f"{experiment}-{shard}.json"),
            )
            described = self.plan.null_of(shard)
            asked = Asked(
                self.plan.experiments[experiment],
                list(range(LAYERS)),
                self.plan.config["controls"].get("null_draws"),
                self.plan.config["metrics"],
                "float64",
                role_orders(described),
            )
            pictures = self.plan.null_pictures(experiment, shard)
            null = null_of(described, pictures, asked.experiment)
            with torch.inference_mode():
                clean = self.clean(shard, experiment)
                intervene_shard(self.loaded, clean, rows, null, asked, output)
            parts.append([read_table(output.table), read_table(output.controls)])
        return [pd.concat(tables, ignore_index=True) for tables in zip(*parts, strict=True)]

    def corrupted(self, name: str) -> pd.DataFrame:
        parts = []
        for shard, rows in self.plan.shards.items():
            table, facts = (self.path(f"{name}-{shard}.{end}") for end in ("parquet", "json"))
            run = self.plan.corrupted[name]
            tokens, vouched = (
                self.paths(self.plan.corrupted_token_files(shard, name, kind))
                for kind in ("tokens", "facts")
            )
            with torch.inference_mode():
                clean = self.clean(shard)
                clean = replace(clean, tokens=tokens, facts=[*clean.facts, *vouched])
                corrupt_shard(
                    self.loaded, clean, rows, run, self.plan.config["metrics"], table, facts
                )
            parts.append(read_table(table))
        return pd.concat(parts, ignore_index=True)


@pytest.fixture
def jobs_of(blip: Any, checkpoint: Any, images: Any, tmp_path: Path) -> Any:
    """Makes the jobs: of a backend and of what the configuration changes."""

    def make(
        backend: Any = ResumableBlip, rows: Any = ROWS, sites: Any = None, **given: Any
    ) -> Jobs:
        config = config_of(**{"controls": {"donors": DONORS}, **given})
        for experiment in config["experiments"].values():
            experiment["sites"] = sites or experiment["sites"]
        loaded = Loaded(checkpoint, blip, backend(blip), "float64", "code")
        plan = Plan(config, rows)
        return Jobs(tmp_path / str(len(list(tmp_path.iterdir()))), loaded, images, plan)

    return make


class Truth:
    """Examples as the unmodified model sees them."""

    def __init__(self, blip: Any, jobs: Jobs, images: dict[str, torch.Tensor]) -> None:
        self.blip, tokens = blip, jobs.table("tokens")
        self.rows = {row["example"]: row for row in jobs.plan.rows}
        groups = tokens.groupby(["example", "question"])
        self.ids, self.tokens = groups["token_id"].agg(list), groups["token"].agg(list)
        self.image = {name: images[row["image"]][None] for name, row in self.rows.items()}
        self.logits = {
            (name, question): oracle.answer_logits(blip, self.ids[name, question], image)
            for name, image in self.image.items()
            for question in (BASE, SOURCE)
        }
        self.answers = {key: int(logits.argmax()) for key, logits in self.logits.items()}

    def roles(self, name: str) -> list[str]:
        base, source = self.tokens[name, BASE], self.tokens[name, SOURCE]
        differing = [at for at, token in enumerate(base) if token != source[at]]
        roles = ["[CLS]"]
        for at in range(1, len(base) - 1):
            role = "before noun" if at < differing[0] else ""
            roles.append("noun" if at in differing else role)
        return [*roles, "[SEP]"]

    def donors(self, name: str, count: int) -> list[str]:
        followed = {self.answers[name, question] for question in (BASE, SOURCE)}
        row = self.rows[name]
        asked = ("base_question", "source_question")
        pool = [other for other in self.rows if passes(row, self.rows[other], *asked)]
        left = [other for other in pool if self.answers[other, BASE] not in followed]

        def unlike(other: str) -> tuple[bool, int, str]:
            lacks = not set(self.roles(name)) - {""} <= set(self.roles(other))
            distance = abs(len(self.roles(other)) - len(self.roles(name)))
            return lacks, distance, drawn(0, name, other)

        return sorted(left, key=unlike)[:count]

    def null(self, row: Any, donor: str, noise: torch.Tensor) -> torch.Tensor:
        """Logits with the donor's state put in, at the row's place."""
        layer, position = int(row.layer), int(row.position)
        other, matched = expected_position(self.roles(row.example), self.roles(donor), position)
        assert row.donor == donor
        assert row.donor_token == self.tokens[donor, BASE][other]
        assert row.donor_role == self.roles(donor)[other]
        assert bool(row.matched) == matched
        states = oracle.site_states(
            self.blip, self.ids[donor, BASE], self.image[donor], row.site, layer
        )
        return oracle.restored_logits(
            self.blip, self.ids[row.example, BASE], self.image[row.example], noise, row.site,
            layer, position, states[other],
        )  # fmt: skip

    def check(self, row: Any, logits: torch.Tensor) -> None:
        for question in (BASE, SOURCE):
            answer = self.answers[row.example, question]
            found = getattr(row, f"p_{question}"), getattr(row, f"logit_{question}")
            assert abs(found[0] - logits.softmax(-1)[answer]) < 1e-6
            assert abs(found[1] - logits[answer]) < 1e-4


def noise_of(row: Any, length: int) -> torch.Tensor:
    if np.isnan(row.noise_level):
        return torch.zeros(length, WIDTH)
    drawn = draw_noise(CORRUPT["seed"], row.example, int(row.draw), length, WIDTH)
    return float(row.noise_level) * drawn.double()


@pytest.mark.parametrize("backend", [ResumableBlip, PlainBlip])
@pytest.mark.parametrize("where", ["between blocks", "inside a block"])
def test_every_null_is_the_plain_loops(
    blip: Any, images: Any, jobs_of: Any, backend: Any, where: str
) -> None:
    """Donors run on their own pictures at their own lengths, then their states are placed."""
    sites = [INNER] if where == "inside a block" else None
    jobs = jobs_of(backend, sites=sites)
    truth = Truth(blip, jobs, images)
    chosen = {name: truth.donors(name, DONORS) for name in truth.rows}
    assert max(map(len, chosen.values())) == DONORS
    lengths = {len(truth.ids[name, BASE]) for name in truth.rows}
    assert len(lengths) > 2
    for name in ("patching", "tracing"):
        nulls = jobs.controls(name)
        experiment = jobs.plan.experiments[name]
        for example, rows in nulls.groupby("example"):
            donors, length = chosen[example], len(truth.ids[example, BASE])
            cells = len(experiment.sites) * LAYERS * length
            if name == "patching":
                assert len(rows) == len(donors) * cells
                assert set(rows["donor_number"]) == set(range(len(donors)))
                assert rows["draw"].isna().all()
            else:
                assert len(rows) == len(CORRUPT["levels"]) * CORRUPT["draws"] * cells
                assert (rows["donor_number"] == rows["draw"] % len(donors)).all()
            # Every fourth, each of which is a pass of the model.
            for row in rows.iloc[::4].itertuples():
                noise = noise_of(row, length)
                truth.check(row, truth.null(row, donors[int(row.donor_number)], noise))
        with_donors = {example for example, donors in chosen.items() if donors}
        assert set(nulls["example"]) == with_donors


def test_of_a_clean_receiver_the_null_of_a_noised_donor_is_drawn_too(
    blip: Any, images: Any, jobs_of: Any
) -> None:
    jobs = jobs_of()
    truth = Truth(blip, jobs, images)
    rows = jobs.controls("noising")
    for row in rows.iloc[::7].itertuples():
        donors = truth.donors(row.example, DONORS)
        assert row.donor_number == row.draw % len(donors)
        truth.check(row, truth.null(row, donors[int(row.donor_number)], torch.zeros(1)))


def test_positions_are_those_of_the_question_that_receives(
    blip: Any, images: Any, jobs_of: Any
) -> None:
    """Here the source question, which nothing asks to be as long as the base question."""
    rows = [
        row_of("cat", "p0", "what is red", "what is the color of the shirt"),
        row_of("dog", "p1", "where is the shirt", "who is in front of the animal"),
    ]
    runs = {"noisy": {"of": SOURCE, "corrupt": CORRUPT}}
    ends = {"restoring": {"receiver": "noisy", "donor": SOURCE, "sites": STREAM[:1]}}
    jobs = jobs_of(rows=rows, runs=runs, experiments=ends)
    truth = Truth(blip, jobs, images)
    nulls = jobs.controls("restoring")
    for row in nulls.iloc[::5].itertuples():
        ids, tokens = truth.ids[row.example, SOURCE], truth.tokens
        roles = roles_of(tokens[row.example, SOURCE], tokens[row.example, BASE], RULES)
        assert len(nulls[nulls["example"] == row.example]) == 6 * LAYERS * len(ids)
        others = roles_of(tokens[row.donor, BASE], tokens[row.donor, SOURCE], RULES)
        at, _ = expected_position(roles, others, int(row.position))
        donor = truth.ids[row.donor, BASE], truth.image[row.donor]
        states = oracle.site_states(blip, *donor, row.site, int(row.layer))
        logits = oracle.restored_logits(
            blip, ids, truth.image[row.example], noise_of(row, len(ids)), row.site,
            int(row.layer), int(row.position), states[at],
        )  # fmt: skip
        truth.check(row, logits)


def test_nulls_do_not_depend_on_the_shards(jobs_of: Any) -> None:
    scores = ["p_base", "p_source", "logit_base", "logit_source"]
    for name in ("patching", "tracing"):
        whole, *others = (jobs_of(shard_size=size).controls(name) for size in (16, 3, 1))
        for table in others:
            pd.testing.assert_frame_equal(table.drop(columns=scores), whole.drop(columns=scores))
            np.testing.assert_allclose(table[scores], whole[scores], rtol=0, atol=1e-5)


def test_the_null_is_at_as_many_draws_as_are_asked_for(jobs_of: Any) -> None:
    for draws, expected in ((None, {0, 1, 2}), (1, {0}), (2, {0, 1})):
        rows = jobs_of(controls={"donors": DONORS, "null_draws": draws}).controls("tracing")
        assert set(rows["draw"]) == expected


def test_cells_are_the_same_to_the_bit_whatever_the_null(jobs_of: Any) -> None:
    """They are run apart from it."""
    tables = []
    for controls in ({"donors": 1, "null_draws": 1}, {"donors": 5}):
        jobs = jobs_of(controls=controls)
        for name in ("patching", "tracing"):
            jobs.controls(name)
            tables.append(read_table(jobs.path(f"cells-{name}-0000.parquet")))
    pd.testing.assert_frame_equal(tables[0], tables[2])
    pd.testing.assert_frame_equal(tables[1], tables[3])


ASKED = ROWS[0]["base_question"], ROWS[0]["source_question"]


@pytest.mark.parametrize(("asked", "said"), [(0, "asks its base"), (1, "asks its source")])
def test_where_a_rule_gives_way_nothing_is_matched_and_the_log_says_so(
    asked: int, said: str, jobs_of: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The only other row asks about another picture what the first asks."""
    other = row_of("dog", "p1", ASKED[asked], ASKED[1 - asked])
    nulls = jobs_of(rows=[ROWS[0], other]).controls("tracing")
    of_cat = nulls[nulls["example"] == "cat"]
    assert set(of_cat["donor"]) == {"dog"}
    assert not of_cat["matched"].any()
    assert any("'cat'" in line and said in line for line in caplog.messages)


def test_of_nothing_but_followed_answers_the_null_is_none_the_less(
    jobs_of: Any, caplog: pytest.LogCaptureFixture, blip: Any, images: Any
) -> None:
    """Of a donor whose answer the sheet makes the example follow."""
    answer = Truth(blip, jobs_of(), images).answers["cow", BASE]
    followed = {**ROWS[0], "base_answer": small_vocabulary()[answer]}
    nulls = jobs_of(rows=[followed, ROWS[2]]).controls("tracing")
    of_cat = nulls[nulls["example"] == "cat"]
    assert set(of_cat["donor"]) == {"cow"}
    assert not of_cat["matched"].any()
    assert any("'cat'" in line and "followed answers" in line for line in caplog.messages)


def test_a_donors_answer_is_the_models_own_whatever_the_sheet_says(
    blip: Any, images: Any, jobs_of: Any
) -> None:
    """What its states carry, not what the sheet follows."""
    truth = Truth(blip, jobs_of(), images)
    first = truth.donors("cat", DONORS)
    words = small_vocabulary()
    rows = [
        {**row, "base_answer": words[truth.answers["cat", BASE]]}
        if row["example"] in first else row for row in ROWS
    ]  # fmt: skip
    nulls = jobs_of(rows=rows).controls("patching")
    assert set(nulls.loc[nulls["example"] == "cat", "donor"]) == set(first)


# ---- cells of more than a token ----------------------------------------------------------------

HEADS_SITE, CHOSEN = "encoder.cross_attention_heads", [1, 3]


def asked_of(sites: Sequence[str], **given: Any) -> dict[str, Any]:
    return {"patching": {"receiver": BASE, "donor": SOURCE, "sites": list(sites), **given}}


def test_the_tokens_of_a_role_are_one_cell_of_each_head(
    blip: Any, images: Any, jobs_of: Any
) -> None:
    """Of roles that the question has; a token of none is in no cell."""
    sites = [HEADS_SITE, "encoder.block_output"]
    experiments = asked_of(sites, positions="roles", heads=CHOSEN)
    jobs = jobs_of(experiments=experiments, rows=ROWS[:5])
    truth, names = Truth(blip, jobs, images), [rule["role"] for rule in RULES]
    cells, controls = jobs.measured("patching")
    nulls = controls[controls["control"] == UNRELATED]
    for (example, site), rows in cells.groupby(["example", "site"]):
        roles = truth.roles(example)
        there = [number for number, name in enumerate(names) if name in roles]
        heads: list[Any] = CHOSEN if site == HEADS_SITE else [None]
        known = [(layer, head, at) for layer in range(LAYERS) for head in heads for at in there]
        found = [
            (row.layer, None if pd.isna(row.head) else row.head, row.position)
            for row in rows.itertuples()
        ]
        assert found == known
        null = nulls[(nulls["example"] == example) & (nulls["site"] == site)]
        donors = truth.donors(example, DONORS)
        assert len(null) == len(donors) * len(known)
        for row in [*rows.itertuples(), *null.iloc[::5].itertuples()]:
            positions = [at for at, role in enumerate(roles) if role == names[row.position]]
            asker, question = example, SOURCE
            taken = list(range(len(roles)))
            if "donor" in row._fields:
                asker, question = row.donor, BASE
                assert row.donor == donors[row.donor_number]
                stand = [expected_position(roles, truth.roles(asker), at) for at in taken]
                taken = [at for at, _ in stand]
                words = truth.tokens[asker, BASE]
                assert row.donor_token == " ".join(words[taken[at]] for at in positions)
                assert row.donor_role == names[row.position]
                assert row.matched == all(stand[at][1] for at in positions)
            else:
                for column, run in (("token", BASE), ("source_token", SOURCE)):
                    words = truth.tokens[example, run]
                    assert getattr(row, column) == " ".join(words[at] for at in positions)
            states = oracle.site_states(
                blip, truth.ids[asker, question], truth.image[asker], site, row.layer
            )
            head = None if pd.isna(row.head) else int(row.head)
            put = oracle.Put(site, row.layer, positions, states[taken], head)
            logits, _ = oracle.outcome(
                blip, truth.ids[example, BASE], truth.image[example], [[0]], [put]
            )
            truth.check(row, logits)


def test_all_positions_are_one_cell_and_the_decoder_has_its_own(
    blip: Any, images: Any, jobs_of: Any
) -> None:
    sites = ["encoder.block_output", "decoder.block_output"]
    jobs = jobs_of(experiments=asked_of(sites, positions="all"), rows=ROWS[:3])
    truth = Truth(blip, jobs, images)
    cells, controls = jobs.measured("patching")
    assert "head" not in cells
    assert "head" not in controls
    assert (cells["position"] == 0).all()
    for (example, site), rows in cells.groupby(["example", "site"]):
        assert rows["layer"].tolist() == list(range(LAYERS))
        question = " ".join(truth.tokens[example, BASE])
        token = question if site == sites[0] else "[DEC]"
        assert set(rows["token"]) == {token}
        if site == sites[1]:
            assert rows["source_token"].isna().all()
        # Behind the last block all that is left is what the donor answers.
        truth.check(rows.iloc[-1], truth.logits[example, SOURCE])
    known = controls[controls["control"] != UNRELATED].groupby(["site", "control"]).size()
    assert known[sites[0], "ceiling"] == known[sites[0], "no_op"] == 3 * LAYERS
    assert known[sites[1], "ceiling"] == 3
    nulls = controls[(controls["control"] == UNRELATED) & (controls["site"] == sites[1])]
    assert (nulls["donor_token"] == "[DEC]").all()
    # All that cow could take answers as it does.
    matched = {"cat": True, "dog": True, "cow": False}
    assert nulls.groupby("example")["matched"].unique().map(list).to_dict() == {
        name: [same] for name, same in matched.items()
    }


def test_every_job_of_contributions_and_heads_has_their_controls(jobs_of: Any) -> None:
    """Those of heads at each layer, the sum of a tower at one place of the first layer."""
    sites = ["encoder.mlp", "encoder.self_attention", "decoder.cross_attention", HEADS_SITE]
    jobs = jobs_of(experiments=asked_of(sites), rows=ROWS[:2])
    _, controls = jobs.measured("patching")
    known = controls.groupby(["control", "site"])["layer"].unique()
    assert known["all_heads"].map(list).to_dict() == {HEADS_SITE: list(range(LAYERS))}
    summed = {"encoder.mlp": [0], "decoder.cross_attention": [0]}
    assert known["all_contributions"].map(list).to_dict() == summed
    checked = controls[controls["control"] != UNRELATED]
    assert (checked["difference"] <= checked["tolerance"]).all()
    assert checked["head"].isna().all()


# ---- what effects make of it -------------------------------------------------------------------


def test_a_cell_is_held_against_the_mean_of_its_donors() -> None:
    """Of each draw; where nothing is drawn of all of them."""
    scores = {"p_base": 0.1, "p_source": 0.8, "logit_base": 1.0, "logit_source": 3.0}
    cell = {"example": "cat", "site": STREAM[0], "layer": 0, "position": 1, "token": "is"}
    runs = pd.DataFrame(
        [{"example": "cat", "run": run, "p_source": p, "p_base": 1 - p, "logit_base": 0.0,
          "logit_source": 9 * p, "answer_id": int(run == SOURCE),
          "answer": str(run == SOURCE)}
         for run, p in ((BASE, 0.25), (SOURCE, 0.9), (PICTURE_ONLY, 0.5))]
    )  # fmt: skip
    donors = [0.3, 0.7, 0.5]
    controls = pd.DataFrame(
        [{**cell, **scores, "control": UNRELATED, "p_source": p, "donor_number": number}
         for number, p in enumerate(donors)]
    )  # fmt: skip
    experiment = Experiment("patching", Run(BASE, BASE), Run(SOURCE, SOURCE), (STREAM[0],))
    (row,) = measure_cells(experiment, pd.DataFrame([{**cell, **scores}]), controls, runs).to_dict(
        "records"
    )
    assert row["null_change"] == pytest.approx(0.5 - 0.25)
    assert row["contrast"] == pytest.approx(0.8 - 0.5)
    corruption = Corruption("gaussian", "question.embeddings", (2.0,), 2, 0)
    tracing = Experiment("t", Run("noisy", BASE, corruption), Run(BASE, BASE), (STREAM[0],))
    variants = [{"noise_level": 2.0, "draw": draw} for draw in range(2)]
    cells = pd.DataFrame([{**cell, **scores, **variant} for variant in variants])
    nulls = pd.concat(
        [controls.iloc[[draw]].assign(**variant, p_base=0.4 * draw)
         for draw, variant in enumerate(variants)]
    )  # fmt: skip
    noisy = runs.iloc[[0, 0]].assign(run="noisy", noise_level=2.0, draw=[0, 1])
    found = measure_cells(tracing, cells, nulls, pd.concat([runs, noisy], ignore_index=True))
    assert found.sort_values("draw")["contrast"].tolist() == pytest.approx([0.1, 0.1 - 0.4])


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_whether_a_state_matches_is_yes_no_or_missing(tmp_path: Path, suffix: str) -> None:
    matched = pd.array([True, False, None], dtype="boolean")
    write_table(
        pd.DataFrame({"example": list("abc"), "matched": matched}), tmp_path / f"t.{suffix}"
    )
    found = read_table(tmp_path / f"t.{suffix}")["matched"]
    assert found.dtype == "boolean"
    assert found.isna().tolist() == [False, False, True]
    assert found.mean() == 0.5


# ---- what else runs tell -----------------------------------------------------------------------


def test_the_picture_alone_is_a_run_of_no_words(blip: Any, images: Any, jobs_of: Any) -> None:
    jobs = jobs_of()
    truth = Truth(blip, jobs, images)
    runs = jobs.table("runs")
    assert runs["run"].tolist() == [BASE, SOURCE, PICTURE_ONLY] * len(ROWS)
    alone = runs[runs["run"] == PICTURE_ONLY]
    start, end = (small_vocabulary().index(token) for token in ("[CLS]", "[SEP]"))
    for row in alone.itertuples():
        assert (row.question, row.text) == ("", "")
        assert row.answer_id == truth.answers[row.example, BASE]
        truth.check(row, oracle.answer_logits(blip, [start, end], truth.image[row.example]))


def test_a_corrupted_run_tells_the_spread_of_what_it_changes(
    blip: Any, images: Any, jobs_of: Any
) -> None:
    jobs = jobs_of(shard_size=3)
    truth = Truth(blip, jobs, images)
    runs = jobs.corrupted("noisy")
    assert len(runs) == len(ROWS) * len(CORRUPT["levels"]) * CORRUPT["draws"]
    for example, rows in runs.groupby("example"):
        states = oracle.site_states(
            blip, truth.ids[example, BASE], truth.image[example], "encoder.block_input", 0
        )
        expected = states.numpy().astype("float64").std()
        assert rows["state_sd"].tolist() == pytest.approx([expected] * len(rows), rel=1e-6)


@pytest.mark.parametrize("size", [1, 3, 8])
def test_three_deviations_are_of_the_differing_words_of_the_whole_sheet(
    blip: Any, images: Any, jobs_of: Any, size: int
) -> None:
    """As in ROME: of all numbers of the words' embeddings; the value is recorded beside it."""
    corrupt = {"at": "question.word_embeddings", "role": "noun", "unit": "std", "levels": [3.0],
               "draws": 2, "seed": 3}  # fmt: skip
    runs, report = {"noisy": {"of": BASE, "corrupt": corrupt}}, {"draws_at": 3.0}
    jobs = jobs_of(shard_size=size, runs=runs, report=report)
    truth = Truth(blip, jobs, images)
    table = blip.text_encoder.embeddings.word_embeddings.weight.detach()
    nouns = {
        name: [at for at, role in enumerate(truth.roles(name)) if role == "noun"]
        for name in truth.rows
    }
    embeddings = [table[truth.ids[name, BASE][at]] for name in nouns for at in nouns[name]]
    sd = torch.cat(embeddings).numpy().std()
    found = jobs.corrupted("noisy")
    assert found["state_sd"].tolist() == pytest.approx([sd] * len(found), rel=1e-6)
    for row in found.itertuples():
        ids = truth.ids[row.example, BASE]
        drawn = draw_noise(3, row.example, int(row.draw), len(ids), WIDTH).double()
        on = [at in nouns[row.example] for at in range(len(ids))]
        with corrupted(blip, "question.word_embeddings", by_hand("gaussian", 3 * sd, drawn, on)):
            truth.check(row, oracle.answer_logits(blip, ids, truth.image[row.example]))


def test_an_example_without_the_role_that_is_corrupted_is_named(
    jobs_of: Any,
) -> None:
    rows = [*ROWS[:2], row_of("elk", "p2", "who is in front", "who is in front")]
    runs = {"noisy": {"of": BASE, "corrupt": CORRUPT | {"role": "noun"}}}
    jobs = jobs_of(rows=rows, runs=runs)
    with pytest.raises(InputError) as caught:
        jobs.corrupted("noisy")
    assert str(caught.value) == (
        "runs.noisy.corrupt.role: no token of the base question of example 'elk' has the role "
        "'noun'; mend effects.roles, or leave the example out"
    )


def test_a_donor_that_is_corrupted_on_a_role_is_so_in_the_cells(
    blip: Any, images: Any, jobs_of: Any
) -> None:
    """The job of an experiment tells the roles by the same rules as that of the run alone."""
    runs = {"noisy": {"of": BASE, "corrupt": CORRUPT | {"role": "noun"}}}
    jobs = jobs_of(runs=runs)
    truth = Truth(blip, jobs, images)
    rows, _ = jobs.measured("noising")
    for row in rows.iloc[::9].itertuples():
        ids, image = truth.ids[row.example, BASE], truth.image[row.example]
        noise = noise_of(row, len(ids))
        noise[[role != "noun" for role in truth.roles(row.example)]] = 0
        layer, position = int(row.layer), int(row.position)
        states = oracle.corrupted_states(blip, ids, image, noise, row.site, layer)
        logits = oracle.patched_logits(
            blip, ids, image, row.site, layer, position, states[position]
        )
        truth.check(row, logits)


def test_a_job_corrupts_the_patches_of_a_box_alone(blip: Any, images: Any, jobs_of: Any) -> None:
    """A patch is on the box that covers at least half of it; [CLS] is on none."""
    side = isqrt(STATES - 1)
    boxes = {"cat": "thing=0,0,0.5,1", "dog": "thing=0,0,1,1; shoe=0,0,0.001,0.001"}
    rows = [row | {"boxes": boxes[row["example"]]} for row in ROWS[:2]]
    corrupt = {"kind": "multiplicative", "at": "picture.states", "role": "thing"}
    jobs = jobs_of(rows=rows, runs={"noisy": {"of": BASE, "corrupt": CORRUPT | corrupt}})
    truth = Truth(blip, jobs, images)
    half = [False, *[2 * column + 1 <= side for _ in range(side) for column in range(side)]]
    changed = {"cat": half, "dog": [False, *[True] * side**2]}
    for row in jobs.corrupted("noisy").itertuples():
        drawn = draw_noise(3, row.example, int(row.draw), STATES, WIDTH).double()
        own = truth.image[row.example]
        change = by_hand("multiplicative", row.noise_level, drawn, changed[row.example])
        states = change(own[0].clone())[None]
        truth.check(row, oracle.answer_logits(blip, truth.ids[row.example, BASE], states))
        spread = own[0][changed[row.example]].std(correction=0).item()
        assert row.state_sd == pytest.approx(spread, rel=1e-5)


def test_a_box_on_which_no_patch_lies_is_named(jobs_of: Any) -> None:
    rows = [row | {"boxes": "thing=0,0,0.01,0.01"} for row in ROWS[:1]]
    corrupt = {"at": "picture.states", "role": "thing"}
    jobs = jobs_of(rows=rows, runs={"noisy": {"of": BASE, "corrupt": CORRUPT | corrupt}})
    with pytest.raises(InputError) as caught:
        jobs.corrupted("noisy")
    assert str(caught.value) == (
        "runs.noisy.corrupt.role: no patch of the picture of example 'cat' has the role 'thing'; "
        "widen its box, or leave the example out"
    )


def test_fresh_noise_is_the_same_in_whatever_jobs(jobs_of: Any) -> None:
    corrupt = CORRUPT | {"kind": "multiplicative", "at": "picture.states", "fresh": True}
    asked: dict[str, Any] = {"runs": {"noisy": {"of": BASE, "corrupt": corrupt}}, "rows": ROWS[:4]}
    (whole, null), (parts, null_parts) = (
        jobs_of(shard_size=size, sites=["encoder.block_output"], **asked).measured("tracing")
        for size in (16, 1)
    )
    keys = ["example", "layer", "position", "noise_level", "draw"]
    for one, other in ((whole, parts), (null, null_parts)):
        one, other = (table[table["position"].notna()].set_index(keys) for table in (one, other))
        assert len(one) == len(other)
        pd.testing.assert_series_equal(
            one["p_base"], other["p_base"].reindex(one.index), atol=1e-6, rtol=1e-5
        )
    draws = whole.groupby(["example", "noise_level", "draw"])["p_base"]
    assert (draws.nunique() == draws.size()).all()
