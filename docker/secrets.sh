#!/bin/sh
# Makes a random secret for each that is not there yet, in the folder `secrets` (or the one that is named).
set -eu
folder=${1:-secrets}
umask 077
mkdir -p "$folder"
cd "$folder"
random() { od -An -N "$1" -tx1 /dev/urandom | tr -d ' \n'; }
keep() { # name, value where there is none yet
    [ -s "$1" ] || printf '%s' "$2" >"$1"
}
keep postgres_password "$(random 24)"
keep label_studio_database_password "$(random 24)"
keep backend_database_password "$(random 24)"
keep redis_password "$(random 24)"
keep label_studio_password "$(random 12)"
keep label_studio_api_key "$(random 20)"
keep a2lc_basic_auth_password "$(random 24)"
keep a2lc_webhook_secret "$(random 24)"
keep a2lc_database_url "postgresql://a2lc:$(cat backend_database_password)@postgres/a2lc"
keep a2lc_redis_url "redis://:$(cat redis_password)@redis:6379/0"
# The folder is closed to others; in the containers each file is read by a user of theirs.
chmod 644 ./*
echo "secrets are in $(pwd); the first account of Label Studio has the password in label_studio_password"
