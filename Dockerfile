# The image of preforkd: an entrypoint for an app of yours, an example when none is given.
#   docker build -t preforkd .          (without a registry: deploy/README.md)
#   docker run --rm -p 8000:8000 preforkd
#   docker run --rm -p 8000:8000 -v "$PWD:/app:ro" preforkd main.py:HttpRequestHandler --workers 4
# An image of an app on top of it: deploy/container/Dockerfile.app

# Any image with Python 3.11 or newer.
ARG BASE_IMAGE=docker.io/library/python:3.13-slim
# Where the packages are made: the same Python in the same place, with pip and a shell. Only for a base that lacks these.
ARG BUILD_IMAGE=${BASE_IMAGE}

FROM ${BUILD_IMAGE} AS build
# For closed networks: --secret id=pip.conf,src=... is pip's configuration (a mirror, its password) and --secret id=ca,src=...
# a file of certificate authorities, found there as /run/secrets/ca.crt. Neither is kept, nor is any of these in the image.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_CERT
# Nothing is compiled that others have made, nor run at its installation. Where a platform has no wheels: :none:
ARG PIP_ONLY_BINARY=:all:
# The HTTP parser is compiled where there is a compiler; without one (or without the headers of Python, Debian's
# python3-dev) its pure form is installed, which is slower. The slim images have the headers, and no compiler.
RUN command -v gcc >/dev/null || { apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev; }
WORKDIR /src
COPY deploy/container/requirements.txt deploy/container/requirements-build.txt ./
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf --mount=type=secret,id=ca,target=/run/secrets/ca.crt \
    [ ! -s /run/secrets/ca.crt ] || export PIP_CERT=/run/secrets/ca.crt; \
    python3 -m venv /opt/preforkd \
    && { /opt/preforkd/bin/pip uninstall --quiet --yes setuptools || true; } \
    && /opt/preforkd/bin/pip install --no-cache-dir --require-hashes -r requirements.txt \
    && /opt/preforkd/bin/pip install --no-cache-dir --require-hashes -r requirements-build.txt --target /opt/build
COPY pyproject.toml README.md LICENSE ./
COPY daemon daemon
COPY workers workers
RUN PYTHONPATH=/opt/build /opt/preforkd/bin/pip wheel --no-index --no-deps --no-build-isolation --wheel-dir /opt/wheel . \
    && /opt/preforkd/bin/pip install --no-index --no-deps /opt/wheel/*.whl \
    && /opt/preforkd/bin/pip check && /opt/preforkd/bin/preforkd --version && /opt/preforkd/bin/preforkctl --version

FROM ${BASE_IMAGE}
LABEL org.opencontainers.image.title=preforkd \
      org.opencontainers.image.description="A pre-fork HTTP server daemon for Python" \
      org.opencontainers.image.licenses=MIT
# Python's own modules as bytecode, too: the official images have none, and nobody may write any when the container runs.
RUN ["python3", "-c", "import compileall, re, sysconfig; compileall.compile_dir(sysconfig.get_path('stdlib'), quiet=1, rx=re.compile('/(tests?|idlelib|lib2to3|tkinter|turtledemo|ensurepip|site-packages|dist-packages)/'))"]
COPY --from=build /opt/preforkd /opt/preforkd
WORKDIR /app
COPY deploy/examples examples
# ./preforkd.toml names the example: what is given in its place (arguments, PREFORKD_APP, a file of yours) wins.
COPY deploy/container/preforkd.toml preforkd.toml
# PORT: all interfaces, for 127.0.0.1 of a container is reached by nobody; platforms that set PORT themselves override it,
# and so does any --bind. PREFORKD_ADMIN: for the health check and `docker exec ... preforkctl`; a name without a file needs
# nothing to be writable, and who shares no network with the container cannot reach it.
ENV PATH=/opt/preforkd/bin:$PATH \
    PORT=8000 \
    PREFORKD_ADMIN=unix:@preforkd \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
EXPOSE 8000
# A number, so that Kubernetes can check runAsNonRoot. Nothing needs this very user: any uid, no HOME and a read-only root
# file system do. Group 0 without rights of its own, as OpenShift's random uids have.
USER 10001:0
STOPSIGNAL SIGTERM
# Asks the admin process, wherever it answers, so the app is not disturbed. Within --startup-timeout nothing is wrong yet.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["preforkctl", "health"]
ENTRYPOINT ["preforkd"]
CMD []
