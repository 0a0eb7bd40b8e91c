# The service in a container: bundles in, HTTP out. No torch, no compiler, no shell needed at run time.
#
#   docker build -t edgedl .
#   docker run --rm --read-only --cap-drop ALL -p 127.0.0.1:8000:8000 -v "$PWD/age.edge:/bundles/age.edge:ro" edgedl

FROM python:3.13-slim-bookworm AS build
# cpu,serve,video decodes videos too. That brings code under the GPL: docs/decisions/0033-video-decoder.md.
ARG EXTRAS=cpu,serve
WORKDIR /source
# Also for hatchling, which pip fetches into an environment of its own to build the wheel.
ENV PIP_CONSTRAINT=/source/constraints.txt PIP_BUILD_CONSTRAINT=/source/constraints.txt PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY edgedl edgedl
COPY exporters exporters
COPY runtime runtime
COPY service service
RUN python -m pip wheel --no-deps --wheel-dir /wheels . \
    && python -m venv --without-pip /opt/edgedl \
    && set -- /wheels/*.whl \
    && python -m pip --python /opt/edgedl/bin/python install "$1[$EXTRAS]"

FROM python:3.13-slim-bookworm
# ORT_DISABLE_TELEMETRY: ONNX Runtime's Linux wheels look up a collector unless told not to before they are imported.
# PYTHONSAFEPATH: a file called numpy.py in the working folder is not imported.
ENV ORT_DISABLE_TELEMETRY=1 \
    PYTHONSAFEPATH=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PATH=/opt/edgedl/bin:$PATH
COPY --from=build /opt/edgedl /opt/edgedl
# A number, so that orchestrators can see that it is not root; it owns nothing and has no home.
USER 10001:10001
VOLUME /bundles
EXPOSE 8000
# urlopen raises, and python exits with 1, for 503 as for no answer.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
# Inside the container every address; what the outside sees is decided by -p.
ENTRYPOINT ["edgedl", "serve", "--host", "0.0.0.0", "--port", "8000"]
CMD ["/bundles/age.edge"]
