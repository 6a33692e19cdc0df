# The tailnet: who reaches whom.
mock_provider "tailscale" {}

run "the_policy" {
  command = plan

  module {
    source = "./modules/tailnet"
  }

  assert {
    condition     = alltrue([for a in jsondecode(tailscale_acl.this.acl).acls : !contains(a.src, "*") && alltrue([for d in a.dst : !startswith(d, "*") && !endswith(d, ":*")])])
    error_message = "Nobody is everybody, nothing is everything, and ports are named."
  }
  assert {
    condition     = toset(flatten([for a in jsondecode(tailscale_acl.this.acl).acls : a.src if anytrue([for d in a.dst : startswith(d, "tag:services:8888")])])) == toset(["tag:control"])
    error_message = "Only the control plane reaches SearXNG."
  }
  assert {
    condition     = length(jsondecode(tailscale_acl.this.acl).tests) >= 5 && alltrue([for t in jsondecode(tailscale_acl.this.acl).tests : length(t.deny) > 0])
    error_message = "Each tag has a test that says what it must not reach."
  }
  assert {
    condition     = alltrue([for s in jsondecode(tailscale_acl.this.acl).ssh : s.action == "check"])
    error_message = "SSH over the tailnet asks a person."
  }
  assert {
    condition     = !tailscale_acl.this.overwrite_existing_content && !tailscale_acl.this.reset_acl_on_destroy
    error_message = "No policy is overwritten unseen."
  }
  assert {
    condition     = tailscale_tailnet_settings.this.devices_approval_on && length(tailscale_tailnet_key.join) == 0
    error_message = "Devices are approved, and no key lies about."
  }
}

run "a_key_for_one_machine" {
  command = plan

  module {
    source = "./modules/tailnet"
  }

  variables {
    joining = { contabo = ["tag:control"] }
  }

  assert {
    condition     = !tailscale_tailnet_key.join["contabo"].reusable && tailscale_tailnet_key.join["contabo"].expiry <= 3600 && length(tailscale_tailnet_key.join["contabo"].tags) > 0
    error_message = "The key works once, for an hour, for a tag."
  }
}

run "a_machine_without_a_tag_is_refused" {
  command = plan

  module {
    source = "./modules/tailnet"
  }

  variables {
    joining = { contabo = [] }
  }

  expect_failures = [var.joining]
}
