#!/bin/sh
# Label Studio reads its secrets from the environment alone; this puts them there from their files, for its own process.
set -eu
secrets=${SECRETS:-/run/secrets}
POSTGRE_PASSWORD=$(cat "$secrets/label_studio_database_password")
LABEL_STUDIO_PASSWORD=$(cat "$secrets/label_studio_password")
LABEL_STUDIO_USER_TOKEN=$(cat "$secrets/label_studio_api_key")
export POSTGRE_PASSWORD LABEL_STUDIO_PASSWORD LABEL_STUDIO_USER_TOKEN
exec "$@"
