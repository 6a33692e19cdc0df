# Works with Terraform 1.11 and OpenTofu 1.9, and later ones of the first major version.
terraform {
  required_version = ">= 1.9.0, < 2.0.0"

  # Pinned exactly: a provider that changes its mind about what an update does can wipe a server. A new version is a change like any
  # other, with a plan to read.
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "5.100.0"
    }
    contabo = {
      source  = "contabo/contabo"
      version = "0.1.32"
    }
    gitlab = {
      source  = "gitlabhq/gitlab"
      version = "18.0.0"
    }
    libvirt = {
      source  = "dmacvicar/libvirt"
      version = "0.8.3"
    }
    tailscale = {
      source  = "tailscale/tailscale"
      version = "0.21.1"
    }
  }

  # The state lies in GitLab. Address, lock and password come from the environment (TF_HTTP_ADDRESS and its like): what is given with
  # -backend-config is kept in the plan file, and an apply of that file could not lock.
  backend "http" {}
}
