variable "name" {
  description = "The project's name."
  type        = string
  default     = "homelab"

  validation {
    condition     = can(regex("^[A-Za-z0-9][A-Za-z0-9._ -]*$", var.name))
    error_message = "The name begins with a letter or digit."
  }
}

variable "namespace" {
  description = "The number of the group or user that the project belongs to."
  type        = number

  validation {
    condition     = var.namespace > 0
    error_message = "The namespace is a number: the group's page shows it."
  }
}

variable "shared_runners" {
  description = "Whether GitLab's own runners work for the project. Jobs that apply want one of yours."
  type        = bool
  default     = true
}

variable "variables" {
  description = "Variables of pipelines, by name: whether they are for applying (then protected and hidden), and in which environment."
  type = map(object({
    apply = bool
    scope = optional(string, "*")
  }))
  default = {}
}

variable "secrets" {
  description = "Their values. GitLab masks a value only where it is one line of 8 or more characters without spaces."
  type        = map(string)
  default     = {}
  sensitive   = true

  validation {
    condition     = alltrue([for v in values(var.secrets) : can(regex("^[A-Za-z0-9@:.~+/=_-]{8,}$", v))])
    error_message = "A value that GitLab cannot mask is refused: one line, 8 or more of letters, digits and @ : . ~ + / = _ -. Encode others in base64."
  }
}

variable "schedules" {
  description = "What is started by the clock: cron by name. Pipelines find the name in SCHEDULE."
  type        = map(string)
  default = {
    watch = "*/30 * * * *" # looks at Uptime Kuma from outside, and tells Discord by itself
    drift = "20 5 * * *"   # plans, and tells where somebody changed something by hand
    drill = "0 2 * * 0"    # restores on the machine for learning, and compares
  }

  validation {
    condition     = alltrue([for c in values(var.schedules) : length(split(" ", c)) == 5])
    error_message = "A schedule has the five fields of cron."
  }
}

variable "timezone" {
  description = "The clock that schedules go by."
  type        = string
  default     = "Europe/Berlin"
}
