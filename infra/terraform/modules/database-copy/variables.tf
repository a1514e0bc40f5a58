variable "name" {
  description = "The deployment's name."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,30}[a-z0-9]$", var.name))
    error_message = "name must be 3 to 32 of a-z, 0-9 and -, beginning with a letter."
  }
}

variable "instance_arn" {
  description = "The database instance whose backups are copied here."
  type        = string

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:rds:", var.instance_arn))
    error_message = "instance_arn must be the ARN of an RDS instance."
  }
}

variable "backup_days" {
  description = "How far back the database can be restored here to any second."
  type        = number
  default     = 14

  validation {
    condition     = var.backup_days >= 1 && var.backup_days <= 35
    error_message = "backup_days must be 1 to 35."
  }
}
