output "toml" {
  description = "infra/docker/insforge.toml. Holds no secret."
  value       = module.configuration.toml
}

output "standby_profile" {
  description = "The instance profile of the server, if it is an EC2 instance."
  value       = module.identity.standby_profile
}

output "worker_policy_arns" {
  description = "The policies of the server's user, if it is somewhere else."
  value       = module.identity.worker_policy_arns
}

output "buckets" {
  description = "The buckets of objects."
  value       = [module.objects.bucket]
}
