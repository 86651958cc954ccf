#!/usr/bin/env bash
# Builds the images of deploy/container/Containerfile without a registry, from the programs that are
# built already: images.sh VERSION -> localhost/pompc:VERSION, localhost/pompc-servers:VERSION.
#
# The base image is made by debootstrap, once, in podman's store. Stage `build` is replaced by what
# `cmake --install` gives here; all else is the recipe's. Needs root and the Debian packages podman runc
# debootstrap.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
build=${POMPC_BUILD:-$root/build/release}
export CONTAINERS_CONF=$here/containers.conf
base=localhost/debian:12

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if ! podman image exists "$base"; then
  debootstrap --variant=minbase bookworm "$work/root" >"$work/debootstrap.log" 2>&1 ||
    { tail "$work/debootstrap.log" >&2; exit 1; }
  rm -rf "$work"/root/var/cache/apt/archives/*.deb "$work"/root/var/lib/apt/lists/*
  tar -C "$work/root" -c . | podman import -q - "$base"
  rm -rf "$work/root"
fi
cmake --install "$build" --prefix "$work/opt/pompc" >/dev/null
cmake --install "$build" --prefix "$work/opt/servers" --component servers >/dev/null
for target in pompc servers; do
  podman build -q --format docker --build-arg BASE="$base" --build-context build="$work" --target "$target" \
    -f "$root/deploy/container/Containerfile" -t "localhost/${target/#servers/pompc-servers}:$1" "$root"
done
