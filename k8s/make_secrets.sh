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

secret=$(random)
password=$(random)
hash=$(printf %s "$password" | sha256sum | cut -d' ' -f1)
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
