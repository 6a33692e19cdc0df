# Everything together, as the example has it.
mock_provider "aws" {}
mock_provider "gitlab" {}
mock_provider "libvirt" {}
mock_provider "tailscale" {}

mock_provider "contabo" {
  mock_resource "contabo_secret" {
    defaults = {
      id = "42"
    }
  }
}

variables {
  prefix           = "example-homelab"
  admin_role       = "arn:aws:iam::123456789012:role/homelab-admin"
  gitlab_namespace = 12345
  learning_ssh_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExample example"
  joining          = ["contabo"]
  servers = {
    contabo = {
      product = "V153"
      image   = "d64d5c6c-9dda-4e38-8174-0ee282474d8a"
      ssh_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExample example"
      tags    = ["tag:control"]
    }
  }
}

run "the_example" {
  assert {
    condition     = toset(keys(output.repositories)) == toset(["fast", "slow"])
    error_message = "There are two repositories."
  }
  assert {
    condition     = output.servers != null && toset(keys(output.servers)) == toset(["contabo"])
    error_message = "There is one server."
  }
  assert {
    condition     = toset(keys(nonsensitive(output.join_keys))) == toset(["contabo"])
    error_message = "It joins the tailnet."
  }
}

run "no_server_is_a_homelab_too" {
  command = plan

  variables {
    servers = {}
    joining = []
  }

  assert {
    condition     = length(output.servers) == 0
    error_message = "Nothing is rented."
  }
}

run "a_name_that_says_the_wrong_thing_is_refused" {
  command = plan

  variables {
    ci_variables = { PLAN_ADMIN = { apply = true } }
    ci_secrets   = { PLAN_ADMIN = "a-value-that-is-long" }
  }

  expect_failures = [var.ci_variables]
}

run "a_bucket_name_in_capitals_is_refused" {
  command = plan

  variables {
    prefix = "Example"
  }

  expect_failures = [var.prefix]
}
