#!/bin/sh
# Compiles the lock files from pyproject.toml: scripts/lock.sh [words for `uv pip compile` …], e.g. --upgrade
# Pins that are still allowed stay as they are, unless --upgrade or --upgrade-package NAME is among the words.
set -eu
cd "$(dirname "$0")/.."

uv=uv
if ! command -v uv >/dev/null 2>&1; then
    uv=.task/uv/bin/uv
    [ -x "$uv" ] || { python3 -m venv .task/uv && .task/uv/bin/python -m pip install --quiet uv; }
fi

compile() {
    "$uv" pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header --quiet "$@"
}
compile --extra dev --output-file requirements.lock "$@"
# Parts of the one above: the images hold the versions that the tests ran with.
compile --constraint requirements.lock --output-file requirements-runtime.lock "$@"
compile --constraint requirements.lock --extra ray --output-file requirements-ray.lock "$@"
