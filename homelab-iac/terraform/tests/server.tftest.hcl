# The server: small, and not wiped by a change.
mock_provider "contabo" {
  mock_resource "contabo_secret" {
    defaults = {
      id = "42"
    }
  }
}

variables {
  name    = "contabo"
  product = "V153"
  image   = "d64d5c6c-9dda-4e38-8174-0ee282474d8a"
  ssh_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExample example"
}

run "a_server" {
  module {
    source = "./modules/vps"
  }

  assert {
    condition     = startswith(contabo_instance.this.user_data, "#cloud-config\n") && length(contabo_instance.this.user_data) < 1024
    error_message = "cloud-init is tiny."
  }
  assert {
    condition     = yamldecode(contabo_instance.this.user_data).ssh_pwauth == false && yamldecode(contabo_instance.this.user_data).users[0].lock_passwd
    error_message = "Nobody logs in with a password."
  }
  assert {
    condition     = contabo_instance.this.ssh_keys == tolist([42])
    error_message = "The key is in the panel, too: a second way in."
  }
}

run "what_would_wipe_it_is_ignored" {
  module {
    source = "./modules/vps"
  }

  variables {
    image   = "00000000-9dda-4e38-8174-0ee282474d8a"
    ssh_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOther other"
    user    = "root"
  }

  assert {
    condition     = contabo_instance.this.image_id == "d64d5c6c-9dda-4e38-8174-0ee282474d8a" && contabo_instance.this.default_user == "admin" && strcontains(contabo_instance.this.user_data, "IExample")
    error_message = "Image, user and cloud-init stay as they were when the server was made."
  }
}

run "an_old_kind_of_key_is_refused" {
  command = plan

  module {
    source = "./modules/vps"
  }

  variables {
    ssh_key = "ssh-rsa AAAAB3NzaC1yc2E example"
  }

  expect_failures = [var.ssh_key]
}

run "an_image_by_name_is_refused" {
  command = plan

  module {
    source = "./modules/vps"
  }

  variables {
    image = "debian-12"
  }

  expect_failures = [var.image]
}
