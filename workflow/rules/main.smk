# All stages, in order; the entries beside them (Snakefile, workflow/Snakefile) say what is asked.

from html import unescape

from snakemake.utils import min_version

min_version("9.0")


include: "common.smk"
include: "fetch.smk"


if PLAN.at_once:

    include: "at_once.smk"

else:

    include: "runs.smk"
    include: "interventions.smk"


include: "effects.smk"
include: "tables.smk"
include: "analyses.smk"


if MULTIVERSE in PLAN.analyses:

    include: "multiverse.smk"


# Only a sheet in halves has claims, and a half that meets them.
if PLAN.halves:

    include: "confirm.smk"


# Only a replication has published figures to be compared with, or averages.
if PLAN.averages:

    include: "averages.smk"

elif config["published"]:

    include: "published.smk"


include: "reports.smk"
include: "story.smk"
include: "archive.smk"
include: "supplement.smk"
include: "runtime.smk"
include: "estimate.smk"


TARGETS = [
    *map(PLAN.table, PLAN.told),
    *collect("reports/{page}.{suffix}", page=[*PLAN.pages, "runtime"], suffix=["html", "ipynb"]),
    *collect("reports/figures/{page}", page=[*PLAN.pages, "runtime"]),
    "reports/index.html",
]


def first_finding(page):
    """The first finding that a run's page tells, without marks; "" where it tells none."""
    text = Path(page).read_text(encoding="utf-8")
    found = re.search(r'class="findings">\s*<li>(.*?)</li>', text, re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", "", found[1])).split()) if found else ""


onsuccess:
    if Path("reports/index.html").exists():
        if finding := first_finding("reports/index.html"):
            logger.info(f"Found: {finding}")
        beside = ", ".join([*PLAN.pages, "runtime"])
        logger.info(
            f"Reports: reports/index.html ({beside} beside it), tables in results/tables/"
        )
