#!/usr/bin/env bash
# Proves on a bare Debian that the needs are said, and that they are enough: `make venv` as an ordinary user on a system that has
# none of them must name them and download nothing; with just those installed, `make demo` and `make test` must pass.
#
#   sudo scripts/prove_minbase.sh [--suite bookworm] [--mirror URL] [--bind PATH]... [--until needs|venv|demo|test] [--keep]
#
#   --mirror URL  Debian mirror; default: the one this machine's apt uses
#   --bind PATH   a file or folder of this machine to show at the same place inside, read-only (pip's configuration, wheels,
#                 certificates, apt's configuration); may be repeated
#   --until STEP  stop after this step; default: test
#   --keep        leave the system in its folder and say where
#
# Variables named PIP_* and TORCH_INDEX_URL are passed on to the user inside. Needs root, mmdebstrap and unshare. Mounts and
# processes live in namespaces of their own and end with the script.
set -euo pipefail

suite=bookworm
mirror=''
until_step=test
keep=''
binds=()
arguments=("$@")
while [ $# -gt 0 ]; do
    case $1 in
    --suite) suite=$2; shift 2 ;;
    --mirror) mirror=$2; shift 2 ;;
    --bind) binds+=("$2"); shift 2 ;;
    --until) until_step=$2; shift 2 ;;
    --keep) keep=yes; shift ;;
    *) echo "unknown option: $1" >&2; exit 2 ;;
    esac
done
case $until_step in needs | venv | demo | test) ;; *) echo "no such step: $until_step" >&2; exit 2 ;; esac

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# The first run only makes the folder and the namespaces; the second one, inside them, does the work.
if [ -z "${MINBASE_ROOT:-}" ]; then
    [ "$(id -u)" = 0 ] || { echo 'needs root' >&2; exit 2; }
    for tool in mmdebstrap unshare git; do
        command -v "$tool" >/dev/null || { echo "needs $tool" >&2; exit 2; }
    done
    MINBASE_ROOT=$(mktemp -d "${TMPDIR:-/tmp}/minbase.XXXXXX")
    chmod 755 "$MINBASE_ROOT"  # it becomes `/` for an ordinary user
    export MINBASE_ROOT
    status=0
    unshare --mount --pid --fork --kill-child "${BASH_SOURCE[0]}" "${arguments[@]}" </dev/null || status=$?
    rm -f "$MINBASE_ROOT.log"
    if [ -n "$keep" ]; then echo "kept: $MINBASE_ROOT"; else rm -rf --one-file-system "$MINBASE_ROOT"; fi
    exit "$status"
fi

root=$MINBASE_ROOT
home=/home/newcomer
clone=$home/vscan-serve

say() { printf '\n== %s\n' "$*"; }
fail() { echo "NOT PROVED: $*" >&2; exit 1; }

apt_mirror() { apt-get indextargets --format '$(SITE)' "Codename: $suite" "Created-By: Packages" | head -n 1; }

make_system() {
    say "mmdebstrap --variant=minbase $suite"
    mmdebstrap --mode=root --variant=minbase --format=directory "$suite" "$root" "${mirror:-$(apt_mirror)}" >"$root.log" 2>&1 ||
        { tail -n 20 "$root.log" >&2; fail mmdebstrap; }
    mount -t proc proc "$root/proc"
    mkdir -p "$root/dev/shm" "$root/dev/pts"
    mount -t tmpfs tmpfs "$root/dev/shm"
    mount -t devpts devpts "$root/dev/pts"
    cp /etc/resolv.conf /etc/hosts "$root/etc/"
    for path in "${binds[@]}"; do bind "$path"; done
    chroot "$root" useradd --create-home --shell /bin/sh newcomer
    git clone --quiet --no-local "$repo" "$root$clone"
    chroot "$root" chown -R newcomer: "$clone"
}

bind() {
    if [ -d "$1" ]; then mkdir -p "$root$1"; else mkdir -p "$(dirname "$root$1")" && touch "$root$1"; fi
    mount --bind "$1" "$root$1"
    mount -o remount,bind,ro "$root$1"
}

as_root() { chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive "$@"; }

as_user() {
    local passed=()
    mapfile -t passed < <(env | grep -E '^(PIP_[A-Z_]+|TORCH_INDEX_URL)=')
    chroot --userspec=newcomer:newcomer "$root" \
        env -i HOME="$home" PATH=/usr/local/bin:/usr/bin:/bin "${passed[@]}" sh -c "cd $clone && $1"
}

# Runs a command that must fail and name its needs; installs exactly what it printed.
install_what_it_says() {
    local said
    if said=$(as_user "$1" 2>&1); then fail "'$1' passed on a bare system"; fi
    echo "$said"
    [ ! -e "$root$clone/.venv" ] || fail "'$1' began before it had its needs"
    [ ! -e "$root$home/.cache" ] || fail "'$1' downloaded something before it had its needs"
    local install
    install=$(sed -n 's/^All at once, as root: //p' <<<"$said")
    [ -n "$install" ] || fail "'$1' did not say what to install"
    as_root sh -c "$install" >"$root.log" 2>&1 || { tail -n 20 "$root.log" >&2; fail "$install"; }
}

prove_needs() {
    say 'a bare system: sh scripts/check_needs.sh'
    # make itself is among the needs, so `make venv` is tried with make alone installed.
    local said
    said=$(as_user 'sh scripts/check_needs.sh' 2>&1) && fail 'the check passed on a bare system'
    echo "$said"
    grep -q 'make: apt-get install -y make' <<<"$said" || fail 'the check did not say how to install make'
    as_root apt-get update -qq
    as_root apt-get install -y -qq make >/dev/null
    say 'with make alone: make venv'
    install_what_it_says 'make venv'
    say 'with what it said'
    as_user 'sh scripts/check_needs.sh' || fail 'what it said was not enough'
}

step() {
    say "$1"
    local begin=$SECONDS
    as_user "$1" || fail "$1"
    echo "$1: $((SECONDS - begin)) s"
}

make_system
prove_needs
[ "$until_step" = needs ] && exit 0
step 'make venv'
[ "$until_step" = venv ] && exit 0
step 'make demo'
[ "$until_step" = demo ] && exit 0
step 'make test'
say "PROVED on Debian $suite, minbase"
