variable "name" {
  description = "The deployment's name."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,30}[a-z0-9]$", var.name))
    error_message = "name must be 3 to 32 of a-z, 0-9 and -, beginning with a letter."
  }
}

variable "emails" {
  description = "Who is told of alarms. Each gets a mail from AWS first, and hears nothing until its link is followed."
  type        = list(string)

  validation {
    condition     = alltrue([for email in var.emails : can(regex("^[^@ ]+@[^@ ]+\\.[^@ ]+$", email))])
    error_message = "emails must be mail addresses."
  }
}

variable "cluster" {
  description = "The ECS cluster."
  type        = string
}

variable "api_tasks" {
  description = "How many API tasks must run."
  type        = number
}

variable "worker_tasks" {
  description = "How many worker tasks must run."
  type        = number
}

variable "load_balancer" {
  description = "The API's load balancer, as metrics name it."
  type        = string
}

variable "target_group" {
  description = "The API's target group, as metrics name it."
  type        = string
}

variable "log_groups" {
  description = "Log groups of API and worker: keys api and worker."
  type        = map(string)
}

variable "metrics_namespace" {
  description = "Where the worker's metrics are."
  type        = string
}

variable "database" {
  description = "The database instance: its identifier, and how many GiB of its disk must be free."
  type = object({
    identifier    = string
    min_free_gib  = optional(number, 4)
    min_free_mib  = optional(number, 512)
    max_latency_s = optional(number, 0.02)
  })
}

variable "running" {
  description = "False while API and worker are stopped on purpose: alarms are kept, and tell nobody."
  type        = bool
  default     = true
}

variable "monthly_budget_usd" {
  description = "What the account should cost in a month; a mail is sent when it does, and when it will. 0 for none. Machines are launched by a program, so watch the bill."
  type        = number
  default     = 0

  validation {
    condition     = var.monthly_budget_usd >= 0
    error_message = "monthly_budget_usd may not be negative."
  }
}
