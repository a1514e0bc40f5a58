variable "name" {
  description = "The deployment's name."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,30}[a-z0-9]$", var.name))
    error_message = "name must be 3 to 32 of a-z, 0-9 and -, beginning with a letter."
  }
}

variable "workers" {
  description = "Where workers run, as the module `network` puts it out (`private`): subnets and their route tables, by any names."
  type = object({
    vpc_id          = string
    subnet_cidrs    = list(string)
    route_table_ids = map(string)
  })

  validation {
    condition = length(var.workers.subnet_cidrs) > 0 && alltrue([
      for cidr in var.workers.subnet_cidrs : can(cidrhost(cidr, 0)) && try(tonumber(split("/", cidr)[1]) >= 16, false)
    ])
    error_message = "workers.subnet_cidrs must be address ranges of /16 or smaller."
  }

  # Overlapping networks cannot be connected. The machines' is a /16, so whatever begins in it overlaps.
  validation {
    condition = alltrue([
      for cidr in var.workers.subnet_cidrs : try(cidrsubnet("${cidrhost(cidr, 0)}/16", 0, 0) != var.machines.cidr, false)
    ])
    error_message = "workers.subnet_cidrs may not be in the machines' range."
  }

  # A machine would look for such a worker among its own containers.
  validation {
    condition     = alltrue([for cidr in var.workers.subnet_cidrs : !can(regex("^172\\.(1[7-9]|2[0-9]|30)\\.", cidr))])
    error_message = "workers.subnet_cidrs may not be in 172.17.0.0 to 172.30.255.255: Docker's networks on machines are there."
  }
}

variable "machines" {
  description = "Where machines of one region are, as the module `machines` puts it out (`peering`)."
  type = object({
    region            = string
    aws_region        = string
    vpc_id            = string
    cidr              = string
    subnet_cidrs      = list(string)
    route_table_ids   = map(string)
    security_group_id = string
  })
}
