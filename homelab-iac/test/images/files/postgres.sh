#!/bin/sh
# Stands in for the entry point of the image postgres: a new cluster is made with the user, the password and the database that the
# environment names; one that is there is started. Debian's PostgreSQL 17.
set -eu
data=/var/lib/postgresql/data
mkdir -p "$data" /run/postgresql
chown postgres:postgres "$data" /run/postgresql
chmod 0700 "$data"
as() { setpriv --reuid=postgres --regid=postgres --init-groups "$@"; }
if [ ! -e "$data/whole" ]; then # also where making it was cut short
	find "$data" -mindepth 1 -delete
	word=$(mktemp)
	printf '%s\n' "$POSTGRES_PASSWORD" >"$word"
	chown postgres "$word"
	as initdb --pgdata="$data" --username="$POSTGRES_USER" --pwfile="$word" --auth-host=scram-sha-256 --auth-local=trust --encoding=UTF8 --locale=C.UTF-8 --no-sync >/dev/null
	rm "$word"
	echo "host all all all scram-sha-256" >>"$data/pg_hba.conf"
	as pg_ctl --pgdata="$data" --options="-c listen_addresses= -c jit=off" --wait --silent start
	[ "$POSTGRES_DB" = postgres ] || as createdb --username="$POSTGRES_USER" "$POSTGRES_DB"
	as pg_ctl --pgdata="$data" --wait --silent stop
	touch "$data/whole"
fi
exec setpriv --reuid=postgres --regid=postgres --init-groups postgres -D "$data" -c "listen_addresses=*" -c jit=off
