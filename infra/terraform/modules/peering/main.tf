# The way from workers to projects' Postgres in one region of machines: branches are copied and merged by it.
#
# It leads one way. Tenants' code runs on machines, so their routes lead to the workers' subnets alone, where no security
# group lets in an address range (scripts/check-infra looks after that): what machines send there gets in as an answer, and
# as nothing else. The control plane's database and load balancer are in other subnets, with no route from here or back.

locals {
  # A route in each table to each subnet of the other side.
  to_machines = {
    for pair in setproduct(keys(var.workers.route_table_ids), var.machines.subnet_cidrs) :
    join(" ", pair) => { table = var.workers.route_table_ids[pair[0]], cidr = pair[1] }
  }
  to_workers = {
    for pair in setproduct(keys(var.machines.route_table_ids), var.workers.subnet_cidrs) :
    join(" ", pair) => { table = var.machines.route_table_ids[pair[0]], cidr = pair[1] }
  }

  # Within one region both sides are one thing to AWS, and have the same tags.
  tags = { Name = "${var.name}-workers-${var.machines.region}" }
}

resource "aws_vpc_peering_connection" "this" {
  vpc_id      = var.workers.vpc_id
  peer_vpc_id = var.machines.vpc_id
  peer_region = var.machines.aws_region

  tags = local.tags
}

# In the machines' region, which may be another one: nobody but that side can accept it then.
resource "aws_vpc_peering_connection_accepter" "this" {
  provider = aws.machines

  vpc_peering_connection_id = aws_vpc_peering_connection.this.id
  auto_accept               = true

  tags = local.tags
}

# Routes take the accepter's id, so that they are made once the connection is accepted.
resource "aws_route" "to_machines" {
  for_each = local.to_machines

  route_table_id            = each.value.table
  destination_cidr_block    = each.value.cidr
  vpc_peering_connection_id = aws_vpc_peering_connection_accepter.this.id
}

resource "aws_route" "to_workers" {
  provider = aws.machines
  for_each = local.to_workers

  route_table_id            = each.value.table
  destination_cidr_block    = each.value.cidr
  vpc_peering_connection_id = aws_vpc_peering_connection_accepter.this.id
}

# Ranges and not the tasks' security group: that cannot be named from another region.
resource "aws_vpc_security_group_ingress_rule" "postgres" {
  provider = aws.machines
  for_each = toset(var.workers.subnet_cidrs)

  security_group_id = var.machines.security_group_id
  description       = "Postgres, from workers in ${each.key}"
  ip_protocol       = "tcp"
  from_port         = 5432
  to_port           = 5432
  cidr_ipv4         = each.key
}
