#!/bin/sh
# Prints the two secrets that every overlay needs, with fresh random values, as YAML:
#
#   sh k8s/make_secrets.sh | kubectl create -f -
#
# `create`, not `apply`: it refuses to change those that exist. NAMESPACE is where they go, `vscan` if unset.
#
# vscan-cache   secret      both services sign entries of the cache with it
# vscan-redis   password    the services' at Redis; users.acl, who may do what there, with its SHA-256 and no more
set -eu
namespace=${NAMESPACE:-vscan}
random() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }
sha256() { if command -v sha256sum >/dev/null; then sha256sum; else shasum -a 256; fi | cut -d' ' -f1; }

secret=$(random)
password=$(random)
hash=$(printf %s "$password" | sha256)
# A pipe's middle may fail unseen, and Redis would not start with what came of it.
[ "${#secret}-${#password}-${#hash}" = 64-64-64 ] || { echo 'needs od, tr, cut, and sha256sum or shasum' >&2; exit 1; }
cat <<EOF
apiVersion: v1
kind: Secret
metadata:
  name: vscan-cache
  namespace: $namespace
type: Opaque
stringData:
  secret: $secret
---
apiVersion: v1
kind: Secret
metadata:
  name: vscan-redis
  namespace: $namespace
type: Opaque
stringData:
  password: $password
  users.acl: |
    user default on nopass resetkeys resetchannels -@all +ping
    user vscan on #$hash ~vscan:* resetchannels -@all +mget +exists +unlink +set +eval +get +del +pexpire +pttl
EOF
