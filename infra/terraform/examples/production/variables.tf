variable "account_id" {
  description = "The AWS account. An apply with the credentials of another one stops before it does anything."
  type        = string

  validation {
    condition     = can(regex("^[0-9]{12}$", var.account_id))
    error_message = "account_id must have 12 digits."
  }
}

variable "name" {
  description = "The deployment's name. Two deployments in one account need two names: by its name the worker knows its machines."
  type        = string
  default     = "insforge"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,20}[a-z0-9]$", var.name)) && !strcontains(var.name, "--")
    error_message = "name must be 3 to 22 of a-z, 0-9 and single hyphens, beginning with a letter."
  }
}

variable "domain" {
  description = "The control plane's host name, such as api.example.com. Machines call it and tokens name it: it cannot be changed later."
  type        = string

  validation {
    condition     = can(regex("^([a-z0-9-]+\\.)+[a-z]{2,}$", var.domain))
    error_message = "domain must be a host name, such as api.example.com."
  }
}

variable "zone_id" {
  description = "The Route 53 zone that domain is in."
  type        = string

  validation {
    condition     = can(regex("^Z[A-Z0-9]{4,31}$", var.zone_id))
    error_message = "zone_id must be the id of a Route 53 zone, such as Z0123456789ABCDEFGHIJ."
  }
}

variable "apps_domain" {
  description = "What projects' host names end with, such as example-apps.com. Not a part of the control plane's own name: tenants' pages could set cookies for what they have in common."
  type        = string

  validation {
    condition     = can(regex("^([a-z0-9-]+\\.)+[a-z]{2,}$", var.apps_domain))
    error_message = "apps_domain must be a host name, such as example-apps.com."
  }

  validation {
    condition     = !endswith(var.domain, ".${var.apps_domain}") && var.domain != var.apps_domain
    error_message = "apps_domain may not hold the control plane's own name."
  }
}

variable "apps_zone_id" {
  description = "The Route 53 zone that apps_domain is in."
  type        = string

  validation {
    condition     = can(regex("^Z[A-Z0-9]{4,31}$", var.apps_zone_id))
    error_message = "apps_zone_id must be the id of a Route 53 zone, such as Z0123456789ABCDEFGHIJ."
  }
}

variable "repository" {
  description = "Name of the ECR repository of the server's image."
  type        = string
  default     = "insforge-cloud"

  validation {
    condition     = can(regex("^[a-z0-9]+([._/-][a-z0-9]+)*$", var.repository))
    error_message = "repository must be the name of an ECR repository, without the registry."
  }
}

variable "image_digest" {
  description = "Which image API and worker run: sha256:…"
  type        = string

  validation {
    condition     = can(regex("^sha256:[0-9a-f]{64}$", var.image_digest))
    error_message = "image_digest must be like sha256:… with 64 hex digits: a tag could mean something else tomorrow."
  }
}

variable "task_image_digest" {
  description = "Which image one-off tasks run, in an upgrade alone: the new one, until its migrations have run. Null: the same."
  type        = string
  default     = null

  validation {
    condition     = var.task_image_digest == null ? true : can(regex("^sha256:[0-9a-f]{64}$", var.task_image_digest))
    error_message = "task_image_digest must be like sha256:… with 64 hex digits."
  }
}

variable "machine_images" {
  description = "The machines' image in each of our regions (what Packer printed). A region that is not named takes the newest of this account as soon as there is one."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for id in values(var.machine_images) : can(regex("^ami-[0-9a-f]{8,17}$", id))])
    error_message = "machine_images must be like { us-east = \"ami-0123456789abcdef0\" }."
  }
}

variable "cidrs" {
  description = "Address ranges of the networks: the control plane's, and the machines' of each region. Each is a private /16 of its own, as long as the network lives: another range would be another network, and AWS would have to empty the old one first."
  type = object({
    control_plane = optional(string, "10.0.0.0/16")
    us_east       = optional(string, "10.64.0.0/16")
    us_west       = optional(string, "10.65.0.0/16")
  })
  default = {}

  validation {
    condition     = length(distinct(values(var.cidrs))) == length(var.cidrs)
    error_message = "cidrs must all differ: networks with the same addresses cannot be connected."
  }
}

variable "branches" {
  description = "Whether projects can have branches. Workers then reach the machines' Postgres by a peering connection to each region's network; without it the API refuses branches."
  type        = bool
  default     = true
}

variable "pool" {
  description = "Warm machines per region and instance type. They cost what machines cost; without them a project takes minutes."
  type = list(object({
    region        = string
    instance_type = string
    floor         = number
    ceiling       = number
  }))
  default = [
    { region = "us-east", instance_type = "nano", floor = 2, ceiling = 20 },
    { region = "us-west", instance_type = "nano", floor = 1, ceiling = 10 },
  ]
}

variable "running" {
  description = "Whether API and worker run. False for the first apply and while a database is restored."
  type        = bool
  default     = true
}

variable "worker_running" {
  description = "Whether the worker runs beside the API."
  type        = bool
  default     = true
}

variable "orphans" {
  description = "What becomes of machines that no row of the database names: terminate, or report alone (docs/restore-database.md)."
  type        = string
  default     = "terminate"

  validation {
    condition     = contains(["terminate", "report"], var.orphans)
    error_message = "orphans must be terminate or report."
  }
}

variable "losses" {
  description = "Whether it is believed when most machines of a region are gone: doubt, or believe (docs/stuck-operation.md)."
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
}

variable "mail" {
  description = "Whether the secret <name>/smtp-url holds a mail server yet."
  type        = bool
  default     = false
}

variable "emails" {
  description = "Operators who are told of alarms."
  type        = list(string)

  validation {
    condition     = length(var.emails) > 0
    error_message = "emails must have at least one address: an alarm that nobody hears is none."
  }
}

variable "monthly_budget_usd" {
  description = "What the account should cost in a month; 0 watches nothing."
  type        = number
  default     = 2000
}

variable "database_class" {
  description = "Size of the database."
  type        = string
  default     = "db.m7g.large"
}

variable "sessions_on_machines" {
  description = "Let operators open a shell on machines. On while something is looked into, else off."
  type        = bool
  default     = false
}

variable "deletion_protection" {
  description = "Refuse to delete the database and the load balancers. False for a teardown."
  type        = bool
  default     = true
}
