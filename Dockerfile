# Farewall as an image: the program, a C library and certificate authorities; no shell, no root.
#
#   docker build -t farewall .
#   docker run -v ./farewall.toml:/etc/farewall/farewall.toml:ro -v farewall:/var/lib/farewall -p 8402:8402 farewall
#
# docs/install.md says more; tests/image.sh builds it and runs it.
# The configuration listens on 0.0.0.0:8402, not on the loopback address, which is the container's own, and
# keeps its ledger in the volume: [ledger] path = "/var/lib/farewall/farewall.db".

FROM rust:1.95-bookworm AS build
# pingora compresses with zlib-ng, whose build needs cmake.
RUN apt-get update \
 && apt-get install -y --no-install-recommends cmake \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY . .
RUN cargo build --locked --release \
 && mkdir /state

# glibc, libgcc and ca-certificates of Debian 12, and an account without rights.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /build/target/release/farewall /usr/bin/farewall
# A new volume takes its owner from here.
COPY --from=build --chown=65532:65532 /state /var/lib/farewall
VOLUME /var/lib/farewall
# The account "nonroot", as a number, so that Kubernetes can see that it is not root.
USER 65532:65532
WORKDIR /var/lib/farewall
EXPOSE 8402
# SIGTERM lets requests finish: give it time, as in `docker stop -t 120`.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/bin/farewall"]
CMD ["run", "--config", "/etc/farewall/farewall.toml"]
