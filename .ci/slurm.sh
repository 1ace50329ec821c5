# To be sourced from the project's folder. Starts a SLURM of two nodes with pretended GPUs for the
# tests that want one, where ../shared/tools/slurm can, and stops it at the end. Elsewhere nothing
# happens, and those tests use the SLURM they find or say what they miss.

start_slurm() {
    local tools=../shared/tools/slurm
    if [ ! -x "$tools/up.sh" ]; then
        return 0
    fi
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends \
        slurmctld slurmd slurm-client slurmdbd munge mariadb-server-core mariadb-client-core
    make .venv/dev.stamp
    .venv/bin/python -m pip install --quiet --disable-pip-version-check \
        -r requirements-slurm.txt -r requirements-cluster.txt
    slurm_state=$(mktemp -d)
    trap 'bash ../shared/tools/slurm/down.sh "$slurm_state"; rm -rf "$slurm_state"' EXIT
    # By default SLURM repeats a lost node's jobs by itself; the profile must tell it not to.
    JOB_REQUEUE=1 bash "$tools/up.sh" "$slurm_state" </dev/null
    # No one else uses it, so tests may stop its daemons.
    export SLURM_TO_BREAK=1
}

start_slurm
