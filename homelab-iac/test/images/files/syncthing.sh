#!/bin/sh
# Stands in for the entry point of the image syncthing: Debian's Syncthing with its files where the image has them.
set -eu
export HOME=/var/syncthing STHOMEDIR=/var/syncthing/config
exec syncthing serve --no-browser --no-restart --home="$STHOMEDIR" --gui-address="${STGUIADDRESS:-127.0.0.1:8384}"
