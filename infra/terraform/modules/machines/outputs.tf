output "configuration" {
  description = "One entry of `ec2.regions`: what the worker launches machines of this region with."
  value = {
    region          = var.region
    aws_region      = data.aws_region.current.region
    subnets         = local.subnet_ids
    security_groups = [aws_security_group.machine.id]
    image           = var.image_id
    image_owner     = var.image_id == null ? var.image_owner : null
    image_name      = var.image_id == null ? var.image_name : null
    instance_types  = var.instance_types
  }
}

output "launch" {
  description = "The same region as the worker's permissions name it: an entry of `machines` of the module `identity`."
  value = {
    aws_region          = data.aws_region.current.region
    subnet_arns         = local.subnet_arns
    security_group_arns = [aws_security_group.machine.arn]
  }
}

output "peering" {
  description = "The machines' side of the module `peering`."
  value = {
    region            = var.region
    aws_region        = data.aws_region.current.region
    vpc_id            = module.network.vpc_id
    cidr              = var.cidr
    subnet_cidrs      = local.subnet_cidrs
    route_table_ids   = local.route_table_ids
    security_group_id = aws_security_group.machine.id
  }
}

output "addresses" {
  description = "The public addresses that machines in private subnets are seen under."
  value       = module.network.nat_addresses
}
