# syntax=docker/dockerfile:1
# Builds a wheel, installs it with its dependencies into a virtual environment, and keeps only that.

FROM python:3.12-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
RUN python -m venv /opt/callfold
COPY pyproject.toml README.md LICENSE ./
COPY sql ./sql
COPY pipeline ./pipeline
RUN /opt/callfold/bin/pip install .

FROM python:3.12-slim
LABEL org.opencontainers.image.title="callfold" org.opencontainers.image.licenses="Apache-2.0"
# The lake's directory belongs to the user that writes it, and so does a volume that is mounted on it first.
RUN useradd --system --uid 10001 --create-home --home-dir /home/callfold callfold \
 && install -d -o callfold -g callfold /lake
COPY --from=build /opt/callfold /opt/callfold
ENV PATH=/opt/callfold/bin:$PATH PYTHONUNBUFFERED=1 CALLFOLD_LAKE=/lake CALLFOLD_HTTP_HOST=0.0.0.0
USER callfold
WORKDIR /home/callfold
VOLUME /lake
EXPOSE 8080
# SIGTERM drains and flushes; give it longer than flush_seconds before killing it.
STOPSIGNAL SIGTERM
ENTRYPOINT ["callfold"]
CMD ["serve"]
