# Two stages: a pinned Go builds one static binary, and the image holds that
# binary, its certificates and an empty data folder. There is no shell in it.
#
# `scripts/image-check` runs these steps without an engine, so RUN lines use
# paths below WORKDIR only. Pin the compiler by digest for a release:
#
#   docker build --build-arg GO_IMAGE=golang:1.26-bookworm@sha256:... --build-arg VERSION=v1.2.3 .
ARG GO_IMAGE=golang:1.26-bookworm

FROM ${GO_IMAGE} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=
ENV CGO_ENABLED=0 GOFLAGS=-buildvcs=false
RUN go build -trimpath -ldflags "-s -w -buildid= -X main.release=${VERSION}" -o out/sealstone ./cmd/sealstone
RUN mkdir -p out/data

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /src/out/sealstone /sealstone
COPY --from=build --chown=65532:65532 /src/out/data /data
USER 65532:65532
WORKDIR /data
EXPOSE 7460
ENTRYPOINT ["/sealstone"]
