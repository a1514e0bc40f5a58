output "environment" {
  description = "The variables of API, worker and operator. Holds no secret."
  value       = local.environment
}

output "toml" {
  description = "The same as a file, for a control plane on one server (infra/docker/insforge.toml). Holds no secret."
  value       = local.toml
}
