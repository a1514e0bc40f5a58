output "identifier" {
  description = "The instance's identifier, for commands and alarms."
  value       = aws_db_instance.this.identifier
}

output "arn" {
  description = "The instance, for copies in other regions."
  value       = aws_db_instance.this.arn
}

output "address" {
  description = "Its host name. It stays when the standby takes over."
  value       = aws_db_instance.this.address
}

output "port" {
  description = "Its port."
  value       = aws_db_instance.this.port
}

output "master_secret_arn" {
  description = "Where RDS keeps the master's name and password."
  value       = aws_db_instance.this.master_user_secret[0].secret_arn
}

output "security_group_id" {
  description = "The instance's security group, for a restored instance to have too."
  value       = aws_security_group.this.id
}

output "subnet_group" {
  description = "The instance's subnet group, for a restored instance to have too."
  value       = aws_db_subnet_group.this.name
}

output "parameter_group" {
  description = "The instance's parameters, for a restored instance to have too."
  value       = aws_db_parameter_group.this.name
}

output "kms_key_arn" {
  description = "The key that disk and backups are encrypted with."
  value       = aws_kms_key.this.arn
}
