#!/bin/sh
# build.sh: static programs for each platform, what is in them (SBOM), and one image for all, from scratch. The same commit makes the same
# digest. On main the image is pushed to the project's registry by digest; elsewhere it is only made.
#   PLATFORMS        "linux/amd64,linux/arm64"
#   IMAGE            its name; default: CI_REGISTRY_IMAGE/llm-runner
#   REGISTRY_FLAGS   --plain-http, for a registry of one's own
# It leaves dist/: the programs, sbom/, digest, and image.env with RUNNER_IMAGE=NAME@sha256:... for the job that deploys.
set -eu
cd "$(dirname "$0")/../.."
platforms=${PLATFORMS:-linux/amd64,linux/arm64}
image=${IMAGE:-${CI_REGISTRY_IMAGE:-localhost/llm-runner}/llm-runner}
commit=${CI_COMMIT_SHA:-$(git rev-parse HEAD)}
version=${CI_COMMIT_TAG:-$(printf %.12s "$commit")}
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct "$commit")
export SOURCE_DATE_EPOCH

rm -rf dist
mkdir -p dist/sbom dist/tmp dist/data
certificates=${CERTIFICATES:-/etc/ssl/certs/ca-certificates.crt}
cp "$certificates" dist/ca-certificates.crt
for platform in $(echo "$platforms" | tr , ' '); do
	os=${platform%/*} arch=${platform#*/}
	program=dist/llm-runner-$os-$arch
	echo "building $program"
	# timetzdata: an image from scratch has no time zones of its own.
	GOOS=$os GOARCH=$arch CGO_ENABLED=0 go build -trimpath -buildvcs=false -tags timetzdata -ldflags "-s -w -X main.version=$version" -o "$program" ./llm-runner
	bin/homelab image sbom "$program" --version "$version" >"dist/sbom/llm-runner-$os-$arch.cdx.json"
done

set -- dist --dockerfile llm-runner/Dockerfile --platforms "$platforms" --args "REVISION=$commit,VERSION=$version"
if [ -n "${CI_COMMIT_BRANCH:-}" ] && [ "${CI_COMMIT_BRANCH:-}" = "${CI_DEFAULT_BRANCH:-main}" ]; then
	# shellcheck disable=SC2086 # flags
	bin/homelab image build "$@" --push "$image" --tag "$version,main" ${REGISTRY_FLAGS:-} >dist/digest
	echo "RUNNER_IMAGE=$(cat dist/digest)" >dist/image.env
else
	bin/homelab image build "$@" >dist/digest
	echo "RUNNER_IMAGE=" >dist/image.env # nothing to deploy
fi
cat dist/digest
