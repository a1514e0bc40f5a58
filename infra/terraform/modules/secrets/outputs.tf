output "arns" {
  description = "Each secret by its short name: sealing-key, older-sealing-keys, database-role, smtp-url."
  value       = { for name, secret in aws_secretsmanager_secret.this : name => secret.arn }
}
