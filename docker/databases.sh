#!/bin/sh
# A database and a user for each of the two programs; run once by PostgreSQL's image, when its volume is empty.
set -eu
make() { # name, file of the password
    psql --set=ON_ERROR_STOP=1 --set=name="$1" --set=password="$(cat "$2")" --username "${POSTGRES_USER:-postgres}" <<'SQL'
CREATE USER :"name" PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
REVOKE CONNECT ON DATABASE :"name" FROM PUBLIC;
SQL
}
make label_studio "${SECRETS:-/run/secrets}/label_studio_database_password"
make a2lc "${SECRETS:-/run/secrets}/backend_database_password"
