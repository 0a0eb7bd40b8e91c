# The service in a container: bundles in, HTTP out. No torch, no compiler, no pip and no shell needed at run time.
#
#   docker build -t edgedl .
#   docker run --rm --read-only --cap-drop ALL -p 127.0.0.1:8000:8000 -v "$PWD/age.edge:/bundles/age.edge:ro" edgedl
#
# docs/container.md says more. The last stage runs nothing, so an image for another processor needs no emulation:
#
#   docker build --platform linux/arm64 -t edgedl:arm64 .

# What the image stands on, and what it is built on: the same Python at the same place, the latter with pip.
ARG BASE=python:3.13-slim-bookworm
ARG BUILD=${BASE}

FROM --platform=$BUILDPLATFORM ${BUILD} AS build
# cpu,serve,video decodes videos too. That brings code under the GPL: docs/decisions/0033-video-decoder.md.
# gpu,serve is for NVIDIA's, cpu,serve,sign for signed bundles.
ARG EXTRAS=cpu,serve
# Of the image, as docker and buildah set it: amd64 or arm64. The processor that builds where nobody does.
ARG TARGETARCH
WORKDIR /source
# Also for hatchling, which pip fetches into an environment of its own to build the wheel.
ENV PIP_CONSTRAINT=/source/constraints.txt PIP_BUILD_CONSTRAINT=/source/constraints.txt PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY edgedl edgedl
COPY exporters exporters
COPY runtime runtime
COPY service service
COPY image image
# The secret `pip` is a pip.conf, for who has an index of their own; it stays out of the image. Versions are those of
# constraints.txt.
# hadolint ignore=DL3013
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    case "${TARGETARCH:-$(uname -m)}" in \
      amd64|x86_64) machine=x86_64 ;; \
      arm64|aarch64) machine=aarch64 ;; \
      *) echo "there is no ONNX Runtime for ${TARGETARCH}; build for amd64 or arm64" >&2; exit 1 ;; \
    esac \
    && python3 -m pip wheel --no-deps --wheel-dir /wheels . \
    && set -- /wheels/*.whl \
    && python3 -m pip install --target /opt/edgedl --no-compile --only-binary :all: \
      --platform "manylinux_2_28_$machine" --platform "manylinux_2_27_$machine" --platform "manylinux_2_26_$machine" \
      --platform "manylinux_2_17_$machine" --platform "manylinux2014_$machine" "$1[$EXTRAS]" \
    && python3 image/trim.py /opt/edgedl \
    && python3 -m compileall -q --invalidation-mode unchecked-hash /opt/edgedl

FROM ${BASE}
# ORT_DISABLE_TELEMETRY: ONNX Runtime's Linux wheels look up a collector unless told not to before they are imported.
# PYTHONSAFEPATH: a file called numpy.py in the working folder is not imported.
ENV ORT_DISABLE_TELEMETRY=1 \
    PYTHONSAFEPATH=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PYTHONPATH=/opt/edgedl \
    PATH=/opt/edgedl/bin:$PATH
COPY --from=build /opt/edgedl /opt/edgedl
# A number, so that orchestrators can see that it is not root; it owns nothing and has no home.
USER 10001:10001
EXPOSE 8000
# urlopen raises, and python exits with 1, for 503 as for no answer.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python3", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
# Inside the container every address; what the outside sees is decided by -p.
ENTRYPOINT ["edgedl", "serve", "--host", "0.0.0.0", "--port", "8000"]
CMD ["/bundles/age.edge"]
