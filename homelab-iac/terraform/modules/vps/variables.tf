variable "name" {
  description = "The server's name: in Contabo's panel, in the catalog and in the inventory. A precheck token is made for this name."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,30}$", var.name))
    error_message = "The name is a host name: lower-case letters, digits and dashes."
  }
}

variable "product" {
  description = "What is rented, as Contabo calls it: V153."
  type        = string

  validation {
    condition     = can(regex("^V[0-9]+$", var.product))
    error_message = "The product is written like V153: see the list at api.contabo.com."
  }
}

variable "region" {
  description = "Where it stands."
  type        = string
  default     = "EU"

  validation {
    condition     = contains(["EU", "US-central", "US-east", "US-west", "SIN", "UK", "AUS", "JPN"], var.region)
    error_message = "Contabo has EU, US-central, US-east, US-west, SIN, UK, AUS and JPN."
  }
}

variable "period" {
  description = "Months of the contract."
  type        = number
  default     = 1

  validation {
    condition     = contains([1, 3, 6, 12], var.period)
    error_message = "Contracts last 1, 3, 6 or 12 months."
  }
}

variable "image" {
  description = "The image that the server is installed with once. Later changes are ignored: they would wipe it."
  type        = string

  validation {
    condition     = can(regex("^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", var.image))
    error_message = "The image is a UUID: cntb get images lists them."
  }
}

variable "ssh_key" {
  description = "The public SSH key of the person who makes the server."
  type        = string

  validation {
    condition     = can(regex("^(ssh-ed25519|ecdsa-sha2-nistp[0-9]+|sk-ssh-ed25519@openssh.com) [A-Za-z0-9+/=]+", var.ssh_key))
    error_message = "Write one line of a public key, ssh-ed25519 AAAA... (RSA and DSA are not taken)."
  }
}

variable "user" {
  description = "Who logs in first."
  type        = string
  default     = "admin"

  validation {
    condition     = contains(["admin", "root"], var.user)
    error_message = "Contabo makes admin or root."
  }
}
