#!/bin/sh
# Makes .venv-lmms-eval: this project's base install beside lmms-eval, as who evaluates with it has them, and nothing of the
# services. TORCH_INDEX_URL as in make_venv.sh.
set -eu

folder=.venv-lmms-eval
"$(sh scripts/check_needs.sh --python)" -m venv --clear "$folder"
echo "Installing into $folder; this takes minutes ..."
set -- --quiet --progress-bar off --disable-pip-version-check
"$folder/bin/python" -m pip install "$@" ${TORCH_INDEX_URL:+--extra-index-url "$TORCH_INDEX_URL"} \
    --requirement tests/lmms_eval/requirements.txt --editable .
"$folder/bin/python" -m pip install "$@" --no-deps lmms-eval==0.7.3
touch "$folder/.installed"
