#!/usr/bin/env bash
# Installs what is missing of packages.txt. Needs root then.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
mapfile -t packages < <(grep -v '^#' packages.txt)
dpkg-query -W "${packages[@]}" >/dev/null 2>&1 && exit
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
