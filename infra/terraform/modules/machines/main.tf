# Where the machines of one region live. Terraform makes no machine: the worker does, with what this module puts out.
#
# Their network is their own: tenants' code runs on machines, and they reach the control plane over the Internet, like
# everybody else. The module `peering` leads the other way, for workers.

data "aws_region" "current" {}

locals {
  subnet_ids  = var.public_addresses ? aws_subnet.public[*].id : module.network.private_subnet_ids
  subnet_arns = var.public_addresses ? aws_subnet.public[*].arn : module.network.private_subnet_arns

  # Public subnets share one route table with what else is public here.
  subnet_cidrs    = var.public_addresses ? aws_subnet.public[*].cidr_block : module.network.private.subnet_cidrs
  route_table_ids = var.public_addresses ? { public = module.network.public_route_table_id } : module.network.private.route_table_ids
}

module "network" {
  source = "../network"

  name         = "${var.name}-machines"
  cidr         = var.cidr
  zones        = var.zones
  nat_per_zone = var.nat_per_zone
}

resource "aws_security_group" "machine" {
  name        = "${var.name}-machine"
  description = "Machines of projects"
  vpc_id      = module.network.vpc_id

  tags = { Name = "${var.name}-machine" }
}

# No rule lets a machine reach another one: being in the same group allows nothing by itself.

resource "aws_vpc_security_group_ingress_rule" "gateway" {
  count = var.gateway == null ? 0 : 1

  security_group_id            = aws_security_group.machine.id
  description                  = "Backend, from the gateway"
  ip_protocol                  = "tcp"
  from_port                    = 7130
  to_port                      = 7130
  referenced_security_group_id = module.gateway[0].security_group_id
}

resource "aws_vpc_security_group_ingress_rule" "backend" {
  for_each = toset(var.backend_sources)

  security_group_id = aws_security_group.machine.id
  description       = "Backend, from ${each.key}"
  ip_protocol       = "tcp"
  from_port         = 7130
  to_port           = 7130
  cidr_ipv4         = each.key
}

resource "aws_vpc_security_group_ingress_rule" "postgres" {
  for_each = toset(var.postgres_sources)

  security_group_id = aws_security_group.machine.id
  description       = "Postgres, from ${each.key}"
  ip_protocol       = "tcp"
  from_port         = 5432
  to_port           = 5432
  cidr_ipv4         = each.key
}

resource "aws_vpc_security_group_ingress_rule" "web" {
  for_each = var.web_on_machines ? toset(["80", "443"]) : toset([])

  security_group_id = aws_security_group.machine.id
  description       = "Web, from everybody"
  ip_protocol       = "tcp"
  from_port         = tonumber(each.key)
  to_port           = tonumber(each.key)
  cidr_ipv4         = "0.0.0.0/0"
}

# The agent calls the control plane, Docker pulls images, and tenants' functions call whom they like.
resource "aws_vpc_security_group_egress_rule" "all" {
  security_group_id = aws_security_group.machine.id
  description       = "Everywhere"
  ip_protocol       = "-1"
  cidr_ipv4         = "0.0.0.0/0"
}

# Public subnets of their own where machines have public addresses: a launch takes the subnet's setting, and what else
# lives in the network's public subnets must not get one.
resource "aws_subnet" "public" {
  count = var.public_addresses ? var.zones : 0

  vpc_id                  = module.network.vpc_id
  availability_zone       = module.network.zones[count.index]
  cidr_block              = cidrsubnet(cidrsubnet(var.cidr, 2, 3), 3, 4 + count.index)
  map_public_ip_on_launch = true

  tags = { Name = "${var.name}-machines-open-${module.network.zones[count.index]}" }
}

resource "aws_route_table_association" "public" {
  count = var.public_addresses ? var.zones : 0

  subnet_id      = aws_subnet.public[count.index].id
  route_table_id = module.network.public_route_table_id
}

# The worker asks for both at every launch, and its role cannot launch without. This is for what else is launched in
# the region, by hand or by Packer.
resource "aws_ec2_instance_metadata_defaults" "v2" {
  count = var.account_defaults ? 1 : 0

  http_tokens                 = "required"
  http_put_response_hop_limit = 2
}

resource "aws_ebs_encryption_by_default" "this" {
  count = var.account_defaults ? 1 : 0

  enabled = true
}

module "gateway" {
  source = "../gateway"
  count  = var.gateway == null ? 0 : 1

  name              = var.name
  region            = var.region
  domain            = var.gateway.domain
  zone_id           = var.gateway.zone_id
  vpc_id            = module.network.vpc_id
  public_subnet_ids = module.network.public_subnet_ids
  subnet_ids        = module.network.private_subnet_ids
  machines_cidr     = var.cidr
  machines_group_id = aws_security_group.machine.id
  tasks             = var.gateway.tasks
  cpu               = var.gateway.cpu
  memory            = var.gateway.memory
  emails            = var.emails

  deletion_protection = var.deletion_protection
}
