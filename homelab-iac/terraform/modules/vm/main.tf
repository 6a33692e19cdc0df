terraform {
  required_providers {
    libvirt = { source = "dmacvicar/libvirt" }
  }
}

resource "libvirt_volume" "image" {
  name   = "${var.name}-image.qcow2"
  pool   = var.pool
  source = var.image
  format = "qcow2"
}

resource "libvirt_volume" "root" {
  name           = "${var.name}.qcow2"
  pool           = var.pool
  base_volume_id = libvirt_volume.image.id
  size           = var.disk_gib * 1024 * 1024 * 1024
  format         = "qcow2"
}

resource "libvirt_cloudinit_disk" "this" {
  name      = "${var.name}-init.iso"
  pool      = var.pool
  user_data = local.cloud_init
}

resource "libvirt_domain" "this" {
  name      = var.name
  memory    = var.memory_mib
  vcpu      = var.cpus
  autostart = true
  running   = true
  cloudinit = libvirt_cloudinit_disk.this.id

  cpu {
    mode = "host-passthrough"
  }

  disk {
    volume_id = libvirt_volume.root.id
  }

  network_interface {
    bridge         = var.bridge
    wait_for_lease = false
  }
}

locals {
  cloud_init = join("\n", ["#cloud-config", yamlencode({
    hostname     = var.name
    ssh_pwauth   = false
    disable_root = false
    users = [{
      name                = "root"
      ssh_authorized_keys = [var.ssh_key]
    }]
    packages = ["python3"]
    growpart = { mode = "auto", devices = ["/"] }
  })])
}
