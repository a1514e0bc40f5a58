output "backups_arn" {
  description = "The copied backups, as `aws rds restore-db-instance-to-point-in-time` wants them."
  value       = aws_db_instance_automated_backups_replication.this.id
}

output "kms_key_arn" {
  description = "The key that they are encrypted with here."
  value       = aws_kms_key.this.arn
}
