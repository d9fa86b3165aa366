#!/usr/bin/env bash
# Compiles the three lock files from pyproject.toml: make lock
set -euo pipefail
uv=$1
compile() { "$uv" pip compile --quiet --universal --python-version 3.10 --no-annotate --no-header --upgrade "$@"; }
write() { # file, head
    { printf '%s\n' "$2"; cat; } >"$1.new" && mv "$1.new" "$1"
}

compile pyproject.toml --extra ml | write requirements.txt \
"# Every package the program needs, pinned; compiled from pyproject.toml by \`make lock\`.
# Install it without resolving again: \`uv pip sync requirements.txt\` or \`pip install --no-deps -r requirements.txt\`.
# A resolver would follow label-studio-ml 1.0.9's own pins to Flask 1.1 and Werkzeug 2.0, which no longer get fixes;
# it runs on the versions below ([tool.uv] override-dependencies in pyproject.toml)."

compile --group dev --constraint requirements.txt | write requirements-dev.txt \
"# What \`make lint\` and \`make test\` need besides requirements.txt; compiled by \`make lock\`."

echo "label-studio==1.23.2" | compile - | write requirements-label-studio.txt \
"# Label Studio in an environment of its own: it pins older redis and rq than this program; compiled by \`make lock\`."
