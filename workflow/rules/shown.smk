# What Snakemake's own report shows of the results (`snakemake --report report.zip`), and its words.


# The report's first page.
report: "../report/workflow.rst"


SHOWN = EXAMPLES[: config["report"]["examples"]]
SHOWN_PICTURES = {row["example"]: picture_path(row["image"]) for row in ROWS[: len(SHOWN)]}
# Of these pictures: as inputs, and the facts that say which pictures were answered about.
SHOWN_PICTURE_FILES = [picture_input(row["image"]) for row in ROWS[: len(SHOWN)]]
SHOWN_PICTURE_FACTS = sorted(
    {f"results/images/{PICTURE_SHARD_OF[row['image']]}.json" for row in ROWS[: len(SHOWN)]}
)
FORMATS = ["pdf", "svg", "png"]
CAPTIONS = Path(workflow.basedir) / "workflow/report"
# A report's figures, by their files' names without ending, and what tells them from one another:
# one label, or every combination of several, since the report's page fails on a missing one.
LABELS = {
    "baseline": {f"baseline_{example}": {"example": example} for example in SHOWN},
    "patching": {
        f"patching_{site}_{example}": {"example": example, "site": site}
        for site in SITES["patching"]
        for example in SHOWN
    },
    "tracing": {
        f"tracing_{kind}_{site}_{example}": {"example": example, "site": site, "map": kind}
        for kind in ["levels", "means", "draws", "mean"]
        for site in SITES["tracing"]
        for example in SHOWN
    },
    "runtime": {"runtime": {"rules": "time and memory"}},
}
FIGURES = {
    name: collect("reports/figures/{stem}.{format}", stem=labels, format=FORMATS)
    for name, labels in LABELS.items()
}


def in_report(path, caption, category, labels, subcategory=None):
    """A file, marked to be shown in Snakemake's own report."""
    return report(
        path,
        caption=str(CAPTIONS / f"{caption}.rst"),
        category=category,
        subcategory=subcategory,
        labels=labels,
    )


def page_in_report(name, caption="page"):
    """A report's page, marked to be shown."""
    return in_report(f"reports/{name}.html", caption, "Reports", {"report": name})


def figures_in_report(name):
    """A report's figures, one format of each marked to be shown.

    It is PNG: in an SVG a browser that lacks the figures' font sets the text in another.
    """
    figures = []
    for stem, labels in LABELS[name].items():
        caption = "_".join([name, labels["map"]]) if "map" in labels else name
        files = {suffix: f"reports/figures/{stem}.{suffix}" for suffix in FORMATS}
        files["png"] = in_report(files["png"], caption, "Figures", labels, subcategory=name)
        figures.extend(files.values())
    return figures


def table_in_report(name):
    """A whole table, marked to be offered for download where it is a small one."""
    path = table(name)
    return path if name in LARGE_TABLES else in_report(path, "table", "Tables", {"table": name})


def printed_figures_of(example):
    """The figures of an example for print, in the order of telling."""
    stems = [
        f"baseline_{example}",
        *collect("patching_{site}_{example}", site=SITES["patching"], example=example),
        *collect(
            "tracing_{kind}_{site}_{example}",
            kind=["means", "levels", "draws", "mean"],
            site=SITES["tracing"],
            example=example,
        ),
    ]
    return [f"reports/figures/{stem}.pdf" for stem in stems]
