variable "name" {
  description = "The deployment's name: the value of the tag insforge:managed, and what names of roles begin with."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,30}[a-z0-9]$", var.name))
    error_message = "name must be 3 to 32 of a-z, 0-9 and -, beginning with a letter."
  }
}

variable "machines" {
  description = "Where the worker may launch: one entry per region, as the module `machines` puts it out."
  type = list(object({
    aws_region          = string
    subnet_arns         = list(string)
    security_group_arns = list(string)
  }))

  validation {
    condition     = length(distinct([for region in var.machines : region.aws_region])) == length(var.machines)
    error_message = "machines must name each region once."
  }
}

variable "image_owners" {
  description = "Accounts whose images machines may boot from; empty means this account alone."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for owner in var.image_owners : can(regex("^[0-9]{12}$", owner))])
    error_message = "image_owners must be account numbers of 12 digits."
  }
}

variable "bucket_arns" {
  description = "The buckets of the worker."
  type        = list(string)
}

variable "tasks" {
  description = "Make the roles of ECS tasks, too. False where the control plane runs on one server (infra/docker); then the three variables below are not needed."
  type        = bool
  default     = true
}

variable "repository_arn" {
  description = "The ECR repository of the server's image."
  type        = string
  default     = null

  validation {
    condition     = !var.tasks || var.repository_arn != null
    error_message = "repository_arn must be given, unless tasks is false."
  }
}

variable "secret_arns" {
  description = "What API, worker and operator need to start: the secrets of the module `secrets`."
  type        = list(string)
  default     = []

  validation {
    condition     = !var.tasks || length(var.secret_arns) > 0
    error_message = "secret_arns must be given, unless tasks is false."
  }
}

variable "master_secret_arn" {
  description = "The database master's secret. Only the task that makes database roles reads it."
  type        = string
  default     = null

  validation {
    condition     = !var.tasks || var.master_secret_arn != null
    error_message = "master_secret_arn must be given, unless tasks is false."
  }
}

variable "sessions_on_machines" {
  description = "Let operators open a shell on machines through Session Manager. What runs on a machine gets the same credentials, which allow it to speak for that machine and no other."
  type        = bool
  default     = false
}
