# One image a stage, all of them one set of layers: what differs is the entry point.
#
#   docker build --target train-cls -t roarline:train-cls .
#
# docs/docker.md says how they are run. To pin the base image for good, append the digest that `docker pull` prints:
#   --build-arg BASE_IMAGE=nvidia/cuda:13.0.2-base-ubuntu24.04@sha256:…
# The wheels bring their own CUDA 13.0 libraries, so that any Debian or Ubuntu image with a python3 of 3.11 or newer
# serves as a base for runs on a CPU.
ARG BASE_IMAGE=nvidia/cuda:13.0.2-base-ubuntu24.04


# ---- python, and the C compiler that Triton calls when torch compiles a kernel
FROM ${BASE_IMAGE} AS python
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        ca-certificates gcc libc6-dev python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*


# ---- the locked packages: the large layer, made again only when the lock changes
FROM python AS packages
COPY requirements-runtime.lock /build/
RUN python3 -m venv /venv \
    && /venv/bin/pip install --no-cache-dir --require-hashes -r /build/requirements-runtime.lock
ENV PATH=/venv/bin:$PATH


# ---- roarline as a wheel; what it takes to build one stays behind in this stage
FROM packages AS wheel
COPY pyproject.toml README.md LICENSE /build/
COPY src /build/src
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /build/dist /build


# ---- what every stage runs in
FROM packages AS runtime
COPY --from=wheel /build/dist /build/dist
RUN pip install --no-cache-dir --no-index --no-deps /build/dist/*.whl
# `docker run --user` may name any other id: nothing in the image asks for this one.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /cache --shell /usr/sbin/nologin roarline \
    && mkdir -p /app/artifacts /app/configs /app/data /cache \
    && chown roarline:roarline /app/artifacts /app/data /cache
# Downloaded weights and every other cache lie under /cache, outside the image. USER is for programs that ask for a
# name where `--user` gave an id that has none.
ENV HOME=/cache \
    MPLCONFIGDIR=/cache/matplotlib \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    NVIDIA_VISIBLE_DEVICES=all \
    PYTHONUNBUFFERED=1 \
    TORCH_HOME=/cache/torch \
    USER=roarline \
    XDG_CACHE_HOME=/cache
# The image has no .git: what it was built from, for the provenance in every manifest.
ARG ROARLINE_GIT_COMMIT=
ENV ROARLINE_GIT_COMMIT=$ROARLINE_GIT_COMMIT
COPY configs /app/configs
WORKDIR /app
USER roarline
# /app/data is to be mounted read-only, /app/artifacts and /cache to be written to.
VOLUME ["/app/artifacts", "/app/data", "/cache"]


# ---- a target for each stage
FROM runtime AS prepare-data
ENTRYPOINT ["roarline", "prepare-data"]

FROM runtime AS train-cls
ENTRYPOINT ["roarline", "train-cls"]

FROM runtime AS train-explainer
ENTRYPOINT ["roarline", "train-explainer"]

FROM runtime AS extract-attribution-maps
ENTRYPOINT ["roarline", "extract-attribution-maps"]

FROM runtime AS evaluate-roar
ENTRYPOINT ["roarline", "evaluate-roar"]

FROM runtime AS evaluate-f-fidelity
ENTRYPOINT ["roarline", "evaluate-f-fidelity"]

FROM runtime AS evaluate-idsds
ENTRYPOINT ["roarline", "evaluate-idsds"]

FROM runtime AS evaluate-perturbation
ENTRYPOINT ["roarline", "evaluate-perturbation"]

FROM runtime AS evaluate-localization
ENTRYPOINT ["roarline", "evaluate-localization"]

FROM runtime AS evaluate-sanity
ENTRYPOINT ["roarline", "evaluate-sanity"]

FROM runtime AS aggregate-scores
ENTRYPOINT ["roarline", "aggregate-scores"]

FROM runtime AS report
ENTRYPOINT ["roarline", "report"]

# ---- a node of a Ray cluster, or roarline on one: docs/cluster.md
FROM runtime AS ray
USER root
COPY requirements-ray.lock /build/
RUN pip install --no-cache-dir --require-hashes -r /build/requirements-ray.lock \
    && ln -s /venv/bin/ray /venv/bin/roarline /usr/local/bin/
ENV RAY_USAGE_STATS_ENABLED=0
USER roarline
ENTRYPOINT ["ray"]
CMD ["--help"]

# ---- and one for everything else: `run`, `plan`, `status`, a shell
FROM runtime AS roarline
ENTRYPOINT ["roarline"]
CMD ["--help"]
