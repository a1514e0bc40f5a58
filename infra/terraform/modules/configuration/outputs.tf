output "environment" {
  description = "The variables of API, worker and operator. Holds no secret."
  value       = local.environment
}
