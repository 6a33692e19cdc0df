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
    # shellcheck disable=SC2086 # a list of words
    again apt_install $missing
}

# apt_install NAME...: both steps together, since what could not be fetched may be gone from the mirror, and another apt may be at work.
apt_install() {
    patient="apt-get -qq -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3"
    timeout 600 $patient update || say "the lists of packages are not new" >&2
    timeout 1500 env DEBIAN_FRONTEND=noninteractive $patient install -y --no-install-recommends "$@" >/dev/null
}
