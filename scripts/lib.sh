# lib.sh: what the set-up scripts share. Sourced, not run; $name is who speaks.
# shellcheck shell=bash disable=SC2154

say() { echo "$name: $*"; }

# again COMMAND...: three tries, for what the network refuses once in a while.
again() {
    for pause in 5 15 0; do
        if "$@"; then return 0; fi
        [ "$pause" = 0 ] && break
        say "\"$1 $2\" did not work; next try in $pause s"
        sleep "$pause"
    done
    say "gave up: $*" >&2
    return 1
}

# packages NAME...: installs the Debian packages that are missing.
packages() {
    missing=
    for package in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" != 0 ]; then
        say "these are missing; install them as root: apt-get install$missing" >&2
        return 1
    fi
    say "installing$missing"
    again timeout 300 apt-get update -qq
    # shellcheck disable=SC2086 # a list of words
    again timeout 900 env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
}
