terraform {
  required_providers {
    tailscale = { source = "tailscale/tailscale" }
  }
}

locals {
  tags = ["tag:control", "tag:services", "tag:gpu", "tag:learning", "tag:server"]

  # Who reaches whom. What is not here is closed, also between machines of one tag. Ports are those that the compose files publish on
  # the tailnet's address, with the reason that is written there.
  acls = [
    { action = "accept", src = ["autogroup:admin"], dst = [for t in local.tags : "${t}:22,80,443"] },               # the owner: SSH and pages
    { action = "accept", src = ["autogroup:admin"], dst = ["tag:services:2222,22000,32400"] },                      # git, Syncthing, the players
    { action = "accept", src = ["tag:control"], dst = ["tag:gpu:11434"] },                                          # llm-runner asks the model at home
    { action = "accept", src = ["tag:control"], dst = ["tag:services:8888,3002,3001"] },                            # searches, traces, the pushes of its monitors
    { action = "accept", src = ["tag:gpu", "tag:learning"], dst = ["tag:services:3001"] },                          # the pushes of their monitors
    { action = "accept", src = ["tag:control"], dst = ["tag:services:443"] },                                       # the precheck reads Infisical
    { action = "accept", src = ["tag:learning"], dst = ["tag:control:443"] },                                       # Prometheus reads llm-runner
    { action = "accept", src = ["tag:learning"], dst = ["tag:control:9100", "tag:services:9100", "tag:gpu:9100"] }, # Prometheus reads the node exporters
    { action = "accept", src = ["tag:control"], dst = ["tag:learning:22"] },                                        # the drill
    { action = "accept", src = ["tag:control", "tag:services"], dst = ["tag:services:22000"], proto = "tcp" },      # the vault on the VPS
  ]

  # Tailscale refuses a policy that breaks one of these. They are what must stay true whatever rules come.
  tests = [
    { src = "tag:control", accept = ["tag:services:8888", "tag:gpu:11434", "tag:learning:22"], deny = ["tag:services:22", "tag:gpu:22", "tag:services:3000"] },
    { src = "tag:services", deny = ["tag:control:22", "tag:gpu:11434", "tag:learning:22"] },
    { src = "tag:gpu", accept = ["tag:services:3001"], deny = ["tag:control:22", "tag:services:22", "tag:services:8888"] },
    { src = "tag:learning", accept = ["tag:services:9100"], deny = ["tag:control:22", "tag:services:22", "tag:services:8888", "tag:gpu:11434"] },
    { src = "tag:server", deny = ["tag:control:22", "tag:services:8888", "tag:gpu:11434"] },
  ]

  policy = jsonencode({
    tagOwners = { for t in local.tags : t => ["autogroup:admin"] }
    acls      = local.acls
    tests     = local.tests
    ssh = [
      { action = "check", src = ["autogroup:admin"], dst = local.tags, users = ["autogroup:nonroot", "root"], checkPeriod = "12h" },
    ]
    nodeAttrs = []
  })
}

resource "tailscale_acl" "this" {
  acl                        = local.policy
  overwrite_existing_content = false # import the policy that is there: terraform import module.tailnet.tailscale_acl.this acl
  reset_acl_on_destroy       = false
}

resource "tailscale_tailnet_settings" "this" {
  devices_approval_on                         = true
  devices_auto_updates_on                     = false # updates come with the machines' own
  devices_key_duration_days                   = 90    # of people; a machine with a tag has none
  users_approval_on                           = true
  users_role_allowed_to_join_external_tailnet = "none"
}

# The provider logs in as an OAuth client, which does not expire; the keys that it mints do, at once. A key of a kind that lives for
# months is dead on the day that it is needed.
resource "tailscale_tailnet_key" "join" {
  for_each = var.joining

  description         = "${each.key} joins once"
  reusable            = false
  ephemeral           = false
  preauthorized       = true
  expiry              = 3600
  recreate_if_invalid = "never" # a used key stays used; the machine has joined
  tags                = each.value
}
