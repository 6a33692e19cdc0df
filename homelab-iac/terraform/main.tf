# What is rented, and who may come in. Machines are made from nothing by Ansible; here is only what Ansible needs to find.

module "vps" {
  source   = "./modules/vps"
  for_each = var.servers

  name    = each.key
  product = each.value.product
  region  = each.value.region
  image   = each.value.image
  ssh_key = each.value.ssh_key
  user    = each.value.user
}

locals {
  # How long things are kept: homelab-iac/README.md, "Buckets". A pack that restic has pruned costs its 90 days of Instant Retrieval
  # anyway, so the slow bucket keeps old versions for 60 days at no price: pruned at about 28 days, a pack is then about 90 days old.
  buckets = {
    fast = { lock_days = 14, old_versions_days = 30, cold = false }
    slow = { lock_days = 30, old_versions_days = 60, cold = true }
  }
}

module "bucket" {
  source   = "./modules/backup_bucket"
  for_each = local.buckets

  name              = "${var.prefix}-${each.key}"
  repository        = "restic"
  lock_days         = each.value.lock_days
  old_versions_days = each.value.old_versions_days
  cold              = each.value.cold
  admin_role        = var.admin_role
  pgp_key           = var.pgp_key
}

module "tailnet" {
  source = "./modules/tailnet"

  joining = { for name in var.joining : name => lookup(local.machine_tags, name, ["tag:learning"]) }
}

locals {
  machine_tags = merge(
    { for name, s in var.servers : name => s.tags },
    { "prod-services" = ["tag:services"], "davas" = ["tag:gpu"], "dev-learning" = ["tag:learning"] },
  )
}

module "gitlab" {
  source = "./modules/gitlab_project"

  namespace = var.gitlab_namespace
  variables = var.ci_variables
  secrets   = var.ci_secrets
}

# The machine for learning is wiped at will: plan-check lets this module go (--expendable), and nothing else.
module "dev_learning" {
  source = "./modules/vm"

  name    = "dev-learning"
  image   = var.learning_image
  ssh_key = var.learning_ssh_key
}
