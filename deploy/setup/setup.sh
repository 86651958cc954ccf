#!/usr/bin/env bash
# Installs what pompc builds with: Debian packages (packages.txt) and pinned, hash-checked wheels
# (requirements.txt) unpacked into $POMPC_DEPS (default .deps/ of this checkout).
# Repeating it is safe; when nothing changed it takes well under a second.
#
#   deploy/setup/setup.sh                what every build needs
#   deploy/setup/setup.sh --lint         also what `make lint` checks with (requirements-lint.txt)
#   deploy/setup/setup.sh --cuda-build   also what the CUDA build compiles and links with (requirements-nvcc.txt)
#   deploy/setup/setup.sh --cuda         also what the CUDA build needs to run (requirements-cuda.txt)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
deps=${POMPC_DEPS:-$root/.deps}
say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: error: %s\n' "$*" >&2; exit 1; }

case ${1:-} in
  "" | --lint | --cuda | --cuda-build) ;;
  *) die "unknown argument $1 (there are --lint, --cuda-build and --cuda)" ;;
esac
[ "$(uname -m)" = x86_64 ] || die "this machine is $(uname -m); the pinned wheels are for x86_64"

# --- Debian packages -------------------------------------------------------------------------
mapfile -t packages < <(grep -v '^#' "$here/packages.txt")
command -v dpkg-query >/dev/null || die "needs Debian 12 or a system with its packages (no dpkg here)"
missing=()
installed=$(dpkg-query -W -f '${Package} ${db:Status-Status}\n' "${packages[@]}" 2>/dev/null || true)
for p in "${packages[@]}"; do
  grep -q "^$p installed$" <<<"$installed" || missing+=("$p")
done
if [ ${#missing[@]} -gt 0 ]; then
  sudo=; [ "$(id -u)" = 0 ] || sudo=sudo
  [ -z "$sudo" ] || command -v sudo >/dev/null ||
    die "needs root once, to run: apt-get install ${missing[*]}"
  say "installing Debian packages: ${missing[*]}"
  # The program is wanted, not the service that its package would start on port 9090.
  if [[ " ${missing[*]} " == *" prometheus "* && -d /run/systemd/system ]]; then
    $sudo systemctl mask --quiet prometheus.service
  fi
  $sudo apt-get update -qq || die "apt-get update failed; is the package mirror reachable?"
  DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends \
    "${missing[@]}" >/dev/null || die "apt-get could not install: ${missing[*]}"
fi

# --- Wheels ----------------------------------------------------------------------------------
# fetch FILE: downloads the wheels that FILE pins and unpacks them into $deps/wheels.
fetch() {
  local platforms=() glibc wheel
  rm -rf "$deps/download"
  mkdir -p "$deps/wheels" "$deps/download"
  for glibc in 12 17 18 25 27 28; do platforms+=(--platform "manylinux_2_${glibc}_x86_64"); done
  python3 -m pip download --quiet --disable-pip-version-check --no-cache-dir --no-deps \
    --require-hashes --only-binary=:all: --python-version 3.11 --implementation cp \
    "${platforms[@]}" --platform manylinux2014_x86_64 \
    --dest "$deps/download" --requirement "$1" ||
    die "pip could not fetch the wheels of $1 (network or hash mismatch)"
  for wheel in "$deps"/download/*.whl; do
    case $(basename "$wheel") in
      torch-*) unzip -q -o "$wheel" 'torch/lib/*' 'torch/include/*' '*/licenses/*' -x '*/libtorch_python.so' -d "$deps/wheels" ;;
      kubernetes_validate-*) unzip -q -o "$wheel" '*/v1.34.0-local-strict/*' '*/licenses/*' -d "$deps/wheels" ;;
      *) unzip -q -o "$wheel" -d "$deps/wheels" ;;
    esac || die "could not unpack $(basename "$wheel")"
  done
  rm -rf "$deps/download"
}

# A stamp holds the hash of the file whose wheels are there.
stamp=$deps/wheels/.installed
want=$(sha256sum <"$here/requirements.txt")
if [ "$(cat "$stamp" 2>/dev/null)" != "$want" ]; then
  say "fetching pinned wheels (600 MB, once) into $deps"
  rm -rf "$deps/wheels"
  fetch "$here/requirements.txt"
  # The linker wants the unversioned name beside the versioned library of the wheel.
  ln -sf libmujoco.so.4.0.0 "$deps/wheels/mujoco/libmujoco.so"
  printf '%s\n' "$want" >"$stamp"
fi
# fetch_more NAME SIZE: the wheels of requirements-NAME.txt beside those.
fetch_more() {
  local file=$here/requirements-$1.txt stamp=$deps/wheels/.installed-$1 want
  want=$(sha256sum <"$file")
  [ "$(cat "$stamp" 2>/dev/null)" != "$want" ] || return 0
  say "fetching the pinned wheels of $(basename "$file") ($2, once) into $deps"
  fetch "$file"
  printf '%s\n' "$want" >"$stamp"
}
fetch_more test "57 MB"
case ${1:-} in
  --lint) fetch_more lint "50 MB" ;;
  --cuda-build) fetch_more nvcc "300 MB" ;;
  --cuda) fetch_more nvcc "300 MB" && fetch_more cuda "1.8 GB" ;;
esac
say "ready (dependencies in $deps)"
