output "vpc_id" {
  description = "The network."
  value       = aws_vpc.this.id
}

output "cidr" {
  description = "Its address range."
  value       = aws_vpc.this.cidr_block
}

output "public_subnet_ids" {
  description = "One per zone, for load balancers."
  value       = [for zone in local.zones : aws_subnet.public[zone].id]
}

output "private_subnet_ids" {
  description = "One per zone, for what reaches out but is not reached."
  value       = [for zone in local.zones : aws_subnet.private[zone].id]
}

output "private_subnet_arns" {
  description = "The same, as IAM policies name them."
  value       = [for zone in local.zones : aws_subnet.private[zone].arn]
}

output "private" {
  description = "Private subnets as one side of the module `peering`."
  value = {
    vpc_id          = aws_vpc.this.id
    subnet_cidrs    = [for zone in local.zones : aws_subnet.private[zone].cidr_block]
    route_table_ids = { for zone, table in aws_route_table.private : zone => table.id }
  }
}

output "database_subnet_ids" {
  description = "One per zone, without a way to the Internet."
  value       = [for zone in local.zones : aws_subnet.database[zone].id if var.databases]
}

output "nat_addresses" {
  description = "The public addresses that private subnets are seen under."
  value       = [for zone in local.nats : aws_eip.nat[zone].public_ip]
}

output "zones" {
  description = "The availability zones, in the order of the subnets."
  value       = local.zones
}

output "public_route_table_id" {
  description = "The route table of public subnets."
  value       = aws_route_table.public.id
}
