output "execution_role_arn" {
  description = "Starts API, worker and operator."
  value       = one(aws_iam_role.execution[*].arn)
}

output "execution_database_role_arn" {
  description = "Starts the task that makes database roles."
  value       = one(aws_iam_role.execution_database[*].arn)
}

output "api_role_arn" {
  description = "What the API runs as."
  value       = one(aws_iam_role.api[*].arn)
}

output "worker_role_arn" {
  description = "What the worker runs as."
  value       = one(aws_iam_role.worker[*].arn)
}

output "worker_role_name" {
  description = "The same, for policies that other modules add."
  value       = one(aws_iam_role.worker[*].name)
}

output "operator_role_arn" {
  description = "What an operator's shell runs as."
  value       = one(aws_iam_role.operator[*].arn)
}

output "instance_profile" {
  description = "What machines are launched with: `ec2.instance_profile`."
  value       = aws_iam_instance_profile.machine.name
}

output "standby_profile" {
  description = "The instance profile of an EC2 instance that carries the control plane."
  value       = aws_iam_instance_profile.standby.name
}

output "worker_policy_arns" {
  description = "What a control plane outside of AWS must have: policies for its user."
  value       = [aws_iam_policy.machines.arn, aws_iam_policy.objects.arn]
}
