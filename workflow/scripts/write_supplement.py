"""Write the archive that accompanies a paper: the story as pages, figures and tables fit to print,
the methods in words, and everything that the run's numbers can be checked by.

The same results and the same configuration give the same bytes.
"""

import logging
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import yaml

from blip_tracing.drawing.figures import save_figure
from blip_tracing.drawing.journal_figures import WIDTHS, journal_figures
from blip_tracing.given.pictures import check_answered
from blip_tracing.machinery.files import check_files, sha256_of, written_whole
from blip_tracing.machinery.logs import log_to
from blip_tracing.printing import latex
from blip_tracing.printing.crate import METADATA, Described, Origin, RunFiles, describe
from blip_tracing.printing.document import write_document
from blip_tracing.telling.finished_run import read_run, stage_of
from blip_tracing.telling.methods import methods_of
from blip_tracing.telling.story import tell
from blip_tracing.telling.told import Run, Story
from blip_tracing.vocabulary.tables import meaning_of

# The first moment that a zip archive can hold: those of the files would differ between runs.
UNDATED = (1980, 1, 1, 0, 0, 0)
READABLE_BY_ALL = 0o644
# The folder in which the workflow can be run again, as it stands in the project.
AGAIN = "run"
ENTRY = f"{AGAIN}/workflow/Snakefile"
CONFIG = f"{AGAIN}/config/config.yaml"
DESCRIPTION = (
    "Supplement to a causal tracing of BLIP: what the workflow blip-causal-tracing measured and "
    "how. Dates in this description and in the archive are constants, so that the same results "
    "make the same bytes. Authors and licence are those of the workflow; the day of publication is "
    "for the authors of the results to add."
)
LATEX = {
    "answers.tex": "table of the questions and answers",
    "baseline.tex": "table of the most probable first answer tokens",
    "effects.tex": "table of the effects, of all layers and positions together",
    "role_effects.tex": "table of the effects by layer and role",
    "replication.tex": "table of the published quantities",
    "tables.tex": "all tables as one document, by booktabs and longtable",
}
# By the beginning of a file's name under AGAIN; the first that fits.
PROJECT = (
    (r"config/.*\.md$", "the manual: every key, column and table"),
    (r"workflow/Snakefile|Snakefile", "the workflow’s entry"),
    (r"workflow/rules/", "a stage of the workflow"),
    (r"workflow/scripts/blip_tracing/", "the library beneath the scripts"),
    (r"workflow/scripts/", "what a rule runs"),
    (r"workflow/notebooks/", "a report’s notebook"),
    (r"workflow/", "what the reports and checks are made with"),
    (r"envs/|requirements", "the pinned versions of the software"),
    (r"profiles/", "settings of Snakemake for a machine"),
    (r"LICENSE", "the licence of the workflow"),
    (r"CITATION\.cff", "what to cite"),
)
GIVEN = "given to the run, as the configuration or the sheet names it"

Parts = dict[str, Described]


@dataclass(frozen=True)
class Templates:
    """Paths: of the pages (Typst), the document of tables (LaTeX), the methods (Markdown), and
    what the methods cite (BibTeX).
    """

    pages: str
    tables: str
    methods: str
    references: str


def print_figures(story: Story, folder: Path) -> Iterator[tuple[str, Described]]:
    """Draw the figures at the widths of a journal's columns: their names, and what they are."""
    for figure in journal_figures(story):
        caption = figure.caption
        for column, width in WIDTHS.items():
            name = f"figures/{column}/{figure.name}"
            (path,) = save_figure(figure.draw(width), folder / name, ["pdf"])
            yield f"{name}.pdf", Described(path, caption)
            caption = f"as {name}.pdf, at another width"


def tables_in_latex(run: Run, template: str) -> dict[str, str]:
    """The tables of a paper in LaTeX, by the names of their files, and a document of them all.

    template: of the document.
    """
    tables, shown = run.tables, list(run.pictures)
    texts = {
        "answers.tex": latex.answers_table(tables["runs"], shown),
        "baseline.tex": latex.baseline_table(tables["baseline"], shown),
    }
    if "summary" in tables:
        texts["effects.tex"] = latex.effects_table(tables["summary"], run.tested)
        texts["role_effects.tex"] = latex.role_effects_table(tables["summary"], run.tested)
    if "verdicts" in tables:
        texts["replication.tex"] = latex.replication_table(tables["verdicts"])
    return {**texts, "tables.tex": latex.document(texts, template)}


def write_parts(
    run: Run, story: Story, templates: Templates, facts: Mapping[str, Any], folder: Path
) -> Parts:
    """Write what the archive holds beside the files that the run left."""
    words = {
        "methods.md": (
            methods_of(run, story, templates.methods, facts),
            "the methods, to be cited from",
        ),
    }
    for name, text in tables_in_latex(run, templates.tables).items():
        words[f"latex/{name}"] = (text, LATEX[name])
    parts = {
        "references.bib": Described(Path(templates.references), "what the methods cite, in BibTeX"),
        "supplement.pdf": Described(folder / "supplement.pdf", "the run told on pages"),
    }
    write_document(story, templates.pages, parts["supplement.pdf"].path)
    for name, (text, description) in words.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        parts[name] = Described(path, description)
    return {**parts, **dict(print_figures(story, folder))}


class Again(NamedTuple):
    """What the run can be made again from: paths by their names below AGAIN.

    project: the workflow's own files; given: the sheet, its pictures, a local checkpoint, published
    numbers; config: with the names of the given files; lacking: what is given and not in the
    archive, in words.
    """

    project: Mapping[str, str]
    given: Mapping[str, str]
    config: Mapping[str, Any]
    lacking: tuple[str, ...] = ()


def files_of_the_run(tables: Mapping[str, str], facts: Iterable[str], again: Again) -> Parts:
    """The files that the archive takes as they are, by their names in it."""
    parts = {}
    for name, path in tables.items():
        parts[f"tables/{Path(path).name}"] = Described(Path(path), meaning_of(name))
    for path in facts:
        words = f"model, versions, device, seed and digests behind the tables of {stage_of(path)}"
        parts[f"tables/{Path(path).name}"] = Described(Path(path), words)
    for name, path in again.project.items():
        words = next(words for start, words in PROJECT if re.match(start, name))
        parts[f"{AGAIN}/{name}"] = Described(Path(path), words)
    for name, path in again.given.items():
        parts[f"{AGAIN}/{name}"] = Described(Path(path), GIVEN)
    return parts


def readme_of(title: str, parts: Parts, origin: Origin, lacking: Iterable[str]) -> str:
    """What to read first, what is cited from, and how the run is made again."""
    source = origin.repository
    source += f" (commit {origin.commit})" if source and origin.commit else origin.commit
    lines = [
        f"# {title}",
        "",
        "1. Read `supplement.pdf`: what was asked, what came out, example by example.",
        "2. Cite from `methods.md` with `references.bib`.",
        "3. Print `figures/` (for a journal's one and two columns) and `latex/` (tables).",
        "4. `tables/` are the data: one row a measurement, their columns described in "
        f"`{AGAIN}/config/README.md`, each with its provenance beside it (`*.provenance.json`).",
        f"5. `{AGAIN}/` runs it again: in that folder, `pip install -r requirements.txt` and "
        "`snakemake --cores all`.",
        "",
        *[f"Not in the archive: {words}." for words in lacking],
        *([f"The workflow: {source}."] if source else []),
        f"`{METADATA}` describes every file to machines, `SHA256SUMS` checks them "
        "(`sha256sum --check SHA256SUMS`). Dates in both are constants, so that the same results "
        "make the same bytes.",
        "",
        "| file | what it is |",
        "| --- | --- |",
        *[
            f"| `{name}` | {part.description} |"
            for name, part in sorted(parts.items())
            if not name.startswith(f"{AGAIN}/")
        ],
        f"| `{AGAIN}/` | the workflow with its configuration, sheet and pictures |",
    ]
    return "\n".join(lines) + "\n"


def checksums_of(parts: Parts) -> str:
    """What `sha256sum --check SHA256SUMS` reads."""
    return "".join(f"{sha256_of([part.path])}  {name}\n" for name, part in sorted(parts.items()))


def write_archive(parts: Parts, destination: str | os.PathLike[str]) -> None:
    """Write a zip archive, whole or not at all, its bytes those of names and contents alone."""
    with written_whole(destination) as file, ZipFile(file, "w") as archive:
        for name, part in sorted(parts.items()):
            entry = ZipInfo(name, UNDATED)
            entry.compress_type = ZIP_DEFLATED
            entry.external_attr = READABLE_BY_ALL << 16
            entry.file_size = part.path.stat().st_size
            with part.path.open("rb") as source, archive.open(entry, "w") as target:
                shutil.copyfileobj(source, target)


def write_supplement(
    run: Run,
    kept: Parts,
    templates: Templates,
    facts: Mapping[str, Any],
    destination: str | os.PathLike[str],
    again: Again,
    origin: Origin,
) -> None:
    """Write the archive, whole or not at all.

    kept: files that it takes as they are; facts: what else the methods say, see `methods_of`.
    Nothing depends on the hour or the place.
    """
    story = tell(run)
    with TemporaryDirectory() as name:
        folder = Path(name)
        parts = {**kept, **write_parts(run, story, templates, facts, folder)}

        def add(name: str, text: str, description: str) -> None:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            parts[name] = Described(path, description)

        config = yaml.safe_dump(dict(again.config), sort_keys=False, allow_unicode=True, width=88)
        add(CONFIG, config, "the configuration, with its defaults filled in")
        given = [CONFIG, *(f"{AGAIN}/{name}" for name in again.given)]
        made = [name for name in parts if not name.startswith(f"{AGAIN}/")]
        readme = readme_of(story.title, parts, origin, again.lacking)
        add("README.md", readme, "what to read, and how to run it again")
        files = RunFiles(ENTRY, given, made)
        crate = describe(parts, files, story.title, DESCRIPTION, facts["snakemake"], origin)
        add(METADATA, crate, "the same for machines (RO-Crate)")
        add("SHA256SUMS", checksums_of(parts), "checksums of all other files")
        write_archive(parts, destination)


def main(snakemake: Any) -> None:
    """Run as the script of the rule `write_supplement`."""
    files, params = snakemake.input, snakemake.params
    # Else it names every letter of every figure.
    logging.getLogger("fontTools").setLevel(logging.WARNING)
    with log_to(snakemake.log[0]):
        tables = {name: files[name] for name in params.tables}
        check_files([*files.facts, *files.picture_facts], tables.values())
        check_answered(files.picture_facts, files.pictures)
        again = Again(
            dict(zip(params.project, files.project, strict=True)),
            dict(zip(params.given, files.given, strict=True)),
            params.again,
            tuple(params.lacking),
        )
        write_supplement(
            read_run(tables, files.facts, params),
            files_of_the_run(tables, files.facts, again),
            Templates(files.pages, files.tables, files.methods_text, files.references),
            params.facts,
            snakemake.output.archive,
            again,
            Origin(**params.origin),
        )


if "snakemake" in globals():
    main(globals()["snakemake"])
