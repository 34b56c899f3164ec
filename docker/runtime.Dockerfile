# The runtime of moedge in a container: no compiler, no torch, no source tree. Build from the project's root:
#   docker build -f docker/runtime.Dockerfile -t moedge .
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS build
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates g++ python3 python3-venv
COPY . /src
RUN python3 -m venv /opt/moedge && /opt/moedge/bin/pip install --no-cache-dir '/src[camera,broker]'

FROM ${BASE}
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates python3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --create-home --home-dir /var/lib/moedge moedge
COPY --from=build /opt/moedge /opt/moedge
ENV PATH=/opt/moedge/bin:$PATH
USER moedge
WORKDIR /var/lib/moedge
ENTRYPOINT ["moedge"]
CMD ["run", "--config", "/etc/moedge/moedge.yaml"]
