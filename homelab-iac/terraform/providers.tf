# Credentials come from the environment only: AWS_*, CNTB_OAUTH2_*, GITLAB_TOKEN, TAILSCALE_OAUTH_CLIENT_ID and _SECRET. In pipelines of
# merge requests they are those that may only read.

provider "aws" {
  region = var.region
}

provider "contabo" {}

provider "gitlab" {
  base_url = var.gitlab_api
}

provider "libvirt" {
  uri = var.libvirt_uri
}

provider "tailscale" {
  tailnet = var.tailnet
  scopes  = ["auth_keys", "policy_file", "feature_settings"]
}
