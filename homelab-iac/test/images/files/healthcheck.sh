#!/bin/sh
# Where the image uptime-kuma has its own.
exec wget -qO- http://127.0.0.1:3001/ >/dev/null
