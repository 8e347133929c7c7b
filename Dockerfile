# The image of preforkd: an entrypoint for an app of yours, an example when none is given.
#   docker build -t preforkd .          (without a registry: deploy/README.md)
#   docker run --rm -p 8000:8000 preforkd
#   docker run --rm -p 8000:8000 -v "$PWD:/app:ro" preforkd main.py:HttpRequestHandler --workers 4

ARG BASE_IMAGE=docker.io/library/python:3.12-slim

FROM ${BASE_IMAGE} AS build
# For a mirror: --build-arg PIP_INDEX_URL=https://... ; not set, pip asks PyPI. None of them is in the image that is made.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_CERT
# The HTTP parser is compiled where there is a compiler; without one (or without the headers of Python, Debian's
# python3-dev) its pure form is installed, which is slower. The slim images have the headers, and no compiler.
RUN command -v gcc >/dev/null || { apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev; }
WORKDIR /src
RUN python3 -m venv /opt/preforkd
COPY pyproject.toml README.md LICENSE ./
COPY daemon daemon
COPY workers workers
RUN /opt/preforkd/bin/pip install --no-cache-dir '.[metrics]' && /opt/preforkd/bin/preforkd --version && /opt/preforkd/bin/preforkctl --version

FROM ${BASE_IMAGE}
COPY --from=build /opt/preforkd /opt/preforkd
WORKDIR /app
COPY deploy/examples examples
# ./preforkd.toml names the example: what is given in its place (arguments, PREFORKD_APP, a file of yours) wins.
COPY deploy/container/preforkd.toml preforkd.toml
# PORT: all interfaces, for 127.0.0.1 of a container is reached by nobody; platforms that set PORT themselves override it,
# and so does any --bind.
ENV PATH=/opt/preforkd/bin:$PATH \
    PORT=8000 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
EXPOSE 8000
# A number, so that Kubernetes can check runAsNonRoot. Nothing needs this very user: any uid, no HOME and a read-only root
# file system do. Group 0 without rights of its own, as OpenShift's random uids have.
USER 10001:0
STOPSIGNAL SIGTERM
ENTRYPOINT ["preforkd"]
CMD []
