# syntax=docker/dockerfile:1
# The sidecar in a container that runs as an ordinary user on a read-only root file system.
#
#   docker build --tag keyside .       # --build-arg BACKENDS="aws pkcs11" carries the SDKs of these back ends alone
#   docker run --rm --volume keyside-data:/var/lib/keyside \
#       --volume ./config.example.yaml:/etc/keyside/keyside.yaml:ro keyside init      # once: root key and keystore
#   docker run --read-only --cap-drop ALL --security-opt no-new-privileges --ulimit memlock=33554432 \
#       --volume keyside-data:/var/lib/keyside --volume keyside-run:/run/keyside \
#       --volume ./config.example.yaml:/etc/keyside/keyside.yaml:ro keyside
#
# Applications mount the volume keyside-run and talk to /run/keyside/keyside.sock.

ARG PYTHON=3.13
ARG DEBIAN=bookworm
ARG BACKENDS="aws azure gcp pkcs11"

FROM python:${PYTHON}-slim-${DEBIAN} AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev libssl-dev pkg-config \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
# dependencies first: this layer is built again only when a lock file changes
ARG BACKENDS
COPY requirements requirements
RUN python -m venv /opt/build \
    && /opt/build/bin/pip install --no-cache-dir --require-hashes --requirement requirements/build.txt \
    && python -m venv --without-pip /opt/keyside \
    && /opt/build/bin/pip --python /opt/keyside/bin/python install --no-cache-dir --require-hashes --requirement requirements/service.txt \
    && for backend in $BACKENDS; do \
        /opt/build/bin/pip --python /opt/keyside/bin/python install --no-cache-dir --require-hashes --requirement "requirements/$backend.txt" || exit 1; \
    done
COPY pyproject.toml setup.py README.md LICENSE ./
COPY fastpath fastpath
COPY providers providers
COPY proxy proxy
RUN /opt/build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir dist . \
    && /opt/build/bin/pip --python /opt/keyside/bin/python install --no-cache-dir --no-deps dist/*.whl \
    && /opt/keyside/bin/keyside --version

FROM python:${PYTHON}-slim-${DEBIAN}
LABEL org.opencontainers.image.title="keyside" \
      org.opencontainers.image.description="Encrypts and decrypts single fields for the containers beside it" \
      org.opencontainers.image.licenses="Apache-2.0"
# numbers that a pod's securityContext can name
RUN groupadd --system --gid 10001 keyside \
    && useradd --system --uid 10001 --gid keyside --home-dir /var/lib/keyside --no-create-home --shell /usr/sbin/nologin keyside \
    && install -d -o keyside -g keyside -m 0755 /run/keyside \
    && install -d -o keyside -g keyside -m 0700 /var/lib/keyside \
    && install -d -m 0755 /etc/keyside
COPY --from=build /opt/keyside /opt/keyside
ENV PATH=/opt/keyside/bin:$PATH \
    KEYSIDE_CONFIG=/etc/keyside/keyside.yaml \
    PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /var/lib/keyside
VOLUME ["/run/keyside", "/var/lib/keyside"]
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["keyside", "status", "--json"]
ENTRYPOINT ["keyside"]
CMD ["serve"]
