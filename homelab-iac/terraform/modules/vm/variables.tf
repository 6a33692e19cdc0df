variable "name" {
  description = "The machine's name. A drill refuses one that is called like a machine that is backed up."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,30}$", var.name))
    error_message = "The name is a host name: lower-case letters, digits and dashes."
  }
}

variable "image" {
  description = "A cloud image: a file or an HTTPS address."
  type        = string
}

variable "ssh_key" {
  description = "The public SSH key of root."
  type        = string
}

variable "pool" {
  description = "libvirt's storage pool."
  type        = string
  default     = "default"
}

variable "bridge" {
  description = "The bridge of the host that leads to the LAN."
  type        = string
  default     = "br0"
}

variable "cpus" {
  description = "Virtual processors."
  type        = number
  default     = 2

  validation {
    condition     = var.cpus >= 1 && var.cpus <= 32
    error_message = "1 to 32 processors."
  }
}

variable "memory_mib" {
  description = "Memory in MiB."
  type        = number
  default     = 4096

  validation {
    condition     = var.memory_mib >= 1024
    error_message = "Less than 1024 MiB does not hold what is restored."
  }
}

variable "disk_gib" {
  description = "The disk in GiB: what is restored, twice, since what stood there is kept."
  type        = number
  default     = 100

  validation {
    condition     = var.disk_gib >= 10
    error_message = "Less than 10 GiB does not hold what is restored."
  }
}
