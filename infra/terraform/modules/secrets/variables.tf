variable "name" {
  description = "The deployment's name; the secrets are called <name>/…."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,30}[a-z0-9]$", var.name))
    error_message = "name must be 3 to 32 of a-z, 0-9 and -, beginning with a letter."
  }
}

variable "replica_regions" {
  description = "AWS regions that get a copy. Without the sealing key a restored database is worthless, so it must outlive the region."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for region in var.replica_regions : can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", region))])
    error_message = "replica_regions must be AWS's names, such as us-west-2."
  }
}

variable "recovery_days" {
  description = "How long a deleted secret can be brought back; 0 deletes at once, for trials."
  type        = number
  default     = 30

  validation {
    condition     = var.recovery_days == 0 || (var.recovery_days >= 7 && var.recovery_days <= 30)
    error_message = "recovery_days must be 0, or 7 to 30."
  }
}
