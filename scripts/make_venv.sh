#!/bin/sh
# Makes .venv with the services, the SDK and the tools to test them, at the versions in constraints.txt.
#
# TORCH_INDEX_URL, if set, is one more index for pip, for instance one that carries CPU builds of torch: a local version
# label (2.13.0+cpu) counts as newer than the plain release, so its build is taken.
set -eu

PYTHON_IS_RIGHT='import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 12) else 1)'

python=$(sh scripts/check_needs.sh --python)
if ! .venv/bin/python -c "$PYTHON_IS_RIGHT" >/dev/null 2>&1; then
    echo "Making .venv with $("$python" --version) ..."
    "$python" -m venv --clear .venv
fi
echo 'Installing into .venv; the first time this takes minutes ...'
.venv/bin/python -m pip install --no-compile --quiet --progress-bar off --disable-pip-version-check \
    ${TORCH_INDEX_URL:+--extra-index-url "$TORCH_INDEX_URL"} \
    --constraint constraints.txt --editable '.[serve,dev]'
# On all cores, where pip takes one. Some packages carry files that are no Python of this version.
.venv/bin/python -m compileall -qq -j 0 .venv/lib/python*/site-packages || true
touch .venv/.installed
