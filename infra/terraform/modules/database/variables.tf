variable "name" {
  description = "The deployment's name; the instance's identifier begins with it."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,30}[a-z0-9]$", var.name)) && !strcontains(var.name, "--")
    error_message = "name must be 3 to 32 of a-z, 0-9 and -, beginning with a letter; RDS takes no two hyphens in a row."
  }
}

variable "vpc_id" {
  description = "The network."
  type        = string
}

variable "subnet_ids" {
  description = "Subnets in two zones or more, without a way to the Internet."
  type        = list(string)

  validation {
    condition     = length(var.subnet_ids) >= 2
    error_message = "subnet_ids must name at least two subnets: the standby lives in another zone."
  }
}

variable "clients" {
  description = "Security groups that may connect, by a name of your choice."
  type        = map(string)
}

variable "engine_version" {
  description = "Major version of Postgres. RDS keeps the minor one up to date in the maintenance window."
  type        = string
  default     = "17"

  validation {
    condition     = can(regex("^[0-9]+$", var.engine_version)) && tonumber(var.engine_version) >= 15
    error_message = "engine_version must be a major version, 15 or newer: the schema uses what 15 brought."
  }
}

variable "instance_class" {
  description = "Size of the instance, and of its standby."
  type        = string
  default     = "db.m7g.large"

  validation {
    condition     = can(regex("^db\\.[a-z0-9]+\\.[a-z0-9]+$", var.instance_class))
    error_message = "instance_class must be like db.m7g.large."
  }
}

variable "storage_gib" {
  description = "Disk to begin with, in GiB."
  type        = number
  default     = 50

  validation {
    condition     = var.storage_gib >= 20 && var.storage_gib <= 65536
    error_message = "storage_gib must be 20 to 65536."
  }
}

variable "max_storage_gib" {
  description = "How far RDS may grow the disk by itself, in GiB. It never shrinks again."
  type        = number
  default     = 500

  validation {
    condition     = var.max_storage_gib >= 22 && var.max_storage_gib <= 65536
    error_message = "max_storage_gib must be 22 to 65536, and a tenth above storage_gib at least."
  }
}

variable "backup_days" {
  description = "How far back the database can be restored to any second. 35 is the most that RDS keeps."
  type        = number
  default     = 35

  validation {
    condition     = var.backup_days >= 7 && var.backup_days <= 35
    error_message = "backup_days must be 7 to 35."
  }
}

variable "multi_az" {
  description = "A standby in another zone, which takes over within a minute or two. Without it the loss of a host is a restore."
  type        = bool
  default     = true
}

variable "deletion_protection" {
  description = "Refuse to delete the instance. Only a teardown sets this to false."
  type        = bool
  default     = true
}

variable "log_days" {
  description = "How long Postgres's log is kept."
  type        = number
  default     = 30

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 180, 365], var.log_days)
    error_message = "log_days must be one of 1, 3, 5, 7, 14, 30, 60, 90, 180, 365: CloudWatch takes no others."
  }
}

variable "allow_major_version_upgrade" {
  description = "Let engine_version go to a new major version. For that one apply."
  type        = bool
  default     = false
}

variable "apply_immediately" {
  description = "Make changes at once and not in the maintenance window. Some of them restart the database."
  type        = bool
  default     = false
}
