# `moedge export` on a workstation: the wheel of `make wheels`, with torch and transformers.
#   docker build -f docker/export.Dockerfile -t moedge-export .
# Nothing here computes on a GPU, and on x86-64 PyPI's torch brings gigabytes of CUDA. PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS
# (with a volume) name a place that has torch for processors: --build-arg PIP_EXTRA_INDEX_URL=https://HOST/PATH
ARG BASE=debian:bookworm-slim
FROM ${BASE} AS build
# Which versions there are the release of the base decides, and apt of a later day has others.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates python3 python3-venv \
    && apt-get clean && rm -rf /var/lib/apt/lists/*
ARG TORCH=torch==2.13.0
ARG PIP_EXTRA_INDEX_URL=
ARG PIP_FIND_LINKS=
ARG PIP_NO_INDEX=
RUN --mount=type=bind,source=dist,target=/dist \
    python3 -m venv /opt/moedge \
    && /opt/moedge/bin/pip install --no-cache-dir "${TORCH}" "$(echo /dist/moedge-*_"$(uname -m)".whl)[export]" \
    && /opt/moedge/bin/pip uninstall --yes pip setuptools

FROM ${BASE}
ARG UID=990
# As above.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates python3 libgomp1 \
    && apt-get clean && rm -rf /var/lib/apt/lists/* \
    && groupadd --system --gid "${UID}" moedge \
    && useradd --system --uid "${UID}" --gid moedge --create-home --home-dir /bundles moedge
COPY --from=build /opt/moedge /opt/moedge
ENV PATH=/opt/moedge/bin:$PATH HF_HOME=/bundles/.cache/huggingface
USER ${UID}
WORKDIR /bundles
VOLUME /bundles
ENTRYPOINT ["moedge"]
CMD ["export", "--help"]
