# The machine for learning.
mock_provider "libvirt" {}

variables {
  name    = "dev-learning"
  image   = "/srv/images/debian-13.qcow2"
  ssh_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExample example"
}

run "a_machine" {
  module {
    source = "./modules/vm"
  }

  assert {
    condition     = libvirt_volume.root.size == 100 * 1024 * 1024 * 1024 && libvirt_domain.this.disk[0].volume_id == libvirt_volume.root.id
    error_message = "It has a disk that holds what is restored, twice."
  }
  assert {
    condition     = libvirt_domain.this.autostart && libvirt_domain.this.running
    error_message = "It runs, also after its host was off."
  }
  assert {
    condition     = yamldecode(libvirt_cloudinit_disk.this.user_data).ssh_pwauth == false && yamldecode(libvirt_cloudinit_disk.this.user_data).users[0].ssh_authorized_keys == [var.ssh_key]
    error_message = "Only the key gets in."
  }
}

run "a_machine_that_is_too_small_is_refused" {
  command = plan

  module {
    source = "./modules/vm"
  }

  variables {
    memory_mib = 512
    disk_gib   = 5
  }

  expect_failures = [var.memory_mib, var.disk_gib]
}
