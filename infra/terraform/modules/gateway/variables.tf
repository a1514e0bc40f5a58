variable "name" {
  description = "The deployment's name."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,20}[a-z0-9]$", var.name))
    error_message = "name must be 3 to 22 of a-z, 0-9 and -, beginning with a letter: load balancers' names end at 32."
  }
}

variable "region" {
  description = "Our name of the region, the second part of projects' host names."
  type        = string

  validation {
    condition     = contains(["us-east", "us-west", "ap-southeast", "eu-central"], var.region)
    error_message = "region must be us-east, us-west, ap-southeast or eu-central."
  }
}

variable "domain" {
  description = "What projects' host names end with: projects of us-east are under *.us-east.<domain>. Give it a registrable name of its own, not a part of the control plane's: tenants' pages could set cookies for a common parent."
  type        = string

  validation {
    condition     = can(regex("^([a-z0-9-]+\\.)+[a-z]{2,}$", var.domain))
    error_message = "domain must be a host name, such as example-apps.com."
  }
}

variable "zone_id" {
  description = "The Route 53 zone that domain is in."
  type        = string
}

variable "vpc_id" {
  description = "The machines' network."
  type        = string
}

variable "public_subnet_ids" {
  description = "Subnets for the load balancer."
  type        = list(string)
}

variable "subnet_ids" {
  description = "Subnets for the proxy."
  type        = list(string)
}

variable "machines_cidr" {
  description = "The address range that machines live in, a /16. Host names with other addresses are answered 404."
  type        = string

  validation {
    condition     = can(regex("^[0-9]+\\.[0-9]+\\.0\\.0/16$", var.machines_cidr))
    error_message = "machines_cidr must be a /16, such as 10.64.0.0/16."
  }
}

variable "machines_group_id" {
  description = "The machines' security group, the only thing that the proxy may connect to on their port."
  type        = string
}

variable "image" {
  description = "An nginx image. Pin it to a digest to decide yourself when it changes."
  type        = string
  default     = "public.ecr.aws/nginx/nginx:1.28"
}

variable "tasks" {
  description = "How many proxies run at least; more are started when their processors are busy."
  type        = number
  default     = 2

  validation {
    condition     = var.tasks >= 1 && var.tasks <= 50
    error_message = "tasks must be 1 to 50."
  }
}

variable "cpu" {
  description = "Processor of one proxy, in units of which a core has 1024."
  type        = number
  default     = 512

  validation {
    condition     = contains([256, 512, 1024, 2048, 4096], var.cpu)
    error_message = "cpu must be 256, 512, 1024, 2048 or 4096: Fargate has no others here."
  }
}

variable "memory" {
  description = "Memory of one proxy, in MiB."
  type        = number
  default     = 1024

  validation {
    condition     = var.memory >= 512 && var.memory <= 30720
    error_message = "memory must be 512 to 30720, and fit to cpu as Fargate pairs them."
  }
}

variable "log_days" {
  description = "How long the proxy's log is kept. It has errors only; projects log their requests themselves."
  type        = number
  default     = 14

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 180, 365], var.log_days)
    error_message = "log_days must be one of 1, 3, 5, 7, 14, 30, 60, 90, 180, 365: CloudWatch takes no others."
  }
}

variable "emails" {
  description = "Who is told of the gateway's alarms. Each gets a mail from AWS first, and hears nothing until its link is followed."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for email in var.emails : can(regex("^[^@ ]+@[^@ ]+\\.[^@ ]+$", email))])
    error_message = "emails must be mail addresses."
  }
}

variable "deletion_protection" {
  description = "Refuse to delete the load balancer. Only a teardown sets this to false."
  type        = bool
  default     = true
}
