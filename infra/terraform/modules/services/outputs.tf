output "url" {
  description = "The control plane's address."
  value       = "https://${var.domain}"
}

output "cluster" {
  description = "The ECS cluster, for infra/bin/task."
  value       = aws_ecs_cluster.this.name
}

output "tasks_security_group_id" {
  description = "The tasks' security group: who may reach the database."
  value       = aws_security_group.tasks.id
}

output "log_groups" {
  description = "Log groups by what writes to them."
  value       = { for name, group in aws_cloudwatch_log_group.this : name => group.name }
}

output "metrics_namespace" {
  description = "Where the worker's metrics are in CloudWatch."
  value       = "InsForge/${var.name}"
}

output "load_balancer" {
  description = "The load balancer, as metrics name it."
  value       = aws_lb.this.arn_suffix
}

output "target_group" {
  description = "The API's target group, as metrics name it."
  value       = aws_lb_target_group.api.arn_suffix
}

output "task_network" {
  description = "Where one-off tasks are run, as `aws ecs run-task` wants it."
  value = {
    awsvpcConfiguration = {
      subnets        = var.subnet_ids
      securityGroups = [aws_security_group.tasks.id]
      assignPublicIp = "DISABLED"
    }
  }
}
