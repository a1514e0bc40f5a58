variable "name" {
  description = "The deployment's name; the bucket's begins with it."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,22}[a-z0-9]$", var.name))
    error_message = "name must be 3 to 24 of a-z, 0-9 and -, beginning with a letter: bucket names end at 63 characters."
  }
}

variable "region" {
  description = "Our name of the region: us-east, us-west, ap-southeast or eu-central."
  type        = string

  validation {
    condition     = contains(["us-east", "us-west", "ap-southeast", "eu-central"], var.region)
    error_message = "region must be us-east, us-west, ap-southeast or eu-central."
  }
}

variable "undelete_days" {
  description = "How long what was deleted or overwritten can be brought back. Then it is gone, and no longer paid for."
  type        = number
  default     = 7

  validation {
    condition     = var.undelete_days >= 1 && var.undelete_days <= 90
    error_message = "undelete_days must be 1 to 90."
  }
}

variable "expiring_prefixes" {
  description = "Objects that end by themselves: key prefix to days. Snapshots that a person asked for do not."
  type        = map(number)
  default     = { "snapshots/scheduled/" = 35 }

  validation {
    condition     = alltrue([for prefix, days in var.expiring_prefixes : endswith(prefix, "/") && days >= 1])
    error_message = "expiring_prefixes must name prefixes that end in /, each with at least one day."
  }
}
