# syntax=docker/dockerfile:1
# A node in a container: `docker build -t talka .`, then
#   docker run -e TALKA_API_KEY=... -p 127.0.0.1:4242:4242 -p 4243:4243/udp -v talka:/data talka
# It listens beyond itself, so it wants a key. The image holds the program, a C library, time zones and nothing to
# log in with; the program runs as a user without rights.

FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --package talka \
    && strip --strip-debug -o /talka target/release/talka \
    && mkdir /empty

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /talka /usr/local/bin/talka
# Volumes are made with the owner of these.
COPY --from=build --chown=65532:65532 /empty /data
COPY --from=build --chown=65532:65532 /empty /invite
ENV TALKA_DATA_DIR=/data
VOLUME /data
EXPOSE 4242/tcp 4243/udp
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=3 \
    CMD ["/usr/local/bin/talka", "status", "--http", "127.0.0.1:4242"]
ENTRYPOINT ["/usr/local/bin/talka"]
CMD ["up", "--http", "0.0.0.0:4242", "--p2p", "0.0.0.0:4243"]
