#!/bin/sh
# Are the pinned versions known to be vulnerable? With OSV_EXPORT, a folder of advisories as osv.dev exports them, that is asked; else
# pip-audit asks PyPI's database, or with AUDIT_SERVICE=osv that of osv.dev. --strict: a package that the database cannot be asked
# about fails the audit, where pip-audit would say that nothing is known against it.
set -eu
cd "$(dirname "$0")/.."
BIN=${BIN:-.venv/bin}
if [ -n "${OSV_EXPORT:-}" ]; then
    exec "$BIN/python" -m scripts.osv "$OSV_EXPORT"
fi
command -v pip-audit >/dev/null || { echo 'pip-audit is not installed: pip install pip-audit, or set OSV_EXPORT' >&2; exit 2; }
exec pip-audit --strict --no-deps --disable-pip --vulnerability-service "${AUDIT_SERVICE:-pypi}" --requirement constraints.txt
