#!/usr/bin/env bash
# Runs cluster_test.py on a cluster of three nodes with the images of this build. Needs root and the
# Debian packages of packages.txt; the cluster's programs are built the first time (build.sh).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
"$here/../packages.sh"
export CONTAINERS_CONF=$here/../container/containers.conf
export POMPC_BUILD=${POMPC_BUILD:-$root/build/release} POMPC_CLUSTER=${POMPC_CLUSTER:-/tmp/pompc-cluster}
programs=$("$here/build.sh")
printf '#!/bin/sh\nexec %s/hyperkube kubectl "$@"\n' "$programs" >"$programs/kubectl"
chmod +x "$programs/kubectl"
KUBECTL=$programs/kubectl /usr/bin/python3 "$here/../manifests_test.py"

work=$(mktemp -d)
trap '"$here/cluster.sh" down; rm -rf "$work"' EXIT
"$here/../container/images.sh" 0.1.0
gcc -O2 -static -o "$work/pause" "$here/pause.c"
tar -C "$work" -c pause | podman import -q -c 'ENTRYPOINT ["/pause"]' - localhost/pause:1 >/dev/null
podman save -q -m --format docker-archive -o "$work/images.tar" localhost/pause:1 localhost/pompc:0.1.0 \
  localhost/pompc-servers:0.1.0
"$here/cluster.sh" up 3 "$work/images.tar"
nsenter --net=/run/netns/pompckcp /usr/bin/python3 "$here/cluster_test.py"
