variable "name" {
  description = "The bucket's name, of which there is one in the world."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$", var.name))
    error_message = "The name has 3 to 63 lower-case letters, digits and dashes; dots break certificates."
  }
}

variable "repository" {
  description = "The prefix in the bucket under which restic's repository lies."
  type        = string
  default     = "restic"

  validation {
    condition     = can(regex("^[a-z0-9-]+$", var.repository))
    error_message = "The prefix has lower-case letters, digits and dashes, and no slash."
  }
}

variable "lock_days" {
  description = "For how many days nobody but the administrator can delete a new object for good."
  type        = number

  validation {
    condition     = var.lock_days >= 14 && var.lock_days <= 90
    error_message = "The lock lasts 14 to 90 days: shorter leaves no time to notice a theft, longer makes a mistake expensive."
  }
}

variable "old_versions_days" {
  description = "For how many days what was deleted or overwritten is kept. Counted from the deletion."
  type        = number

  validation {
    condition     = var.old_versions_days >= 30
    error_message = "Old versions are kept for 30 days at least: they are what comes back after a theft."
  }
}

variable "cold" {
  description = "Whether packs move to Glacier Instant Retrieval."
  type        = bool
  default     = false
}

variable "admin_role" {
  description = "ARN of the one role that may change what guards the bucket."
  type        = string

  validation {
    condition     = can(regex("^arn:aws:iam::[0-9]{12}:role/.+$", var.admin_role)) && !strcontains(var.admin_role, "*")
    error_message = "The role is an ARN like arn:aws:iam::123456789012:role/homelab-admin, without *."
  }
}

variable "pgp_key" {
  description = "A PGP public key for the secrets of the access keys. Empty: no access keys are made here."
  type        = string
  default     = ""
}
