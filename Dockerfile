# syntax=docker/dockerfile:1
# Installs exactly the locked dependencies, checked by their hashes, then this checkout as a wheel; keeps only that.

FROM rust:1.95-slim AS rust

FROM python:3.12-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
# The dependencies come first: a change of the code does not fetch them again.
COPY requirements.lock build.lock ./
RUN python -m venv /opt/callfold && /opt/callfold/bin/pip install --require-hashes -r requirements.lock \
 && python -m venv /opt/build && /opt/build/bin/pip install --require-hashes -r build.lock
# A compiler, on the image that the compiled part will run on: so it finds the libraries there that it was linked with.
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
COPY --from=rust /usr/local/rustup /usr/local/rustup
COPY --from=rust /usr/local/cargo /usr/local/cargo
ENV RUSTUP_HOME=/usr/local/rustup CARGO_HOME=/usr/local/cargo PATH=/usr/local/cargo/bin:$PATH
COPY pyproject.toml README.md LICENSE ./
COPY sql ./sql
COPY pipeline ./pipeline
# With the locked backend and nothing else: the build fetches the crates of Cargo.lock, checked by their hashes.
RUN CALLFOLD_REQUIRE_NATIVE=1 /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheel . \
 && /opt/callfold/bin/pip install --no-index --no-deps /wheel/callfold-*.whl \
 && /opt/callfold/bin/pip check \
 && /opt/callfold/bin/callfold --version

FROM python:3.12-slim
LABEL org.opencontainers.image.title="callfold" org.opencontainers.image.licenses="Apache-2.0"
# The lake's directory belongs to the user that writes it, and so does a volume that is mounted on it first.
RUN useradd --system --uid 10001 --create-home --home-dir /home/callfold callfold \
 && install -d -o callfold -g callfold /lake \
 && install -d -o callfold -g callfold -m 700 /spool
COPY --from=build /opt/callfold /opt/callfold
ENV PATH=/opt/callfold/bin:$PATH PYTHONUNBUFFERED=1 CALLFOLD_LAKE=/lake CALLFOLD_HTTP_HOST=0.0.0.0
USER callfold
WORKDIR /home/callfold
EXPOSE 8080
# SIGTERM drains and flushes; give it a minute before killing it.
STOPSIGNAL SIGTERM
ENTRYPOINT ["callfold"]
CMD ["serve"]
