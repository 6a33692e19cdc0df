#!/bin/sh
# Stands in for the entry point of the image gitea: it writes the GITEA__database__KEY variables into app.ini, once, as the image's
# environment-to-ini does at each start, and starts the web server. The image's SSH server is
# not here. Gitea is built from its module; templates, options and public come from there too, without the built front end.
set -eu
: "${USER_UID:?}" "${USER_GID:?}" "${GITEA__database__DB_TYPE:?}" "${GITEA__database__HOST:?}" "${GITEA__database__NAME:?}" "${GITEA__database__USER:?}" "${GITEA__database__PASSWD:?}"
[ "$(id -u git):$(id -g git)" = "$USER_UID:$USER_GID" ] || { echo "this stand-in knows git as 1000:1000 only" >&2; exit 1; }
mkdir -p /data/git/repositories /data/gitea/conf
ini=/data/gitea/conf/app.ini
if [ ! -e "$ini" ]; then
	cat >"$ini.part" <<END
APP_NAME = Gitea
RUN_MODE = prod
WORK_PATH = /data/gitea
[server]
APP_DATA_PATH = /data/gitea
DISABLE_SSH = true
HTTP_PORT = 3000
STATIC_ROOT_PATH = /opt/gitea
OFFLINE_MODE = true
[repository]
ROOT = /data/git/repositories
[log]
ROOT_PATH = /data/gitea/log
MODE = console
LEVEL = Warn
[security]
INSTALL_LOCK = true
SECRET_KEY = $(/opt/gitea/gitea generate secret SECRET_KEY)
INTERNAL_TOKEN = $(/opt/gitea/gitea generate secret INTERNAL_TOKEN)
[cron.update_checker]
ENABLED = false
[database]
DB_TYPE = $GITEA__database__DB_TYPE
HOST = $GITEA__database__HOST
NAME = $GITEA__database__NAME
USER = $GITEA__database__USER
PASSWD = $GITEA__database__PASSWD
END
	mv "$ini.part" "$ini"
fi
chown -R git:git /data/git /data/gitea
chown git:git /data
exec gitea web
