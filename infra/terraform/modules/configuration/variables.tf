variable "name" {
  description = "The deployment's name: `ec2.deployment`, the value of the tag insforge:managed on everything that the worker makes."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,30}[a-z0-9]$", var.name))
    error_message = "name must be 3 to 32 of a-z, 0-9 and -, beginning with a letter."
  }
}

variable "domain" {
  description = "The control plane's host name: issuer of authorizations, and where machines find us. Changing it later strands every machine."
  type        = string

  validation {
    condition     = can(regex("^([a-z0-9-]+\\.)+[a-z]{2,}$", var.domain))
    error_message = "domain must be a host name, such as api.example.com."
  }
}

variable "database" {
  description = "Where Postgres is; null where something else tells (infra/docker)."
  type = object({
    address = string
    port    = number
    name    = optional(string, "insforge")
    # The file in the server's image with the certificates that RDS is checked against.
    root_certificates = optional(string, "/usr/share/insforge/rds-ca.pem")
  })
  default = null
}

variable "access_host" {
  description = "Where users reach a project: {app_key}, {region} and {address_label} (the machine's private address, with - for .) are filled in."
  type        = string

  validation {
    condition     = can(regex("^https://", var.access_host))
    error_message = "access_host must begin with https://: keys of projects travel there."
  }
}

variable "instance_profile" {
  description = "Name of the machines' instance profile."
  type        = string
}

variable "hop_limit" {
  description = "How far the metadata service's answers travel: 2 reaches containers, 1 does not. The machines' role allows nothing unless you changed that, so neither gives anything away."
  type        = number
  default     = 2

  validation {
    condition     = contains([1, 2], var.hop_limit)
    error_message = "hop_limit must be 1 or 2."
  }
}

variable "machines" {
  description = "One entry per region, as the module `machines` puts it out (`configuration`)."
  type = list(object({
    region          = string
    aws_region      = string
    subnets         = list(string)
    security_groups = list(string)
    image           = optional(string)
    image_owner     = optional(string)
    image_name      = optional(string)
    instance_types  = map(list(string))
  }))

  validation {
    condition     = length(var.machines) > 0
    error_message = "machines must have at least one region."
  }

  validation {
    condition     = alltrue([for m in var.machines : (m.image != null) != (m.image_owner != null && m.image_name != null)])
    error_message = "each region needs image, or image_owner and image_name, and not both."
  }

  validation {
    condition     = alltrue([for m in var.machines : length(m.subnets) > 0 && length(m.security_groups) > 0])
    error_message = "each region needs at least one subnet and one security group."
  }
}

variable "buckets" {
  description = "One entry per region, as the module `objects` puts it out (`configuration`)."
  type = list(object({
    region     = string
    aws_region = string
    bucket     = string
  }))
}

variable "pool" {
  description = "Warm machines, per region and instance type: never fewer than floor, never more than ceiling."
  type = list(object({
    region        = string
    instance_type = string
    floor         = number
    ceiling       = number
  }))
  default = []

  validation {
    condition     = alltrue([for target in var.pool : target.floor >= 0 && target.floor <= target.ceiling])
    error_message = "pool: a floor may not be above its ceiling."
  }
}

variable "branches" {
  description = "Whether workers have a way to projects' Postgres (module `peering`). Without one no branch could be made, and the API refuses them at once."
  type        = bool
  default     = true
}

variable "orphans" {
  description = "What becomes of machines with our tag that no row of the database names: `terminate`, or `report` alone. Set `report` before the first worker starts on a restored database (docs/restore-database.md)."
  type        = string
  default     = "terminate"

  validation {
    condition     = contains(["terminate", "report"], var.orphans)
    error_message = "orphans must be terminate or report."
  }
}

variable "losses" {
  description = "What is thought of an AWS that does not list most machines of a region any more: `doubt`, and nothing is done; or `believe`, once you have seen that they are gone (docs/stuck-operation.md)."
  type        = string
  default     = "doubt"

  validation {
    condition     = contains(["doubt", "believe"], var.losses)
    error_message = "losses must be doubt or believe."
  }
}

variable "mail_from" {
  description = "Whom mails are from: InsForge <no-reply@example.com>."
  type        = string

  validation {
    condition     = can(regex("@", var.mail_from))
    error_message = "mail_from must hold a mail address."
  }
}

variable "log" {
  description = "What is logged, as tracing-subscriber writes filters; null is the default of the program."
  type        = string
  default     = null
}
