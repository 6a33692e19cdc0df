#!/bin/sh
# deploy.sh: has the machine deploy RUNNER_IMAGE (NAME@sha256:...), and once it has proved healthy there, gives it the tag "deployed" in the
# registry. The machine checks its health and goes back by itself: homelab deploy --help.
#   DEPLOY_SSH_KEY      a file (a protected CI variable of type file): the key that may ask for deployments and nothing else
#   DEPLOY_KNOWN_HOSTS  a file with the machine's host key
#   DEPLOY_HOST         default root@contabo, in the tailnet
set -eu
cd "$(dirname "$0")/../.."
: "${RUNNER_IMAGE:?there is no image to deploy: runner:build leaves its name}"
: "${DEPLOY_SSH_KEY:?the key is missing: make a protected CI variable of type file}"
: "${DEPLOY_KNOWN_HOSTS:?the host key is missing: ssh-keyscan the machine once, by hand, and compare}"
key=$(mktemp)
trap 'rm -f "$key"' EXIT
cat "$DEPLOY_SSH_KEY" >"$key" # ssh refuses a key that others may read, and one without a last line break
echo >>"$key"
ssh -i "$key" -o IdentitiesOnly=yes -o BatchMode=yes -o ConnectTimeout=20 -o StrictHostKeyChecking=yes \
	-o UserKnownHostsFile="$DEPLOY_KNOWN_HOSTS" "${DEPLOY_HOST:-root@contabo}" homelab deploy llm-runner "$RUNNER_IMAGE"
# shellcheck disable=SC2086 # flags
bin/homelab image tag "$RUNNER_IMAGE" deployed ${REGISTRY_FLAGS:-}
