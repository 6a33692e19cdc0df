terraform {
  required_providers {
    contabo = { source = "contabo/contabo" }
  }
}

resource "contabo_secret" "ssh" {
  name  = "${var.name}-ssh"
  type  = "ssh"
  value = var.ssh_key
}

resource "contabo_instance" "this" {
  display_name = var.name
  product_id   = var.product
  region       = var.region
  period       = var.period
  image_id     = var.image
  default_user = var.user
  ssh_keys     = [tonumber(contabo_secret.ssh.id)]
  user_data    = local.cloud_init

  lifecycle {
    # The provider installs the server again - wipes it - IN PLACE when one of these changes, and a plan calls that an update.
    # prevent_destroy does not stop it. It also never reads three of them back, so that an adopted server would be wiped by the first
    # apply. To wipe on purpose: homelab precheck, then ansible/wipe.yml.
    ignore_changes  = [image_id, user_data, ssh_keys, root_password, default_user]
    prevent_destroy = true
  }
}

locals {
  # As little as possible: somebody to log in as, and Python for Ansible. Everything else is Ansible's.
  cloud_init = join("\n", ["#cloud-config", yamlencode({
    hostname          = var.name
    preserve_hostname = false
    ssh_pwauth        = false
    disable_root      = true
    users = [{
      name                = var.user
      shell               = "/bin/bash"
      sudo                = "ALL=(ALL) NOPASSWD:ALL"
      lock_passwd         = true
      ssh_authorized_keys = [var.ssh_key]
    }]
    packages = ["python3"]
  })])
}
