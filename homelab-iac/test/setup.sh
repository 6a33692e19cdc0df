#!/bin/bash
# setup.sh: installs on a fresh Debian what the lab and the playbooks need beside Go and Python: systemd-nspawn and the
# tools to make machines, restic, an S3 server and a tailnet built from pinned modules, and Ansible with its linters in a
# virtual environment of their own. Run again, it checks in a moment and changes nothing. Packages need root; the rest goes
# into ~/.cache/homelab. About eleven minutes cold, most of it for Gitea and the tailnet. `setup.sh lab` installs what a drill in a lab needs and no
# more: machines, storage, Ansible; about three minutes cold. At the end it makes what the lab's machines and containers are made from, so that no test
# has to.
set -euo pipefail

name=homelab-setup # for lib.sh
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=../../scripts/lib.sh
. "$here/../../scripts/lib.sh"

command -v go >/dev/null || { say "needs Go on the PATH: https://go.dev/doc/install" >&2; exit 1; }
extra=
command -v git >/dev/null || extra="$extra git"
command -v make >/dev/null || extra="$extra make"
command -v python3 >/dev/null || extra="$extra python3 python3-venv"
# shellcheck disable=SC2086 # a list of words
packages systemd-container mmdebstrap iproute2 util-linux openssh-client ca-certificates debian-archive-keyring rsync shellcheck busybox-static $extra
say "packages are there"

"$here/tools/setup.sh" "$@"
"$here/../ansible/setup.sh" >/dev/null
say "Ansible is there"
[ "${1:-}" != lab ] || exit 0
"$here/tools/tailnet/setup.sh"
"$here/terraform/setup.sh" >/dev/null
"$here/pipelines/setup.sh"
"$here/tools/gitea/setup.sh" >/dev/null
[ "$(id -u)" != 0 ] || (cd "$here/../.." && go run ./homelab-iac/test/labctl prepare)
