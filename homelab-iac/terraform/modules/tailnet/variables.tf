variable "joining" {
  description = "Machines that shall join in the next hour, with their tags. Each gets a key that works once."
  type        = map(list(string))
  default     = {}

  validation {
    condition     = alltrue([for tags in values(var.joining) : length(tags) > 0 && alltrue([for t in tags : startswith(t, "tag:")])])
    error_message = "Every machine has at least one tag, written tag:NAME: without one its key would end with that of its owner."
  }
}
