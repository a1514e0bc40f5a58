variable "name" {
  description = "What everything here is called, and begins with."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,30}[a-z0-9]$", var.name))
    error_message = "name must be 3 to 32 of a-z, 0-9 and -, beginning with a letter."
  }
}

variable "cidr" {
  description = "Address range of the network, a /16. Three quarters of it are for private subnets."
  type        = string

  validation {
    condition     = can(regex("^(10|172|192)\\..*\\.0\\.0/16$", var.cidr)) && can(cidrhost(var.cidr, 0))
    error_message = "cidr must be a private /16, such as 10.0.0.0/16."
  }
}

variable "zones" {
  description = "In how many availability zones, 2 or 3. One that fails then takes no more than its share."
  type        = number
  default     = 3

  validation {
    condition     = contains([2, 3], var.zones)
    error_message = "zones must be 2 or 3: load balancers and RDS need two, and the address plan has room for three."
  }
}

variable "nat_per_zone" {
  description = "A NAT gateway per zone. With one for all, its zone's failure cuts the others off from the Internet too; each costs about 35 USD a month and traffic between zones."
  type        = bool
  default     = true
}

variable "flow_log_days" {
  description = "How long refused connections are kept in a log group; 0 logs none."
  type        = number
  default     = 14

  validation {
    condition     = contains([0, 1, 3, 5, 7, 14, 30, 60, 90, 180, 365], var.flow_log_days)
    error_message = "flow_log_days must be one of 0, 1, 3, 5, 7, 14, 30, 60, 90, 180, 365: CloudWatch takes no others."
  }
}

variable "databases" {
  description = "Make subnets for databases too."
  type        = bool
  default     = false
}
