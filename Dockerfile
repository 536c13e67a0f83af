# syntax=docker/dockerfile:1
# The server with its default model and the adapters of pretrained/, in a slim image that runs as nobody in particular.
#   docker build -t quickchange . && docker run --rm -p 127.0.0.1:8080:8080 quickchange

FROM rust:1.95-slim-bookworm AS builder
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# Backtraces name functions without it; with the lines of them the two programs are five times as large.
ENV CARGO_PROFILE_RELEASE_DEBUG=false
# Crates, and what was compiled of them, stay in the builder's caches: a change of a source file compiles its own crate and those behind it.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --package server --package trainer \
    && install -D -t /built target/release/server target/release/trainer

FROM python:3.13-slim-bookworm AS model
COPY scripts/fetch-model /src/scripts/fetch-model
RUN QUICKCHANGE_CACHE=/cache /src/scripts/fetch-model

FROM debian:bookworm-slim AS runtime
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/quickchange quickchange
COPY --from=builder /built/server /usr/local/bin/quickchange-server
COPY --from=builder /built/trainer /usr/local/bin/quickchange-trainer
COPY --from=model /cache/models/SmolLM2-135M-Instruct.Q4_1.gguf /usr/share/quickchange/models/
COPY pretrained /usr/share/quickchange/pretrained
COPY LICENSE-MIT LICENSE-APACHE /usr/share/doc/quickchange/

USER 10001
WORKDIR /var/lib/quickchange
# Inside the container every address is its own; who may reach the published port is decided by whoever publishes it.
# Where that is not the loopback address of one machine, set QUICKCHANGE_KEYS to a file of keys (quickchange-server keys create), or
# QUICKCHANGE_API_KEY and QUICKCHANGE_ADMIN_KEY.
ENV QUICKCHANGE_HOST=0.0.0.0 \
    QUICKCHANGE_ALLOW_ANONYMOUS=true \
    QUICKCHANGE_PORT=8080 \
    QUICKCHANGE_MODEL=/usr/share/quickchange/models/SmolLM2-135M-Instruct.Q4_1.gguf \
    QUICKCHANGE_PRETRAINED=/usr/share/quickchange/pretrained \
    QUICKCHANGE_STORE=/var/lib/quickchange/store
VOLUME /var/lib/quickchange
EXPOSE 8080

# bash speaks enough HTTP for this, so the image carries no client. It speaks no TLS: with QUICKCHANGE_TLS_CERTIFICATE, run with --no-healthcheck.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/${QUICKCHANGE_PORT} && printf 'GET /ready HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3 && read -r status <&3 && [[ $status == *' 200 '* ]]"]
CMD ["quickchange-server"]
