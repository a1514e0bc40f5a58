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

variable "machine_image" {
  description = "The machines' image (what Packer printed). Null takes the newest of this account."
  type        = string
  default     = null
}

variable "pool" {
  description = "Warm machines per region and instance type. They cost what machines cost; without them a project takes minutes."
  type = list(object({
    region        = string
    instance_type = string
    floor         = number
    ceiling       = number
  }))
  default = [{ region = "us-east", instance_type = "nano", floor = 1, ceiling = 5 }]
}

variable "server" {
  description = "Where the server is, if it is an EC2 instance in a network of this account and region: its worker then reaches projects' Postgres, which branches need. The range and the route table are those of its subnet. Null: no branches."
  type = object({
    vpc_id         = string
    subnet_cidr    = string
    route_table_id = string
  })
  default = null

  validation {
    condition     = var.server == null ? true : can(regex("^vpc-[0-9a-f]+$", var.server.vpc_id)) && can(regex("^rtb-[0-9a-f]+$", var.server.route_table_id))
    error_message = "server must be like { vpc_id = \"vpc-…\", subnet_cidr = \"10.1.2.0/24\", route_table_id = \"rtb-…\" }."
  }
}

variable "mail_from" {
  description = "Whom mails are from: InsForge <no-reply@example.com>."
  type        = string
}

variable "emails" {
  description = "Operators who are told of alarms."
  type        = list(string)

  validation {
    condition     = length(var.emails) > 0
    error_message = "emails must have at least one address: an alarm that nobody hears is none."
  }
}

variable "sessions_on_machines" {
  description = "Let operators open a shell on machines. On while something is looked into, else off."
  type        = bool
  default     = false
}

variable "deletion_protection" {
  description = "Refuse to delete the gateway's load balancer. False for a teardown."
  type        = bool
  default     = true
}
