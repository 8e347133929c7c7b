# The image of an app, on top of the image of preforkd. FOLDER holds the code and its requirements.txt:
#   docker build -t shop -f deploy/container/Dockerfile.app FOLDER
#   docker run --rm -p 8000:8000 shop

ARG PREFORKD_IMAGE=preforkd
FROM ${PREFORKD_IMAGE}
USER 0
# For closed networks, neither is kept: --secret id=pip.conf,src=... is pip's configuration, and --secret id=ca,src=... a file of
# certificate authorities, with --build-arg PIP_CERT=/run/secrets/ca.crt.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_CERT
COPY requirements.txt ./
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf --mount=type=secret,id=ca,target=/run/secrets/ca.crt ["pip", "install", "--no-cache-dir", "-r", "requirements.txt"]
COPY . .
RUN ["python", "-m", "compileall", "-q", "."]
USER 10001:0
# What is served: `app` of main.py. Options follow it here, or stand in a preforkd.toml in the folder.
CMD ["main:app"]
