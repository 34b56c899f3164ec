# moedge on a board: the Debian package of `make deb`, for the processor that the image is built for.
#   docker build -f docker/runtime.Dockerfile -t moedge .
# On a Jetson, with NVIDIA's libraries beside it (JetPack 6 is Ubuntu 22.04; `make deb RELEASE=ubuntu22.04`):
#   docker build -f docker/runtime.Dockerfile -t moedge --build-arg BASE=nvcr.io/nvidia/l4t-base:r36.2.0 --build-arg RELEASE=ubuntu22.04 .
ARG BASE=debian:bookworm-slim
FROM ${BASE}

# As in the name of the package: deb12 or ubuntu22.04.
ARG RELEASE=deb12
# Owner of the state. The package takes over a user that is there, so that volumes belong to the same number in every image.
ARG UID=990

# systemd-standalone-sysusers in the place of all of systemd.
# Which versions there are the release of the base decides, and apt of a later day has others; moedge's libraries are locked in its package.
# hadolint ignore=DL3008
RUN --mount=type=bind,source=dist,target=/dist \
    groupadd --system --gid "${UID}" moedge \
    && useradd --system --uid "${UID}" --gid moedge --home-dir /var/lib/moedge --shell /usr/sbin/nologin moedge \
    && apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates openssl systemd-standalone-sysusers \
        "/dist/moedge_"*"~${RELEASE}_$(dpkg --print-architecture).deb" \
    && apt-get clean && rm -rf /var/lib/apt/lists/* \
    && install --directory --owner moedge --group moedge --mode 0750 /var/lib/moedge /run/moedge

# What systemd says of the service on a board: where model.json is written, for `docker exec … moedge bundle update`.
ENV RUNTIME_DIRECTORY=/run/moedge
USER ${UID}
WORKDIR /var/lib/moedge
VOLUME /var/lib/moedge
# Healthy once the model is loaded, unhealthy while it is stuck, not while a camera or the broker is away. Loading a model from flash takes minutes.
HEALTHCHECK --interval=30s --timeout=10s --start-period=15m \
    CMD ["/usr/lib/moedge/bin/python", "-c", "import http.client, sys; c = http.client.HTTPConnection('127.0.0.1', 9740, timeout=8); c.request('GET', '/readiness'); r = c.getresponse(); print(r.read().decode()); sys.exit(r.status != 200)"]
ENTRYPOINT ["moedge"]
CMD ["run", "--config", "/etc/moedge/moedge.yaml"]
