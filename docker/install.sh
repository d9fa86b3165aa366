#!/bin/sh
# What the image is made of, a step a call, so that its layers are kept where nothing changed:
#   install.sh list cpu|cuda               prints the packages
#   install.sh packages PREFIX cpu|cuda    an environment with every package of requirements.txt
#   install.sh program PREFIX              this program into it
set -eu
cd "$(dirname "$0")/.."

CPU_WHEELS=https://download.pytorch.org/whl/cpu

# The lock holds torch with CUDA. For `cpu` the same releases come without, and what only they need stays out.
list() {
    case $1 in
    cuda) grep -v '^#' requirements.txt ;;
    cpu) sed -E '/^#/d; /^(nvidia-|cuda-|triton)/d; s/^(torch|torchvision)==([^ ;]+)/\1==\2+cpu/' requirements.txt ;;
    *) echo "TORCH is cpu or cuda, not '$1'" >&2 && exit 2 ;;
    esac
}

packages() {
    python3 -m venv "$1"
    list "$2" >"$1/packages.txt"
    set -- "$1" "$([ "$2" = cpu ] && echo "--extra-index-url=$CPU_WHEELS" || echo --progress-bar=off)"
    "$1/bin/pip" install --no-cache-dir --disable-pip-version-check --no-deps "$2" --requirement "$1/packages.txt"
}

program() {
    "$1/bin/pip" install --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation .
    "$1/bin/a2lc" --help >/dev/null
}

case ${1-} in
list) list "$2" ;;
packages) packages "$2" "$3" ;;
program) program "$2" ;;
*) sed -n '2,5p' "$0" && exit 2 ;;
esac
