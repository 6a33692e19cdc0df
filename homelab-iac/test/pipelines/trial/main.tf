# A root module for trials of the pipelines: it needs no provider and rents nothing, and its state is in GitLab like the real one's.
terraform {
  required_version = ">= 1.9.0"

  backend "http" {}
}

variable "token" {
  description = "A secret that must be seen nowhere."
  type        = string
  sensitive   = true
}

variable "plain" {
  description = "A value that is no secret, and has no place in a summary either."
  type        = string
}

variable "size" {
  description = "Something to change."
  type        = number
  default     = 1
}

resource "terraform_data" "server" {
  input = "rented"
}

resource "terraform_data" "settings" {
  input = {
    size  = var.size
    plain = var.plain
    token = var.token
  }
}
