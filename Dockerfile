# The workflow's libraries. The workflow itself, its inputs and its results stay in the folder that
# is mounted at /project; config/environments.md says how to build and run this, with GPUs and without.

FROM python:3.11-slim

# torch's build for Linux brings the CUDA libraries along: of a GPU's machine only the driver is
# needed, which `docker run --gpus all` and `apptainer --nv` lend to the container.
COPY requirements.txt /opt/requirements.txt
RUN pip install --no-cache-dir --requirement /opt/requirements.txt

# For `docker run --user`: that user has no home here and no name. HOME is where caches are written;
# USERNAME is the last place in which Python looks for a name, so any other given one goes before.
ENV HOME=/tmp \
    USERNAME=container \
    PYTHONNOUSERSITE=1

WORKDIR /project
ENTRYPOINT ["snakemake"]
CMD ["--cores", "all"]
