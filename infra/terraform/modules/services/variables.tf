variable "name" {
  description = "The deployment's name."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,20}[a-z0-9]$", var.name))
    error_message = "name must be 3 to 22 of a-z, 0-9 and -, beginning with a letter: load balancers' names end at 32."
  }
}

variable "domain" {
  description = "The control plane's host name."
  type        = string

  validation {
    condition     = can(regex("^([a-z0-9-]+\\.)+[a-z]{2,}$", var.domain))
    error_message = "domain must be a host name, such as api.example.com."
  }
}

variable "zone_id" {
  description = "The Route 53 zone that domain is in."
  type        = string
}

variable "vpc_id" {
  description = "The network."
  type        = string
}

variable "public_subnet_ids" {
  description = "Subnets for the load balancer."
  type        = list(string)
}

variable "subnet_ids" {
  description = "Subnets for the tasks."
  type        = list(string)
}

variable "image" {
  description = "The server's image that API and worker run, by digest: <repository>@sha256:…"
  type        = string

  validation {
    condition     = can(regex("@sha256:[0-9a-f]{64}$", var.image)) || can(regex(":[A-Za-z0-9_][A-Za-z0-9_.-]*$", var.image))
    error_message = "image must end in @sha256:… or in a tag."
  }

  validation {
    condition     = !endswith(var.image, ":latest")
    error_message = "image must not be :latest: a task that is replaced at night would run something new."
  }
}

variable "task_image" {
  description = "The image that one-off tasks run (migrate, operator). Another one than `image` for an upgrade alone, until the schema is up to date; null: the same."
  type        = string
  default     = null
}

variable "architecture" {
  description = "What the image was built for: X86_64 or ARM64."
  type        = string
  default     = "X86_64"

  validation {
    condition     = contains(["X86_64", "ARM64"], var.architecture)
    error_message = "architecture must be X86_64 or ARM64."
  }
}

variable "environment" {
  description = "The variables of the processes, as the module `configuration` puts them out."
  type        = map(string)
}

variable "secret_arns" {
  description = "The secrets, as the module `secrets` puts them out."
  type        = map(string)

  validation {
    condition = alltrue([
      for name in ["sealing-key", "older-sealing-keys", "database-role"] : contains(keys(var.secret_arns), name)
    ])
    error_message = "secret_arns must have sealing-key, older-sealing-keys and database-role."
  }
}

variable "mail" {
  description = "Whether the secret smtp-url holds a mail server. Without one, mails wait in the queue."
  type        = bool
  default     = false
}

variable "database" {
  description = "Where Postgres is, and where RDS keeps its master's password."
  type = object({
    address           = string
    port              = number
    master_secret_arn = string
  })
}

variable "roles" {
  description = "Roles, as the module `identity` puts them out."
  type = object({
    execution          = string
    execution_database = string
    api                = string
    worker             = string
    worker_name        = string
    operator           = string
  })
}

variable "running" {
  description = "Whether API and worker run. False for the first apply, when there are neither secrets nor a schema yet, and while a database is restored."
  type        = bool
  default     = true
}

variable "worker_running" {
  description = "Whether the worker runs, when `running` is true. False leaves an API that takes requests and queues the work: for looking around after a restore."
  type        = bool
  default     = true
}

variable "api" {
  description = "Size of the API: tasks at least, tasks at most, processor (1024 is a core) and memory (MiB) of each."
  type = object({
    min    = optional(number, 2)
    max    = optional(number, 10)
    cpu    = optional(number, 1024)
    memory = optional(number, 2048)
  })
  default = {}

  validation {
    condition     = var.api.min >= 1 && var.api.max >= var.api.min
    error_message = "api: min must be at least 1 and max no less."
  }
}

variable "worker" {
  description = "Size of the worker: tasks, processor (1024 is a core) and memory (MiB) of each. Two, so that one takes over when the other's zone fails."
  type = object({
    tasks  = optional(number, 2)
    cpu    = optional(number, 1024)
    memory = optional(number, 2048)
  })
  default = {}

  validation {
    condition     = var.worker.tasks >= 1
    error_message = "worker: tasks must be at least 1."
  }
}

variable "deletion_protection" {
  description = "Refuse to delete the load balancer. Only a teardown sets this to false."
  type        = bool
  default     = true
}

variable "log_days" {
  description = "How long logs are kept."
  type        = number
  default     = 90

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 180, 365], var.log_days)
    error_message = "log_days must be one of 1, 3, 5, 7, 14, 30, 60, 90, 180, 365: CloudWatch takes no others."
  }
}

variable "postgres_image" {
  description = "An image with psql, for the task that makes database roles and for looking into the database."
  type        = string
  default     = "public.ecr.aws/docker/library/postgres:17-alpine"
}

variable "collector_image" {
  description = "AWS's build of the OpenTelemetry collector, which carries the worker's metrics to CloudWatch."
  type        = string
  default     = "public.ecr.aws/aws-observability/aws-otel-collector:v0.43.3"
}
