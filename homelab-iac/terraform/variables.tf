variable "region" {
  description = "Where the buckets are, as AWS calls it."
  type        = string
  default     = "eu-central-1"

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "The region is written like eu-central-1."
  }
}

variable "prefix" {
  description = "What the names of the buckets begin with. Names of buckets are taken once in the world: use your own."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{2,40}$", var.prefix))
    error_message = "The prefix has 3 to 41 lower-case letters, digits and dashes."
  }
}

variable "admin_role" {
  description = "ARN of the one role that may change what guards the buckets. Pipelines never have it; a person takes it on for an hour."
  type        = string

  validation {
    condition     = can(regex("^arn:aws:iam::[0-9]{12}:role/.+$", var.admin_role))
    error_message = "The role is an ARN like arn:aws:iam::123456789012:role/homelab-admin."
  }
}

variable "pgp_key" {
  description = "A PGP public key, base64 without armour. The secrets of the storage keys are encrypted for it, so that they are in no state. Empty: no access keys are made here."
  type        = string
  default     = ""

  validation {
    condition     = var.pgp_key == "" || can(base64decode(var.pgp_key)) || startswith(var.pgp_key, "keybase:")
    error_message = "Write what `gpg --export KEY | base64 --wrap 0` prints."
  }
}

variable "servers" {
  description = "The rented servers, by the name that the catalog and the inventory give them."
  type = map(object({
    product = string
    region  = optional(string, "EU")
    image   = string
    ssh_key = string
    user    = optional(string, "admin")
    tags    = list(string)
  }))
  default = {}
}

variable "tailnet" {
  description = "The tailnet; - is the one that the credentials belong to."
  type        = string
  default     = "-"
}

variable "joining" {
  description = "Machines that shall join the tailnet in the next hour: each gets a key that works once. Empty it again afterwards."
  type        = set(string)
  default     = []
}

variable "gitlab_api" {
  description = "GitLab's API."
  type        = string
  default     = "https://gitlab.com/api/v4/"

  validation {
    condition     = startswith(var.gitlab_api, "https://")
    error_message = "The API is reached by HTTPS only: it takes tokens."
  }
}

variable "gitlab_namespace" {
  description = "The number of the group or user that the project belongs to."
  type        = number
}

variable "ci_variables" {
  description = "Variables of pipelines, by name. Those for planning may only read, and pipelines of merge requests get them; those for applying are protected."
  type = map(object({
    apply = bool
    scope = optional(string, "*")
  }))
  default = {}

  validation {
    condition     = alltrue([for name, v in var.ci_variables : startswith(name, v.apply ? "APPLY_" : "PLAN_")])
    error_message = "Names begin with APPLY_ where apply is true, and with PLAN_ where it is not, so that nobody takes one for the other."
  }
}

variable "ci_secrets" {
  description = "The values of ci_variables, by name. They come from Infisical: TF_VAR_ci_secrets."
  type        = map(string)
  default     = {}
  sensitive   = true
}

variable "libvirt_uri" {
  description = "The machine at home that runs virtual machines."
  type        = string
  default     = "qemu+ssh://root@hypervisor.home.arpa/system"

  validation {
    condition     = startswith(var.libvirt_uri, "qemu")
    error_message = "The address begins with qemu, like qemu+ssh://root@hypervisor/system."
  }
}

variable "learning_ssh_key" {
  description = "The public SSH key that gets into the machine on which restores are proved."
  type        = string

  validation {
    condition     = can(regex("^(ssh-ed25519|ecdsa-sha2-nistp[0-9]+|sk-ssh-ed25519@openssh.com) [A-Za-z0-9+/=]+", var.learning_ssh_key))
    error_message = "Write one line of a public key, ssh-ed25519 AAAA... (RSA and DSA are not taken)."
  }
}

variable "learning_image" {
  description = "A Debian cloud image for that machine: a file or an HTTPS address."
  type        = string
  default     = "https://cloud.debian.org/images/cloud/trixie/latest/debian-13-genericcloud-amd64.qcow2"

  validation {
    condition     = startswith(var.learning_image, "https://") || startswith(var.learning_image, "/")
    error_message = "The image is an absolute path or an https:// address."
  }
}
