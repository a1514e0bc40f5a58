variable "name" {
  description = "The deployment's name."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,20}[a-z0-9]$", var.name))
    error_message = "name must be 3 to 22 of a-z, 0-9 and -, beginning with a letter: load balancers' names end at 32."
  }
}

variable "region" {
  description = "Our name of the region: us-east, us-west, ap-southeast or eu-central."
  type        = string

  validation {
    condition     = contains(["us-east", "us-west", "ap-southeast", "eu-central"], var.region)
    error_message = "region must be us-east, us-west, ap-southeast or eu-central."
  }
}

variable "cidr" {
  description = "Address range of the machines' network, a /16 of its own. It has room for 49,000 machines."
  type        = string

  validation {
    condition     = can(regex("^(10|172|192)\\..*\\.0\\.0/16$", var.cidr)) && can(cidrhost(var.cidr, 0))
    error_message = "cidr must be a private /16, such as 10.64.0.0/16."
  }
}

variable "zones" {
  description = "In how many availability zones machines are launched, 2 or 3. Where one has no room, the next is tried."
  type        = number
  default     = 3

  validation {
    condition     = contains([2, 3], var.zones)
    error_message = "zones must be 2 or 3."
  }
}

variable "nat_per_zone" {
  description = "A NAT gateway per zone. With one for all, its zone's failure cuts all machines of the region off from the Internet and from the control plane; they go on serving their users."
  type        = bool
  default     = false
}

variable "image_id" {
  description = "The image that machines boot from. Null takes the newest one of image_owner whose name is like image_name: then a new image replaces the warm pool as soon as it is there."
  type        = string
  default     = null

  validation {
    condition     = var.image_id == null ? true : can(regex("^ami-[0-9a-f]{8,17}$", var.image_id))
    error_message = "image_id must be like ami-0123456789abcdef0."
  }
}

variable "image_owner" {
  description = "Whose image, where image_id is null: an account's number, or self."
  type        = string
  default     = "self"

  validation {
    condition     = can(regex("^(self|[0-9]{12})$", var.image_owner))
    error_message = "image_owner must be self or an account number of 12 digits."
  }
}

variable "image_name" {
  description = "Which of the owner's images, where image_id is null; * stands for any text."
  type        = string
  default     = "insforge-machine-*"
}

variable "instance_types" {
  description = "For each of our sizes the EC2 types that will do, best first: when a zone has none of the first, the next is tried. All must be of the image's architecture."
  type        = map(list(string))
  default = {
    "nano"   = ["t3.small", "t3a.small"]
    "micro"  = ["t3.medium", "t3a.medium"]
    "small"  = ["t3.large", "t3a.large", "m6i.large"]
    "medium" = ["m6i.xlarge", "m6a.xlarge", "m5.xlarge"]
    "large"  = ["m6i.2xlarge", "m6a.2xlarge", "m5.2xlarge"]
    "xl"     = ["m6i.4xlarge", "m6a.4xlarge", "m5.4xlarge"]
    "2xl"    = ["m6i.8xlarge", "m6a.8xlarge", "m5.8xlarge"]
    "4xl"    = ["m6i.12xlarge", "m6a.12xlarge", "m5.12xlarge"]
    "8xl"    = ["m6i.16xlarge", "m6a.16xlarge", "m5.16xlarge"]
    "16xl"   = ["m6i.24xlarge", "m6a.24xlarge", "m5.24xlarge"]
  }

  validation {
    condition = alltrue([
      for size in keys(var.instance_types) :
      contains(["nano", "micro", "small", "medium", "large", "xl", "2xl", "4xl", "8xl", "16xl"], size)
    ])
    error_message = "instance_types: the sizes are nano, micro, small, medium, large, xl, 2xl, 4xl, 8xl and 16xl."
  }

  validation {
    condition     = alltrue([for types in values(var.instance_types) : length(types) > 0])
    error_message = "instance_types: each size needs at least one EC2 type."
  }
}

variable "public_addresses" {
  description = "Give machines public addresses, for users who reach them without the gateway. Otherwise they are in private subnets, and nobody outside can open a connection to them whatever the rules say."
  type        = bool
  default     = false
}

variable "web_on_machines" {
  description = "Let everybody reach ports 80 and 443 of machines. Only where something on the machine ends TLS; behind the gateway nothing listens there."
  type        = bool
  default     = false

  validation {
    condition     = !var.web_on_machines || var.public_addresses
    error_message = "web_on_machines needs public_addresses."
  }
}

variable "backend_sources" {
  description = "Address ranges that may reach the backend's port (7130) beside the gateway. Plain HTTP: keep it to networks of your own."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for cidr in var.backend_sources : can(cidrhost(cidr, 0)) && !endswith(cidr, "/0")])
    error_message = "backend_sources must be address ranges, and not the whole Internet: the backend speaks plain HTTP."
  }
}

variable "postgres_sources" {
  description = "Address ranges that may reach projects' Postgres (5432): offices, a VPN. None by default; the workers' come with the module `peering`."
  type        = list(string)
  default     = []

  validation {
    condition = alltrue([
      for cidr in var.postgres_sources : can(cidrhost(cidr, 0)) && try(tonumber(split("/", cidr)[1]) >= 16, false)
    ])
    error_message = "postgres_sources must be address ranges of /16 or smaller: a database that the world can reach is guessed at all day."
  }
}

variable "account_defaults" {
  description = "Set this region's account-wide defaults too: metadata service v2 only, disks encrypted. False where the account is shared with something that cannot."
  type        = bool
  default     = true
}

variable "gateway" {
  description = "Load balancer and proxy through which users reach projects by name; null where you bring your own. zone_id: the Route 53 zone of domain."
  type = object({
    domain  = string
    zone_id = string
    tasks   = optional(number, 2)
    cpu     = optional(number, 512)
    memory  = optional(number, 1024)
  })
  default = null

  validation {
    condition     = var.gateway == null ? true : can(regex("^([a-z0-9-]+\\.)+[a-z]{2,}$", var.gateway.domain))
    error_message = "gateway.domain must be a host name, such as apps.example.com."
  }
}

variable "emails" {
  description = "Who is told of the gateway's alarms."
  type        = list(string)
  default     = []
}

variable "deletion_protection" {
  description = "Refuse to delete the gateway's load balancer. Only a teardown sets this to false."
  type        = bool
  default     = true
}
