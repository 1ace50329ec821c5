# To be sourced from the project's folder. Puts a `conda` on the PATH for the tests that want one:
# the machine's own where there is one, else a stand-in where ../shared/tools/conda can start it.
# Without either nothing happens, and those tests say what they miss.

start_conda() {
    local tools=../shared/tools/conda place=.venv/conda
    if command -v conda >/dev/null || [ ! -x "$tools/up.sh" ]; then
        return 0
    fi
    # Made anew each time: it takes seconds, and half of one from a run cut short is worth nothing.
    rm -rf "$place"
    mkdir -p "$place"
    if ! bash "$tools/up.sh" "$place" >"$place/up.log" 2>&1; then
        cat "$place/up.log" >&2
        echo "The stand-in conda in $tools did not start." >&2
        return 1
    fi
    . "$place/env.sh"
}

start_conda
