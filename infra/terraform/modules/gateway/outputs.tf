output "security_group_id" {
  description = "The proxy's security group: whom machines let in."
  value       = aws_security_group.proxy.id
}

output "host" {
  description = "What projects' host names of this region end with."
  value       = local.host
}
