#!/bin/sh
# Writes the secrets that compose.yaml mounts, fresh and random, into ./secrets (or the folder that is given):
#
#   sh docker/make_secrets.sh [FOLDER]
#
# It refuses to change any that exists. Compose shows files as they are, owner and mode included, and the containers' users are not
# yours: run as root each file belongs to the one user that reads it; run by anybody else the files may be read by all who can
# enter the folder, which only you can, and the services say so in a warning.
set -eu
umask 077
folder=${1:-secrets}
mkdir -p "$folder"
for name in cache_secret redis_password redis_users grafana_password; do
    [ ! -e "$folder/$name" ] || { echo "$folder/$name exists already" >&2; exit 1; }
done
random() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }

# keep NAME OWNER: what comes in, for that user inside a container.
keep() {
    cat >"$folder/$1"
    if [ "$(id -u)" = 0 ]; then chown "$2" "$folder/$1" && chmod 400 "$folder/$1"; else chmod 444 "$folder/$1"; fi
}

password=$(random)
hash=$(printf %s "$password" | sha256sum | cut -d' ' -f1)
random | keep cache_secret 10001:10001
printf %s "$password" | keep redis_password 10001:10001
keep redis_users 999:999 <<USERS
user default on nopass resetkeys resetchannels -@all +ping
user vscan on #$hash ~vscan:* resetchannels -@all +mget +exists +unlink +set +eval +get +del +pexpire +pttl
USERS
random | keep grafana_password 472:0
