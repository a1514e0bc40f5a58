output "url" {
  description = "The control plane's address."
  value       = module.services.url
}

output "name" {
  description = "The deployment's name, for infra/bin."
  value       = var.name
}

output "region" {
  description = "The control plane's AWS region, for infra/bin."
  value       = "us-east-1"
}

output "cluster" {
  description = "The ECS cluster, for infra/bin."
  value       = module.services.cluster
}

output "task_network" {
  description = "Where one-off tasks run, for infra/bin."
  value       = jsonencode(module.services.task_network)
}

output "configuration" {
  description = "The variables of API and worker, also for a control plane that runs elsewhere. Holds no secret."
  value       = module.configuration.environment
}

output "toml" {
  description = "The same as a file, infra/docker/insforge.toml, for the day on which one server carries the control plane (docs/region-outage.md)."
  value       = module.configuration.toml
}

output "database" {
  description = "What a restored instance must have in common with this one (docs/restore-database.md)."
  value = {
    identifier        = module.database.identifier
    security_group_id = module.database.security_group_id
    subnet_group      = module.database.subnet_group
    parameter_group   = module.database.parameter_group
    kms_key_arn       = module.database.kms_key_arn
    copied_backups    = module.database_copy.backups_arn
    copy_kms_key_arn  = module.database_copy.kms_key_arn
  }
}

output "buckets" {
  description = "The buckets of objects."
  value       = [for region in local.objects : region.bucket]
}
